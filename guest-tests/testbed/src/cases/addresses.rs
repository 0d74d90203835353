// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `pinvisor` reports and does if addresses are not those that devices use: a page that is
//! elsewhere, a bus that translates. The device is bound, as after the steps of
//! [`BY_STATE`](super::refusal::BY_STATE).

use super::step::{STEP, Step};

/// Waits until the guest runs, punches a hole into its memory, and ends it.
const TAKE: &str = "rm -f /tmp/taken\n(until grep -qs '\"ready\"' /tmp/taken; do sleep 0.1; done\n\
                 pid=$(cat /tmp/pid)\n\
                 for file in /proc/$pid/fd/* /proc/$pid/map_files/*; do\n\
                 case $(readlink $file) in *'memfd:guest-memory (deleted)')\n\
                 fallocate --punch-hole --offset 32M --length 2M $file; echo punched $?; break ;; esac\n\
                 done\n\
                 kill -INT $pid) & taker=$!\n";

/// The report of a run whose memory has lost a page.
const TAKEN: Step = Step {
    before: TAKE,
    after: "wait $taker\n",
    status: "3",
    error: "moved",
    says: &[
        "punched 0",
        "page of guest memory at GPA 0x",
        "is now at HPA 0x",
        "reboot the host",
    ],
    ..STEP
};

/// The steps, on the machine of those before.
pub const ADDRESSES: &[Step] = &[
    Step {
        // A bridge that adds 256 GiB to the bus's addresses, as the CPU sees them.
        name: "bus-addresses",
        before: "sed -E '1s/0x00000000([0-9a-f]{8})/0x00000040\\1/g' /sys/bus/pci/devices/$TESTBED_BDF_0/resource | fake /sys/bus/pci/devices/$TESTBED_BDF_0/resource\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        status: "3",
        error: "bus-addresses",
        says: &[
            "$BDF: BAR0 is at 0x",
            "for the CPU",
            "move the device to a slot",
        ],
        ..STEP
    },
    Step {
        name: "bus-addresses-check",
        command: "pinvisor check $TESTBED_BDF_0",
        after: "umount /sys/bus/pci/devices/$TESTBED_BDF_0/resource\n",
        status: "2",
        shows: &["FAIL device-bars"],
        says: &["on the device's bus", "lspci -vvt"],
        ..STEP
    },
    Step {
        // The guest runs; what is missing is reported. /proc/iomem hides its addresses from such a
        // caller, too.
        name: "pages-hidden",
        before: "cat /proc/iomem | fake /proc/iomem\n",
        command: "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin pinvisor run $ready --device $TESTBED_BDF_0",
        status: "6",
        error: "guest-status",
        says: &[
            "Cannot verify that guest memory stays",
            "/proc/self/pagemap hides addresses",
        ],
        ..STEP
    },
    Step {
        name: "pages-hidden-check",
        command: "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin pinvisor check $TESTBED_BDF_0",
        after: "umount /proc/iomem\n",
        shows: &["WARN page-addresses", "OK capability-rawio"],
        says: &["CAP_SYS_ADMIN"],
        ..STEP
    },
    Step {
        // What the kernel keeps pinned is still where it was; the guest has another page in its place.
        name: "page-taken",
        command: "pinvisor run --noiommu --kernel /testbed/endless --memory 64M --device $TESTBED_BDF_0 --event-file /tmp/taken --pidfile /tmp/pid",
        ..TAKEN
    },
    Step {
        // The same in ordinary memory, at addresses that the guest would translate.
        name: "small-page-taken",
        command: "pinvisor run --noiommu --kernel /testbed/endless --memory 64M --device $TESTBED_BDF_0,dma=translate --event-file /tmp/taken --pidfile /tmp/pid",
        ..TAKEN
    },
];
