// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every line of `pinvisor check` about a device, and `pinvisor list`.

use super::super::step::{STEP, Step};

/// After [`MACHINE`](super::MACHINE), on the same machine: the NVMe disk is bound to vfio-pci.
pub const DEVICES: &[Step] = &[
    Step {
        name: "absent-device",
        command: "pinvisor check 7f:00.0",
        status: "2",
        shows: &["FAIL device-exists"],
        says: &["0000:7f:00.0"],
        ..STEP
    },
    Step {
        name: "bridge",
        command: "pinvisor check 00:08.0",
        status: "2",
        shows: &["FAIL device-type"],
        says: &["bridge"],
        ..STEP
    },
    Step {
        name: "without-its-iommu",
        command: "pinvisor check $TESTBED_BDF_0,dma=iommu",
        status: "2",
        shows: &["FAIL device-dma-mode"],
        says: &["this device is not behind an IOMMU"],
        ..STEP
    },
    Step {
        name: "mediated-without-profile",
        command: "pinvisor check --memory 64M $TESTBED_BDF_1,dma=mediate",
        status: "2",
        shows: &[
            "OK hugepages",
            "OK available-memory",
            "FAIL device-dma-mode",
        ],
        says: &[
            "Pinvisor includes none for 8086:10d3",
            "64 MiB are required",
        ],
        ..STEP
    },
    Step {
        name: "mediated-by-anothers-profile",
        command: "pinvisor check --memory 64M $TESTBED_BDF_1,dma=mediate,profile=/testbed/edu.toml",
        status: "2",
        shows: &["FAIL device-dma-mode"],
        says: &["is not for this device, 8086:10d3"],
        ..STEP
    },
    Step {
        name: "guarded-check",
        command: "pinvisor check --memory 64M $TESTBED_BDF_0,dma=mediate",
        shows: &["OK hugepages", "OK available-memory", "OK device-dma-mode"],
        says: &["guarded NVMe", "64 MiB are required"],
        ..STEP
    },
    Step {
        name: "too-little-memory-check",
        command: "pinvisor check --memory 64G $TESTBED_BDF_0,dma=translate",
        status: "2",
        shows: &[
            "OK hugepages",
            "FAIL available-memory",
            "OK device-dma-mode",
        ],
        says: &["65536 MiB are required, but only ", "MiB are available"],
        ..STEP
    },
    Step {
        name: "no-node",
        before: "cover /dev/vfio/devices /tmp/no-nodes\n",
        command: "pinvisor check $TESTBED_BDF_0 --backend cdev",
        after: "umount /dev/vfio/devices\n",
        status: "2",
        shows: &["FAIL device-cdev"],
        says: &["does not exist, although the host kernel lists it"],
        ..STEP
    },
    Step {
        name: "open-elsewhere",
        before: "sleep 1000 7<> /dev/vfio/devices/noiommu-vfio0 & holder=$!\n\
                 until [ -e /proc/$holder/fd/7 ]; do sleep 0.1; done\n",
        command: "pinvisor check $TESTBED_BDF_0",
        status: "2",
        shows: &["FAIL device-in-use"],
        says: &["/dev/vfio/devices/noiommu-vfio0 open", "next: kill "],
        ..STEP
    },
    Step {
        name: "unbind-open",
        command: "pinvisor unbind $TESTBED_BDF_0",
        after: "kill $holder; wait $holder 2> /dev/null\n",
        status: "3",
        error: "unbind-open",
        says: &["$BDF", "/dev/vfio/devices/noiommu-vfio0 open", "kill "],
        ..STEP
    },
    Step {
        name: "no-own-reset",
        command: "pinvisor check 00:05.0",
        status: "2",
        shows: &["FAIL device-reset", "WARN device-dma-width"],
        says: &[
            "Neither it nor its bus",
            "reset=none",
            "32 address bits",
            "below 4 GiB",
        ],
        ..STEP
    },
    Step {
        name: "two-on-a-bus",
        command: "pinvisor check $TESTBED_BDF_2",
        status: "2",
        shows: &["WARN device-reset", "WARN device-siblings"],
        says: &["DMA alias", "pinvisor bind "],
        ..STEP
    },
    Step {
        name: "homeless-bar",
        before: "echo '0x0 0x3fff 0x20140204' | fake /sys/bus/pci/devices/$TESTBED_BDF_0/resource\n",
        command: "pinvisor check $TESTBED_BDF_0",
        after: "umount /sys/bus/pci/devices/$TESTBED_BDF_0/resource\n",
        status: "2",
        shows: &["FAIL device-bars"],
        says: &["BAR0 16 KiB nowhere", "pci=realloc"],
        ..STEP
    },
    Step {
        name: "no-interrupts",
        before: "head -c 256 /dev/zero | fake /sys/bus/pci/devices/$TESTBED_BDF_0/config\n",
        command: "pinvisor check $TESTBED_BDF_0",
        after: "umount /sys/bus/pci/devices/$TESTBED_BDF_0/config\n",
        shows: &["WARN device-interrupts"],
        says: &["no interrupts"],
        ..STEP
    },
    Step {
        name: "list",
        command: "pinvisor list",
        says: &[
            "$BDF  1b36:0010  vfio-pci",
            "noiommu",
            "flr",
            "Non-volatile memory controller",
            "Ethernet controller",
        ],
        ..STEP
    },
    Step {
        name: "list-json",
        command: "pinvisor list --json",
        says: &[
            "\"iommufd\": \"/dev/iommu\"",
            "\"cdev\": \"/dev/vfio/devices/noiommu-vfio0\"",
            "\"mode\": \"noiommu\"",
            "\"driver\": \"e1000e\"",
        ],
        ..STEP
    },
    Step {
        name: "check-unbind",
        command: "pinvisor unbind $TESTBED_BDF_0",
        says: &["bound to nvme again"],
        ..STEP
    },
];
