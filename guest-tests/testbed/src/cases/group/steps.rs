// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is reported and refused where VFIO groups are the only way to a device.

use super::super::step::{STEP, Step};

/// The first device is an NVMe controller.
pub const GROUP: &[Step] = &[
    Step {
        name: "group-not-bound",
        command: "pinvisor check --memory 64M $TESTBED_BDF_0",
        status: "2",
        shows: &["FAIL device-driver"],
        says: &["next: pinvisor bind $BDF"],
        ..STEP
    },
    Step {
        name: "group-bind",
        command: "pinvisor bind $TESTBED_BDF_0",
        says: &["$BDF: bound to vfio-pci, taken from nvme; /dev/vfio/noiommu-"],
        ..STEP
    },
    Step {
        name: "group-check",
        command: "pinvisor check --memory 64M $TESTBED_BDF_0",
        shows: &[
            "OK kernel-version",
            "OK kernel-config",
            "OK backend",
            "OK iommufd",
            "OK io-uring",
            "OK unsafe-mode",
            "OK page-addresses",
            "OK device-cdev",
        ],
        says: &[
            "$BDF has a group and no character device",
            "/dev/vfio/noiommu-",
            "128 MiB are required, 2 times the guest's memory",
            "Ready, with 0 warnings",
        ],
        ..STEP
    },
    Step {
        name: "group-run",
        command: "pinvisor -v run $ready --device $TESTBED_BDF_0",
        status: "6",
        error: "guest-status",
        says: &["Backend group (/dev/vfio/noiommu-… and io_uring): $BDF has a group"],
        ..STEP
    },
    Step {
        name: "group-asked-for",
        command: "pinvisor -v run $ready --device $TESTBED_BDF_0 --backend group",
        status: "6",
        error: "guest-status",
        says: &["as requested by --backend"],
        ..STEP
    },
    Step {
        name: "group-not-cdev",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --backend cdev",
        status: "2",
        error: "open-iommufd",
        ..STEP
    },
    Step {
        name: "group-not-cdev-check",
        command: "pinvisor check $TESTBED_BDF_0 --backend cdev",
        status: "2",
        shows: &[
            "FAIL kernel-version",
            "FAIL kernel-config",
            "FAIL iommufd",
            "FAIL device-cdev",
        ],
        ..STEP
    },
    Step {
        name: "group-list",
        command: "pinvisor list --json",
        says: &["\"backend\": \"group\"", "\"group\": \"/dev/vfio/noiommu-"],
        ..STEP
    },
    Step {
        name: "group-unsafe-off",
        before: "echo 0 > $unsafe\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        status: "2",
        error: "device",
        says: &["$BDF", "enable_unsafe_noiommu_mode"],
        ..STEP
    },
    Step {
        name: "group-unsafe-off-check",
        command: "pinvisor check --memory 64M $TESTBED_BDF_0",
        after: "echo 1 > $unsafe\n",
        status: "2",
        shows: &["FAIL unsafe-mode"],
        ..STEP
    },
    Step {
        name: "io-uring-disabled",
        before: "echo 2 > /proc/sys/kernel/io_uring_disabled\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        status: "2",
        error: "io-uring",
        says: &["kernel.io_uring_disabled"],
        ..STEP
    },
    Step {
        name: "io-uring-disabled-check",
        command: "pinvisor check --memory 64M $TESTBED_BDF_0",
        after: "echo 0 > /proc/sys/kernel/io_uring_disabled\n",
        status: "2",
        shows: &["FAIL io-uring"],
        says: &["kernel.io_uring_disabled"],
        ..STEP
    },
    Step {
        // As the filters of container runtimes do: io_uring_setup.
        name: "io-uring-filtered",
        command: "testbed inside deny --call 425 --errno 1 -- pinvisor run $ready --device $TESTBED_BDF_0",
        status: "2",
        error: "io-uring",
        ..STEP
    },
    Step {
        // Of /proc/iomem it has what root sees.
        name: "frames-hidden",
        before: "cat /proc/iomem | fake /proc/iomem\n",
        command: "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin pinvisor run $ready --device $TESTBED_BDF_0",
        status: "2",
        error: "addresses-hidden",
        says: &["/proc/self/pagemap"],
        ..STEP
    },
    Step {
        name: "frames-hidden-check",
        command: "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin pinvisor check --memory 64M $TESTBED_BDF_0",
        after: "umount /proc/iomem\n",
        status: "2",
        shows: &["FAIL page-addresses"],
        ..STEP
    },
    Step {
        name: "group-no-rawio",
        command: "setpriv --bounding-set=-sys_rawio --inh-caps=-sys_rawio pinvisor run $ready --device $TESTBED_BDF_0",
        status: "2",
        error: "open-group",
        says: &["$BDF", "/dev/vfio/noiommu-", "CAP_SYS_RAWIO"],
        ..STEP
    },
    Step {
        name: "group-held",
        before: "group=$(basename $(readlink /sys/bus/pci/devices/$TESTBED_BDF_0/iommu_group))\n\
                 sleep 1000 8<> /dev/vfio/noiommu-$group & holder=$!\n\
                 until [ -e /proc/$holder/fd/8 ]; do sleep 0.1; done\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "kill $holder; wait $holder 2> /dev/null\n",
        status: "3",
        error: "unbind-open",
        says: &["$BDF"],
        ..STEP
    },
    Step {
        name: "no-container",
        before: "mv /dev/vfio/vfio /dev/vfio/vfio.away\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        status: "2",
        error: "open-container",
        says: &["/dev/vfio/vfio", "modprobe vfio"],
        ..STEP
    },
    Step {
        name: "no-container-check",
        command: "pinvisor check --memory 64M $TESTBED_BDF_0",
        after: "mv /dev/vfio/vfio.away /dev/vfio/vfio\n",
        status: "2",
        shows: &["FAIL backend"],
        says: &["CONFIG_VFIO_CONTAINER"],
        ..STEP
    },
    Step {
        name: "no-group",
        before: "mv /dev/vfio/noiommu-$group /dev/vfio/away\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        status: "2",
        error: "no-group",
        says: &["$BDF"],
        ..STEP
    },
    Step {
        name: "no-group-check",
        command: "pinvisor check --memory 64M $TESTBED_BDF_0",
        after: "mv /dev/vfio/away /dev/vfio/noiommu-$group\n",
        status: "2",
        shows: &["FAIL device-cdev"],
        says: &["does not exist, although the host kernel lists it"],
        ..STEP
    },
    Step {
        name: "group-unbind",
        command: "pinvisor unbind $TESTBED_BDF_0",
        says: &["$BDF: taken from vfio-pci, bound to nvme again"],
        ..STEP
    },
];
