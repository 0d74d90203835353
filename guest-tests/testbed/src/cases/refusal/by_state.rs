// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `pinvisor run` refuses for the state of devices and of the machine.

use super::super::step::{STEP, Step};

/// Refusals of devices that are bound.
pub const BY_STATE: &[Step] = &[
    Step {
        name: "bind-all",
        command: "pinvisor bind $TESTBED_BDF_0 $TESTBED_BDF_1 00:05.0",
        says: &["$BDF: bound to vfio-pci, taken from nvme"],
        ..STEP
    },
    Step {
        name: "not-accepted",
        command: "pinvisor run --device $TESTBED_BDF_0 --kernel /testbed/status --memory 64M",
        status: "1",
        error: "noiommu-not-accepted",
        says: &["$BDF", "--noiommu", "all memory"],
        ..STEP
    },
    Step {
        name: "memory-encrypted",
        before: "sed 's/^flags.*/& sme/' /proc/cpuinfo | fake /proc/cpuinfo\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount /proc/cpuinfo\n",
        status: "2",
        error: "memory-encrypted",
        says: &["SME", "$BDF", "mem_encrypt=off"],
        ..STEP
    },
    Step {
        name: "not-behind-iommu",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=iommu",
        status: "3",
        error: "not-behind-iommu",
        says: &["$BDF"],
        ..STEP
    },
    Step {
        name: "behind-iommu",
        // Its group has another name than those that VFIO makes up.
        before: "cover /sys/bus/pci/devices/$TESTBED_BDF_0/vfio-dev /tmp/behind\n\
                 cover $(realpath /sys/bus/pci/devices/$TESTBED_BDF_0/iommu_group) /tmp/group\n\
                 mkdir -p /tmp/behind/vfio0; touch /dev/vfio/devices/vfio0\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=identity",
        status: "3",
        error: "behind-iommu",
        says: &["$BDF", "omit dma="],
        ..STEP
    },
    Step {
        name: "not-on-group-path",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --backend group",
        after: "umount $(realpath /sys/bus/pci/devices/$TESTBED_BDF_0/iommu_group)\n\
                umount /sys/bus/pci/devices/$TESTBED_BDF_0/vfio-dev; rm /dev/vfio/devices/vfio0\n",
        status: "3",
        error: "not-on-group-path",
        says: &["$BDF", "omit --backend group"],
        ..STEP
    },
    Step {
        name: "no-cdev",
        before: "cover /dev/vfio/devices /tmp/no-nodes\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --backend cdev",
        after: "umount /dev/vfio/devices\n",
        status: "2",
        error: "no-cdev",
        says: &["$BDF", "CONFIG_VFIO_DEVICE_CDEV"],
        ..STEP
    },
    Step {
        name: "no-rawio",
        command: "setpriv --bounding-set=-sys_rawio --inh-caps=-sys_rawio pinvisor run $ready --device $TESTBED_BDF_0",
        status: "2",
        error: "open-cdev",
        says: &["$BDF", "CAP_SYS_RAWIO"],
        ..STEP
    },
    Step {
        name: "group-open",
        before: "group=$(basename $(readlink /sys/bus/pci/devices/$TESTBED_BDF_0/iommu_group))\n\
                 exec 7<> /dev/vfio/noiommu-$group\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "exec 7<&-\n",
        status: "3",
        error: "unbind-open",
        says: &["$BDF", "/dev/vfio/noiommu-", "kill "],
        ..STEP
    },
    Step {
        name: "mixed-modes",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=translate --device $TESTBED_BDF_1",
        status: "1",
        error: "mixed-modes",
        says: &["$BDF", "separate guests"],
        ..STEP
    },
    Step {
        name: "no-identity",
        command: "pinvisor stress --break identity --kernel /testbed/status --memory 64M --noiommu --device $TESTBED_BDF_0,dma=translate",
        status: "1",
        error: "no-identity",
        says: &["identity-mapped"],
        ..STEP
    },
    Step {
        name: "no-profile",
        command: "pinvisor run $ready --device $TESTBED_BDF_1,dma=mediate",
        status: "3",
        error: "no-profile",
        says: &["8086:10d3", "profile=FILE"],
        ..STEP
    },
    Step {
        name: "not-guarded",
        // No capability, as the header's pointer to them is 0.
        before: "config=/sys/bus/pci/devices/$TESTBED_BDF_0/config\n\
                 { head -c 52 $config; printf '\\0'; tail -c +54 $config; } | fake $config\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=mediate",
        after: "umount $config\n",
        status: "3",
        error: "not-guarded",
        says: &["$BDF", "it has no MSI-X", "dma=identity"],
        ..STEP
    },
    Step {
        name: "profile-of-another",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=mediate,profile=/testbed/edu.toml",
        status: "3",
        error: "mediate",
        says: &["$BDF", "edu"],
        ..STEP
    },
    Step {
        name: "no-reset",
        command: "pinvisor run $ready --device 00:05.0",
        status: "3",
        error: "no-reset",
        says: &["0000:00:05.0", "reset=none"],
        ..STEP
    },
    Step {
        name: "no-reset-accepted",
        // Warned of at the start and at the end.
        command: "pinvisor run $ready --device 00:05.0,reset=none",
        status: "6",
        error: "guest-status",
        says: &[
            "0000:00:05.0: cannot be reset: it may continue",
            "0000:00:05.0: was not reset: it keeps this guest's programming",
        ],
        ..STEP
    },
    Step {
        name: "plan-warns",
        // With 6 GiB all hugepages are above 4 GiB; no driver asked for more than 32 bits for the second device.
        command: "pinvisor plan --noiommu --kernel /testbed/kernel --memory 256M --device $TESTBED_BDF_0 --device 00:05.0,reset=none --cmdline 'quiet mem=512M memmap=64M@1G crashkernel=256M'",
        says: &[
            "warning: mem=512M on the kernel's command line limits addresses",
            "warning: memmap=64M@1G",
            "HOST memory",
            "warning: crashkernel=256M",
            "warning: 0000:00:05.0: may have only 32 address bits",
        ],
        ..STEP
    },
    Step {
        name: "guest-reset",
        command: "pinvisor run --noiommu --kernel /testbed/reset --memory 64M --device $TESTBED_BDF_0",
        status: "7",
        error: "guest-reset",
        says: &["requested a restart", "--on-reset restart"],
        ..STEP
    },
    Step {
        name: "initramfs-too-large",
        before: "dd if=/dev/null of=/tmp/large bs=1M seek=128 2>/dev/null\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --initramfs /tmp/large",
        after: "rm /tmp/large\n",
        status: "4",
        error: "place",
        says: &[
            "initramfs needs 128 MiB, but guest memory has",
            "give the guest more memory",
        ],
        ..STEP
    },
    Step {
        name: "no-kvm",
        before: "mv /dev/kvm /dev/kvm.away\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "mv /dev/kvm.away /dev/kvm\n",
        status: "2",
        error: "vm",
        says: &["firmware"],
        ..STEP
    },
    Step {
        name: "addresses-hidden",
        before: "sed 's/[0-9a-f]*-[0-9a-f]* :/00000000-00000000 :/' /proc/iomem | fake /proc/iomem\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount /proc/iomem\n",
        status: "2",
        error: "addresses-hidden",
        says: &["/proc/iomem", "run as root"],
        ..STEP
    },
    Step {
        name: "no-ecam",
        before: "echo '00000000-ffffffff : Reserved' | fake /proc/iomem\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount /proc/iomem\n",
        status: "2",
        error: "no-ecam",
        says: &["config space", "0xfec00000"],
        ..STEP
    },
    Step {
        name: "garbled",
        before: "echo nonsense | fake /proc/iomem\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount /proc/iomem\n",
        status: "2",
        error: "parse",
        says: &["/proc/iomem", "nonsense"],
        ..STEP
    },
    Step {
        name: "unreadable",
        before: "mkdir -p /tmp/pools/nr_hugepages; pools=/sys/kernel/mm/hugepages/hugepages-2048kB\n\
                 mount --bind /tmp/pools $pools\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount $pools\n",
        status: "2",
        error: "read",
        says: &["/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"],
        ..STEP
    },
    Step {
        name: "too-few-hugepages",
        command: "pinvisor run --noiommu --kernel /testbed/status --memory 1G --device $TESTBED_BDF_0,dma=identity",
        status: "4",
        error: "too-few-hugepages",
        says: &[
            "512",
            "150",
            "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
        ],
        ..STEP
    },
    Step {
        name: "locked-memory",
        command: "setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock prlimit --memlock=1048576 pinvisor run $ready --device $TESTBED_BDF_0",
        status: "4",
        error: "locked-memory",
        says: &[
            "needs 64 MiB of locked memory",
            "the limit of this process is 1 MiB",
            "ulimit -l 65536",
            "check: memlock",
        ],
        ..STEP
    },
    Step {
        name: "address-space",
        command: "prlimit --as=200000000 pinvisor run --noiommu --kernel /testbed/status --memory 256M --device $TESTBED_BDF_0",
        status: "4",
        error: "map",
        says: &["Cannot allocate memory", "ulimit -v"],
        ..STEP
    },
    Step {
        name: "overlap",
        // A bridge window where the hugepages of a machine of 6 GiB are.
        before: "echo '80000000-afffffff : PCI Bus 0000:00\nb0000000-bfffffff : PCI ECAM 0000 [bus 00-ff]\n100000000-1ffffffff : PCI Bus 0000:00' | fake /proc/iomem\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount /proc/iomem\n",
        status: "4",
        error: "plan",
        says: &["overlaps"],
        ..STEP
    },
    Step {
        name: "kernel-not-above-4g",
        // xloadflags, bit 1: the kernel can be loaded above 4 GiB (Linux Documentation/arch/x86/boot.rst).
        // With 6 GiB of memory all hugepages are above.
        before: "cp /testbed/kernel /tmp/low\nprintf '\\1' | dd of=/tmp/low bs=1 seek=566 conv=notrunc status=none\n",
        command: "pinvisor run --noiommu --kernel /tmp/low --memory 256M --device $TESTBED_BDF_0",
        status: "4",
        error: "place",
        says: &["/tmp/low", "above 4 GiB"],
        ..STEP
    },
    Step {
        name: "fragmented",
        command: "testbed inside shape --singles 60 --block 4 -- pinvisor run --noiommu --kernel /testbed/kernel --memory 120M --device $TESTBED_BDF_0",
        status: "4",
        error: "place",
        says: &["fragmented", "largest", "contiguous", "hugepages=N"],
        ..STEP
    },
    Step {
        name: "initramfs-ends-early",
        // A file of sysfs is as long as a page, as stat(2) has it.
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --initramfs $pool",
        before: "pool=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages\n",
        status: "1",
        error: "load",
        says: &["initramfs", "/hugepages-2048kB/nr_hugepages"],
        ..STEP
    },
    Step {
        name: "command-line-too-long",
        before: "long=$(head -c 5000 /dev/zero | tr '\\0' x)\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --cmdline $long",
        status: "1",
        error: "params",
        says: &["5000"],
        ..STEP
    },
    Step {
        name: "guest-crash",
        command: "pinvisor run --noiommu --kernel /testbed/crash --memory 64M --device $TESTBED_BDF_0",
        status: "5",
        error: "guest-crash",
        says: &["triple fault"],
        ..STEP
    },
    Step {
        name: "guest-status",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        status: "6",
        error: "guest-status",
        says: &["status 3"],
        ..STEP
    },
    Step {
        name: "no-window",
        // No bridge has a window for the table of the guest's memory.
        before: "echo 'b0000000-bfffffff : PCI ECAM 0000 [bus 00-ff]' | fake /proc/iomem\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=translate",
        after: "umount /proc/iomem\n",
        status: "4",
        error: "window",
        says: &["DMA window"],
        ..STEP
    },
    Step {
        name: "wanted-back",
        before: "(until grep -qs '\"ready\"' /tmp/events; do sleep 0.1; done; echo $TESTBED_BDF_0 > /sys/bus/pci/drivers/vfio-pci/unbind) & taker=$!\n",
        command: "pinvisor run --noiommu --kernel /testbed/endless --memory 64M --device $TESTBED_BDF_0 --event-file /tmp/events",
        after: "wait $taker; pinvisor bind $TESTBED_BDF_0\n",
        status: "3",
        error: "device-failed",
        says: &["$BDF", "the host requested it back"],
        ..STEP
    },
    Step {
        name: "report",
        command: "pinvisor stress --kernel /testbed/status --memory 64M --noiommu --device $TESTBED_BDF_0 --html /nowhere/report.html",
        status: "1",
        error: "report",
        says: &["/nowhere/report.html"],
        ..STEP
    },
];
