// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor bind` and `unbind`.

use super::step::{STEP, Step};

/// Devices: an NVMe disk (0) and a network interface (1), both with their own drivers.
pub const BIND: &[Step] = &[
    Step {
        name: "bind-disk",
        command: "pinvisor bind $TESTBED_BDF_0",
        says: &[
            "$BDF: bound to vfio-pci, taken from nvme; /dev/vfio/devices/noiommu-vfio",
            "no IOMMU isolates it",
        ],
        ..STEP
    },
    Step {
        name: "bind-disk-twice",
        command: "pinvisor bind $TESTBED_BDF_0",
        says: &["$BDF: already bound to vfio-pci"],
        ..STEP
    },
    Step {
        name: "unbind-disk",
        command: "pinvisor unbind $TESTBED_BDF_0",
        says: &["$BDF: taken from vfio-pci, bound to nvme again"],
        ..STEP
    },
    Step {
        name: "unbind-disk-twice",
        command: "pinvisor unbind $TESTBED_BDF_0",
        says: &["$BDF: already bound to nvme"],
        ..STEP
    },
    Step {
        name: "bind-both",
        command: "pinvisor bind $TESTBED_BDF_0 $TESTBED_BDF_1",
        says: &["taken from nvme", "taken from e1000e"],
        ..STEP
    },
    Step {
        name: "bind-both-twice",
        command: "pinvisor bind $TESTBED_BDF_1 $TESTBED_BDF_0",
        says: &["already bound to vfio-pci"],
        ..STEP
    },
    Step {
        name: "unbind-both",
        command: "pinvisor unbind $TESTBED_BDF_0 $TESTBED_BDF_1",
        says: &["bound to nvme again", "bound to e1000e again"],
        ..STEP
    },
    Step {
        name: "unbind-both-twice",
        command: "pinvisor unbind $TESTBED_BDF_0 $TESTBED_BDF_1",
        says: &["already bound to nvme", "already bound to e1000e"],
        ..STEP
    },
    Step {
        name: "no-override-left",
        command: "cat /sys/bus/pci/devices/$TESTBED_BDF_0/driver_override",
        says: &["(null)"],
        ..STEP
    },
    Step {
        name: "mounted",
        before: "for tenth in $(seq 100); do [ -b /dev/nvme0n1 ] && break; sleep 0.1; done\n\
                 mkfs.ext2 -q /dev/nvme0n1; mkdir -p '/mnt/a disk'; mount -t ext2 /dev/nvme0n1 '/mnt/a disk'\n",
        command: "pinvisor bind $TESTBED_BDF_1 $TESTBED_BDF_0",
        status: "3",
        error: "bind-in-use",
        says: &[
            "$BDF",
            "nvme0n1 is mounted on /mnt/a disk",
            "umount",
            "--force",
        ],
        ..STEP
    },
    Step {
        name: "none-touched",
        command: "basename $(readlink /sys/bus/pci/devices/$TESTBED_BDF_1/driver)",
        says: &["e1000e"],
        ..STEP
    },
    Step {
        name: "mounted-check",
        command: "pinvisor check $TESTBED_BDF_0",
        status: "2",
        shows: &["FAIL device-in-use"],
        says: &["nvme0n1 is mounted on /mnt/a disk"],
        ..STEP
    },
    Step {
        name: "mounted-list",
        command: "pinvisor list",
        after: "umount '/mnt/a disk'\n",
        says: &["nvme0n1 is mounted on /mnt/a disk"],
        ..STEP
    },
    Step {
        name: "swap",
        before: "mkswap /dev/nvme0n1 > /dev/null; swapon /dev/nvme0n1\n",
        command: "pinvisor bind $TESTBED_BDF_0",
        after: "swapoff /dev/nvme0n1\n",
        status: "3",
        error: "bind-in-use",
        says: &["nvme0n1 is used for swap", "swapoff /dev/nvme0n1"],
        ..STEP
    },
    Step {
        name: "other-mount-namespace",
        before: "mkfs.ext2 -q /dev/nvme0n1\n\
                 unshare --mount sh -c 'mount -t ext2 /dev/nvme0n1 /mnt && exec sleep 1000' & holder=$!\n\
                 until grep -q /dev/nvme0n1 /proc/$holder/mountinfo; do sleep 0.1; done\n",
        command: "pinvisor bind $TESTBED_BDF_0",
        after: "kill $holder; wait $holder 2> /dev/null\n",
        status: "3",
        error: "bind-in-use",
        says: &[
            "nvme0n1 is mounted on /mnt in the mount namespace of process ",
            "nsenter -t ",
        ],
        ..STEP
    },
    Step {
        name: "open-in-a-program",
        before: "sleep 1000 8< /dev/nvme0n1 & holder=$!\n\
                 until [ -e /proc/$holder/fd/8 ]; do sleep 0.1; done\n",
        command: "pinvisor bind $TESTBED_BDF_0",
        after: "kill $holder; wait $holder 2> /dev/null\n",
        status: "3",
        error: "bind-in-use",
        says: &["has /dev/nvme0n1 open", "kill "],
        ..STEP
    },
    Step {
        name: "network-reached",
        before: "interface=$(ls /sys/bus/pci/devices/$TESTBED_BDF_1/net)\n\
                 ip addr add 192.0.2.2/24 dev $interface; ip link set $interface up\n",
        command: "pinvisor bind $TESTBED_BDF_1",
        status: "3",
        error: "bind-in-use",
        says: &["is up and reaches 192.0.2.0/24", "ip link set dev"],
        ..STEP
    },
    Step {
        name: "default-route",
        before: "ip route add default via 192.0.2.1\n",
        command: "pinvisor bind $TESTBED_BDF_1",
        status: "3",
        error: "bind-in-use",
        says: &["the default route goes through", "ip route del default dev"],
        ..STEP
    },
    Step {
        name: "default-route-forced",
        command: "pinvisor bind --force $TESTBED_BDF_1",
        after: "pinvisor unbind $TESTBED_BDF_1\n",
        says: &["bound to vfio-pci, taken from e1000e"],
        ..STEP
    },
    Step {
        name: "mounted-forced",
        before: "mount -t ext2 /dev/nvme0n1 /mnt\n",
        command: "pinvisor bind --force $TESTBED_BDF_0",
        after: "umount -l /mnt; pinvisor unbind $TESTBED_BDF_0\n",
        says: &["bound to vfio-pci, taken from nvme"],
        ..STEP
    },
    Step {
        name: "bind-absent",
        command: "pinvisor bind 7f:00.0",
        status: "3",
        error: "no-device",
        says: &["0000:7f:00.0", "pinvisor list"],
        ..STEP
    },
    Step {
        name: "bind-bridge",
        command: "pinvisor bind 00:08.0",
        status: "3",
        error: "bind-bridge",
        says: &["0000:00:08.0 is a bridge"],
        ..STEP
    },
    Step {
        name: "bind-silent",
        before: "head -c 4096 /dev/zero | tr '\\0' '\\377' > /tmp/ones\n\
                 mount --bind /tmp/ones /sys/bus/pci/devices/$TESTBED_BDF_0/config\n",
        command: "pinvisor bind $TESTBED_BDF_0",
        status: "3",
        error: "bind-silent",
        says: &["$BDF does not respond"],
        ..STEP
    },
    Step {
        name: "check-silent",
        command: "pinvisor check $TESTBED_BDF_0",
        after: "umount /sys/bus/pci/devices/$TESTBED_BDF_0/config\n",
        status: "2",
        shows: &["FAIL device-type"],
        says: &["does not respond"],
        ..STEP
    },
    Step {
        name: "bind-unprivileged",
        command: "$unprivileged bind $TESTBED_BDF_0",
        status: "3",
        error: "bind-write",
        says: &["driver_override", "run as root"],
        ..STEP
    },
    Step {
        // The switch reads as on, but is off.
        name: "bind-not-taken",
        before: "echo 0 > $unsafe; echo Y | fake $unsafe\n",
        command: "pinvisor bind $TESTBED_BDF_0",
        after: "umount $unsafe; echo 1 > $unsafe\n",
        status: "3",
        error: "bind-not-taken",
        says: &["$BDF", "bound to nvme again", "dmesg"],
        ..STEP
    },
    Step {
        // Neither a character device nor a group.
        name: "bind-no-cdev",
        before: "cover /dev/vfio /tmp/no-nodes\n",
        command: "pinvisor bind $TESTBED_BDF_0",
        after: "umount /dev/vfio\n",
        status: "2",
        error: "bind-no-cdev",
        says: &["$BDF", "bound to nvme again", "CONFIG_VFIO_DEVICE_CDEV"],
        ..STEP
    },
    Step {
        name: "all-as-it-was",
        command: "pinvisor list",
        says: &["$BDF  1b36:0010  nvme ", "e1000e  "],
        ..STEP
    },
];
