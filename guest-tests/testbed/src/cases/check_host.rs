// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every line of `pinvisor check`, brought about.

mod devices;
mod lacking;

use super::bind::BIND;
use super::refusal::{machine, run};
use super::rig::Rig;
use super::step::{STEP, Step};
use crate::error::Result;
use crate::runner::CaseResult;
use crate::setup::Flavour;

pub use devices::DEVICES;
pub use lacking::{BARE, WITHOUT_NOIOMMU};

/// On a machine that has all. Devices: an NVMe disk (0), a network interface (1), and two `edu` behind one
/// conventional bridge (2, 3); one more `edu` on the root bus.
pub const MACHINE: &[Step] = &[
    Step {
        name: "nothing-bound",
        command: "pinvisor check --memory 64M $TESTBED_BDF_0",
        status: "2",
        shows: &[
            "OK taint",
            "OK unsafe-mode",
            "FAIL device-driver",
            "OK device-in-use",
        ],
        says: &[
            "is not tainted; binding a device taints it",
            "next: pinvisor bind $BDF",
            "Not ready: 1 failed",
        ],
        ..STEP
    },
    Step {
        name: "unsafe-off",
        before: "echo 0 > $unsafe\n",
        command: "pinvisor check $TESTBED_BDF_0",
        status: "2",
        shows: &["FAIL unsafe-mode", "FAIL device-driver"],
        says: &[
            "does not allow binding",
            "echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
        ],
        ..STEP
    },
    Step {
        name: "unsafe-off-at-bind",
        command: "pinvisor bind $TESTBED_BDF_0",
        status: "2",
        error: "bind-unsafe-mode-off",
        says: &[
            "$BDF",
            "unsafe noiommu mode",
            "echo 1 >",
            "&& pinvisor bind $BDF",
        ],
        ..STEP
    },
    Step {
        name: "unsafe-on-at-bind",
        before: "echo 1 > $unsafe\n",
        command: "pinvisor bind $TESTBED_BDF_0",
        says: &["taken from nvme", "/dev/vfio/devices/noiommu-vfio"],
        ..STEP
    },
    Step {
        name: "unsafe-off-later",
        before: "echo 0 > $unsafe\n",
        command: "pinvisor check --memory 64M $TESTBED_BDF_0",
        shows: &[
            "OK kernel-version",
            "OK kernel-config",
            "OK sysfs",
            "OK seccomp",
            "OK cpu-virtualisation",
            "OK kvm",
            "OK iommufd",
            "OK iommu",
            "OK unsafe-mode",
            "OK memory-encryption",
            "OK capability-rawio",
            "OK page-addresses",
            "OK address-map",
            "OK config-space",
            "OK memlock",
            "OK open-files",
            "OK hugepages",
            "OK available-memory",
            "OK pinned-memory",
            "OK memory-errors",
            "OK kept-memory",
            "OK taint",
            "OK lockdown",
            "OK device-exists",
            "OK device-type",
            "OK device-in-use",
            "OK device-driver",
            "OK device-cdev",
            "OK device-reset",
            "OK device-bars",
            "OK device-interrupts",
            "OK device-dma-width",
            "OK device-siblings",
            "OK device-dma-mode",
        ],
        says: &[
            "and continue to work",
            "U means that a device was bound in noiommu mode",
            "64 MiB are required, once",
            "32 pages of 2M for 64 MiB: 150 in the pool",
            "MSI-X (",
            "By itself (flr",
            "as you trust root on the host",
            "KVM has all capabilities",
            "The host has its own at HPA 0x",
            "identity: guest memory is at its host-physical addresses",
            "Ready, with 0 warnings",
        ],
        ..STEP
    },
    Step {
        name: "unsafe-off-runs",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "echo 1 > $unsafe\n",
        status: "6",
        error: "guest-status",
        ..STEP
    },
    Step {
        name: "json",
        command: "pinvisor check --json $TESTBED_BDF_0 7f:00.0",
        status: "2",
        says: &[
            "\"version\": 1",
            "\"ok\": false",
            "\"id\": \"device-exists\"",
            "\"device\": \"$BDF\"",
            "\"verdict\": \"fail\"",
            "\"next\": \"pinvisor list\"",
        ],
        ..STEP
    },
    Step {
        name: "old-kernel",
        before: "echo 7.2.9 | fake /proc/sys/kernel/osrelease\n",
        command: "pinvisor check --backend cdev",
        after: "umount /proc/sys/kernel/osrelease\n",
        status: "2",
        shows: &["FAIL kernel-version"],
        says: &["Linux 7.2.9, which is too old: Linux 7.3"],
        ..STEP
    },
    Step {
        name: "strange-kernel",
        before: "echo best | fake /proc/sys/kernel/osrelease\n",
        command: "pinvisor check",
        after: "umount /proc/sys/kernel/osrelease\n",
        shows: &["WARN kernel-version"],
        says: &["best"],
        ..STEP
    },
    Step {
        name: "option-off",
        before: "zcat /proc/config.gz | sed '/^CONFIG_VFIO_DEVICE_CDEV=/d; /^CONFIG_VFIO_CONTAINER=/d' | gzip | fake /proc/config.gz\n",
        command: "pinvisor check",
        after: "umount /proc/config.gz\n",
        status: "2",
        shows: &["FAIL kernel-config"],
        says: &[
            "without CONFIG_VFIO_DEVICE_CDEV, CONFIG_VFIO_CONTAINER (/proc/config.gz)",
            "only beside VFIO_CONTAINER",
            "scripts/config -e VFIO_DEVICE_CDEV -e VFIO_CONTAINER",
        ],
        ..STEP
    },
    Step {
        name: "no-options",
        before: "echo x | fake /proc/config.gz\n",
        command: "pinvisor check",
        after: "umount /proc/config.gz\n",
        shows: &["WARN kernel-config"],
        says: &["Neither /proc/config.gz nor /boot/config-7"],
        ..STEP
    },
    Step {
        name: "no-virtualisation",
        before: "sed 's/ svm / /' /proc/cpuinfo | fake /proc/cpuinfo\n",
        command: "pinvisor check",
        shows: &["WARN cpu-virtualisation"],
        ..STEP
    },
    Step {
        name: "no-kvm-node",
        before: "mv /dev/kvm /dev/kvm.away\n",
        command: "pinvisor check",
        after: "mv /dev/kvm.away /dev/kvm; umount /proc/cpuinfo\n",
        status: "2",
        shows: &["FAIL cpu-virtualisation", "FAIL kvm"],
        says: &["nested virtualisation", "/dev/kvm does not exist"],
        ..STEP
    },
    Step {
        name: "no-iommufd-node",
        before: "mv /dev/iommu /dev/iommu.away\n",
        command: "pinvisor check",
        after: "mv /dev/iommu.away /dev/iommu\n",
        status: "2",
        shows: &["FAIL iommufd"],
        says: &["modprobe iommufd"],
        ..STEP
    },
    Step {
        name: "with-iommu",
        before: "cover /sys/class/iommu /tmp/iommus; mkdir /tmp/iommus/dmar0\n\
                 echo ' 0: 9 IR-IO-APIC 2-edge timer' | fake /proc/interrupts\n",
        command: "pinvisor check",
        after: "umount /proc/interrupts /sys/class/iommu\n",
        shows: &["WARN iommu", "OK unsafe-mode"],
        says: &["(dmar0)", "omit --noiommu", "an IOMMU translates"],
        ..STEP
    },
    Step {
        name: "encrypted-sme",
        before: "sed 's/^flags.*/& sme/' /proc/cpuinfo | fake /proc/cpuinfo\n",
        command: "pinvisor check",
        after: "umount /proc/cpuinfo\n",
        status: "2",
        shows: &["FAIL memory-encryption"],
        says: &["SME", "mem_encrypt=off"],
        ..STEP
    },
    Step {
        name: "encrypted-tdx",
        before: "sed 's/^flags.*/& tdx_guest/' /proc/cpuinfo | fake /proc/cpuinfo\n",
        command: "pinvisor check",
        after: "umount /proc/cpuinfo\n",
        status: "2",
        shows: &["FAIL memory-encryption"],
        says: &["TDX guest"],
        ..STEP
    },
    Step {
        name: "no-config-space",
        before: "echo '00000000-ffffffff : Reserved' | fake /proc/iomem\n",
        command: "pinvisor check",
        after: "umount /proc/iomem\n",
        status: "2",
        shows: &["FAIL config-space"],
        says: &[
            "by I/O ports only",
            "no range of 1 MiB below 0xfec00000 is free",
        ],
        ..STEP
    },
    Step {
        name: "unprivileged",
        command: "$unprivileged check --memory 64M $TESTBED_BDF_0",
        status: "2",
        shows: &[
            "FAIL kvm",
            "FAIL iommufd",
            "FAIL capability-rawio",
            "FAIL address-map",
            "WARN config-space",
            "FAIL memlock",
        ],
        says: &[
            "IOMMU_IOAS_NOIOMMU_GET_PA",
            "usermod -aG kvm",
            "sudo",
            "the limit on locked memory is 8 MiB",
            "ulimit -l 65536",
        ],
        ..STEP
    },
    Step {
        name: "few-hugepages",
        command: "pinvisor check --memory 1G",
        status: "2",
        shows: &["FAIL hugepages"],
        says: &[
            "512 pages of 2M for 1 GiB are required, of which 150 are available",
            "echo 512 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
        ],
        ..STEP
    },
    Step {
        name: "few-hugepages-guarded",
        command: "pinvisor check --memory 1G $TESTBED_BDF_0",
        shows: &["OK hugepages", "OK available-memory", "OK device-dma-mode"],
        says: &[
            "mediate: guarded NVMe selected by dma=auto, because an identity layout requires 512 free \
             hugepages of 2M, of which 150 are available",
        ],
        ..STEP
    },
    Step {
        name: "empty-pool",
        before: "echo 0 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages\n",
        command: "pinvisor check",
        after: "echo 150 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages\n",
        shows: &["WARN hugepages"],
        says: &["No page of 2M is available"],
        ..STEP
    },
    Step {
        name: "movable",
        before: "echo quiet hugetlb_cma=1G | fake /proc/cmdline\n",
        command: "pinvisor check",
        after: "umount /proc/cmdline\n",
        shows: &["WARN pinned-memory"],
        says: &["hugetlb_cma=1G"],
        ..STEP
    },
    Step {
        name: "memory-failed",
        before: "sed 's/^HardwareCorrupted.*/HardwareCorrupted: 4 kB/' /proc/meminfo > /tmp/meminfo\n\
                 echo 'HardwareCorrupted: 4 kB' >> /tmp/meminfo; fake /proc/meminfo < /tmp/meminfo\n",
        command: "pinvisor check",
        after: "umount /proc/meminfo\n",
        shows: &["WARN memory-errors"],
        says: &["4 KiB of host memory have failed"],
        ..STEP
    },
    Step {
        name: "kernel-in-trouble",
        before: "echo 192 | fake /proc/sys/kernel/tainted\n",
        command: "pinvisor check",
        after: "umount /proc/sys/kernel/tainted\n",
        shows: &["WARN taint"],
        says: &[
            "D, the kernel crashed and continued (taint 192)",
            "; U means",
        ],
        ..STEP
    },
    Step {
        name: "locked-down",
        before: "mkdir -p /tmp/locked/security; echo 'none [integrity] confidentiality' > /tmp/locked/security/lockdown\n\
                 mount --bind /tmp/locked /sys/kernel\n",
        command: "pinvisor check",
        after: "umount /sys/kernel\n",
        // What covers the directory covers hugepages, too.
        status: "2",
        shows: &["WARN lockdown", "FAIL hugepages"],
        says: &["locked down (integrity)"],
        ..STEP
    },
];

/// `check`, `list`, `bind` and `unbind` where all is there.
pub fn on_a_full_machine() -> Result<CaseResult> {
    let rig = Rig::new(9, "")?;
    let machine = machine(&rig)?
        .device("e1000e")
        .device("edu")
        .device("edu,bus=tbc2,addr=2")
        .qemu_arg("-device")
        .qemu_arg("edu,bus=pcie.0,addr=5");
    run(&machine, &[MACHINE, DEVICES, BIND])
}

/// The same where nothing is.
pub fn on_a_bare_machine() -> Result<CaseResult> {
    let rig = Rig::new(9, "")?;
    run(&machine(&rig)?.flavour(Flavour::Bare), &[BARE])
}
