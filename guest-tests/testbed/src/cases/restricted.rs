// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Containers and restricted environments: what is missing has the same name in a run's error and in `check`.

use super::refusal;
use super::rig::Rig;
use super::step::{STEP, Step};
use crate::error::Result;
use crate::runner::CaseResult;

/// A run that ends with a status of its guest's unless something is missing.
macro_rules! run {
    ($before:literal) => {
        concat!($before, "pinvisor run $ready --device $TESTBED_BDF_0")
    };
}

/// `check` of the same.
macro_rules! check {
    ($before:literal) => {
        concat!($before, "pinvisor check --memory 64M $TESTBED_BDF_0")
    };
}

/// The first device is an NVMe controller, the second an `edu`.
pub const RESTRICTED: &[Step] = &[
    Step {
        name: "bind-restricted",
        command: "pinvisor bind $TESTBED_BDF_0",
        ..STEP
    },
    Step {
        name: "unrestricted",
        command: run!(""),
        status: "6",
        error: "guest-status",
        ..STEP
    },
    Step {
        // A container in which nothing is in /dev but what a run is about.
        name: "three-nodes",
        before: "cat > /tmp/three-nodes <<'END'\n\
                 mount -t tmpfs nodes /mnt && mkdir -p /mnt/vfio/devices &&\n\
                 cp -a /dev/kvm /dev/iommu /mnt && cp -a /dev/vfio/devices/. /mnt/vfio/devices &&\n\
                 mount --bind /mnt /dev && exec \"$@\"\n\
                 END\n",
        command: run!("unshare --mount sh /tmp/three-nodes "),
        status: "6",
        error: "guest-status",
        ..STEP
    },
    Step {
        name: "three-nodes-check",
        command: check!("unshare --mount sh /tmp/three-nodes "),
        shows: &["OK kvm", "OK iommufd", "OK device-cdev"],
        ..STEP
    },
    Step {
        name: "no-sysfs",
        before: "cover /sys /tmp/no-sysfs\n",
        command: run!(""),
        status: "2",
        error: "read",
        says: &[
            "/sys/bus/pci/devices",
            "mount -t sysfs sysfs /sys (a container needs",
            "check: sysfs",
        ],
        ..STEP
    },
    Step {
        name: "no-sysfs-check",
        command: check!(""),
        after: "umount /sys\n",
        status: "2",
        shows: &["FAIL sysfs", "FAIL device-exists"],
        says: &["mount -t sysfs"],
        ..STEP
    },
    Step {
        // Nothing is written there as long as devices can be reset by VFIO.
        name: "read-only-sysfs",
        before: "mount -o remount,bind,ro /sys\n",
        command: run!(""),
        status: "6",
        error: "guest-status",
        ..STEP
    },
    Step {
        name: "read-only-sysfs-check",
        command: check!(""),
        shows: &["WARN sysfs"],
        says: &["/sys is read-only", "mount -o remount,bind,rw /sys"],
        ..STEP
    },
    Step {
        name: "read-only-sysfs-bind",
        command: "pinvisor bind $TESTBED_BDF_1",
        after: "mount -o remount,bind,rw /sys\n",
        status: "2",
        error: "bind-write",
        says: &["Read-only file system", "check: sysfs"],
        ..STEP
    },
    Step {
        name: "masked-map",
        before: "mount --bind /dev/null /proc/iomem\n",
        command: run!(""),
        status: "2",
        error: "addresses-hidden",
        says: &["/proc/iomem", "check: address-map"],
        ..STEP
    },
    Step {
        name: "masked-map-check",
        command: check!(""),
        after: "umount /proc/iomem\n",
        status: "2",
        shows: &["FAIL address-map", "WARN config-space"],
        ..STEP
    },
    Step {
        name: "without-rawio",
        command: run!("setpriv --bounding-set=-sys_rawio --inh-caps=-sys_rawio "),
        status: "2",
        error: "open-cdev",
        says: &["check: capability-rawio"],
        ..STEP
    },
    Step {
        name: "without-rawio-check",
        command: check!("setpriv --bounding-set=-sys_rawio --inh-caps=-sys_rawio "),
        status: "2",
        shows: &["FAIL capability-rawio"],
        ..STEP
    },
    Step {
        name: "without-admin",
        command: run!("setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "),
        status: "2",
        error: "addresses-hidden",
        says: &["check: address-map"],
        ..STEP
    },
    Step {
        name: "without-admin-check",
        command: check!("setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "),
        status: "2",
        shows: &["FAIL address-map", "WARN page-addresses"],
        ..STEP
    },
    Step {
        // ioctl IOMMU_IOAS_ALLOC: EPERM, as the usual filter of containers has it.
        name: "filter-denies-iommufd",
        command: run!("testbed inside deny --call 16 --request 0x3b81 --errno 1 -- "),
        status: "2",
        error: "iommufd",
        says: &[
            "Operation not permitted",
            "a seccomp filter",
            "check: seccomp",
        ],
        ..STEP
    },
    Step {
        // ioctl VFIO_DEVICE_BIND_IOMMUFD: ENOSYS.
        name: "filter-denies-vfio",
        command: run!("testbed inside deny --call 16 --request 0x3b76 --errno 38 -- "),
        status: "2",
        error: "device",
        says: &["Function not implemented", "check: seccomp"],
        ..STEP
    },
    Step {
        // memfd_create: ENOSYS.
        name: "filter-denies-memory",
        command: run!("testbed inside deny --call 319 --errno 38 -- "),
        status: "2",
        error: "map",
        says: &["Function not implemented", "check: seccomp"],
        ..STEP
    },
    Step {
        // seccomp: ENOSYS, as on a kernel without it.
        name: "filter-denies-filters",
        command: run!("testbed inside deny --call 317 --errno 38 -- "),
        status: "2",
        error: "seccomp-filter",
        says: &[
            "the thread serial-output",
            "--seccomp off",
            "check: seccomp",
        ],
        ..STEP
    },
    Step {
        // capset: EPERM.
        name: "filter-denies-capabilities",
        command: run!("testbed inside deny --call 126 --errno 1 -- "),
        status: "2",
        error: "confine",
        says: &["Cannot drop capabilities", "check: seccomp"],
        ..STEP
    },
    Step {
        name: "filter-check",
        command: check!("testbed inside deny --call 319 --errno 38 -- "),
        shows: &["WARN seccomp"],
        says: &["seccomp=unconfined"],
        ..STEP
    },
    Step {
        // ioctl KVM_CHECK_EXTENSION.
        name: "kvm-without-capabilities",
        lie: "ioctl 0xae03 1- returns=0",
        command: run!(""),
        status: "2",
        error: "vm",
        says: &["KVM lacks the capability UserMemory", "check: kvm"],
        ..STEP
    },
    Step {
        name: "kvm-without-capabilities-check",
        lie: "ioctl 0xae03 1- returns=0",
        command: check!(""),
        status: "2",
        shows: &["FAIL kvm"],
        says: &["KVM lacks the capability UserMemory"],
        ..STEP
    },
    Step {
        name: "few-open-files",
        command: "sh -c 'ulimit -n 20; exec pinvisor run --noiommu --kernel /testbed/status --memory 64M --device $TESTBED_BDF_0'",
        status: "2",
        error: "too-few-files",
        says: &["limit of this process is 20", "check: open-files"],
        ..STEP
    },
    Step {
        name: "few-open-files-check",
        command: "sh -c 'ulimit -n 20; exec pinvisor check $TESTBED_BDF_0'",
        status: "2",
        shows: &["FAIL open-files"],
        says: &["the hard limit is 20", "ulimit -n"],
        ..STEP
    },
];

/// All of them in one boot.
pub fn restricted() -> Result<CaseResult> {
    let rig = Rig::new(17, "")?;
    let machine = refusal::machine(&rig)?.device("edu");
    refusal::run(&machine, &[RESTRICTED])
}
