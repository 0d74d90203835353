// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is refused of a handover, and of a launch.

use super::super::step::{STEP, Step};

/// A monitor without privilege, whose guest is `/tmp/vm/status`; what it is offered comes before.
macro_rules! offered {
    ($offer:literal, $options:literal) => {
        concat!(
            "testbed inside offer ",
            $offer,
            " -- $as_vm run --handover fd=N --kernel /tmp/vm/status --memory 64M ",
            $options
        )
    };
}

/// The first device is an NVMe controller.
pub const REFUSALS: &[Step] = &[
    Step {
        name: "bind-handover",
        before: "echo 'vm:x:4242:4242::/:/bin/sh' >> /etc/passwd\n\
                 echo 'vm-kvm:x:4343:vm' >> /etc/group\n\
                 chgrp 4343 /dev/kvm && chmod 660 /dev/kvm\n\
                 mkdir /tmp/vm && cp /testbed/status /testbed/reset /tmp/vm && chmod -R a+rX /tmp/vm\n\
                 as_vm='setpriv --reuid vm --regid 4242 --init-groups /tmp/pinvisor'\n\
                 launch=\"/tmp/pinvisor launch --noiommu --device $TESTBED_BDF_0 --memory 64M\"\n",
        command: "pinvisor bind $TESTBED_BDF_0",
        ..STEP
    },
    Step {
        // Two exit codes come through.
        name: "launched",
        command: "$launch --user vm --kernel /tmp/vm/status",
        status: "6",
        error: "guest-status",
        ..STEP
    },
    Step {
        name: "launched-by-number",
        command: "$launch --user 4242:4343 --kernel /tmp/vm/reset",
        status: "7",
        error: "guest-reset",
        ..STEP
    },
    Step {
        name: "launched-by-root",
        command: "$launch --kernel /tmp/vm/status",
        status: "6",
        error: "guest-status",
        ..STEP
    },
    Step {
        // The monitor opens KVM; the launcher does not.
        name: "user-without-kvm",
        command: "$launch --user 65534:65534 --kernel /tmp/vm/status",
        status: "2",
        error: "vm",
        says: &["Cannot open /dev/kvm", "Permission denied"],
        ..STEP
    },
    Step {
        name: "no-such-user",
        command: "$launch --user nobody-there --kernel /tmp/vm/status",
        status: "1",
        error: "launch",
        says: &["--user nobody-there: there is no such user"],
        ..STEP
    },
    Step {
        name: "restart-without-privilege",
        command: "$launch --user vm --on-reset restart --kernel /tmp/vm/status",
        status: "1",
        error: "launch",
        says: &["--on-reset restart", "exit code 7"],
        ..STEP
    },
    Step {
        // What was bound and pinned is given back, or the next step fails.
        name: "not-executable",
        before: "cp /tmp/pinvisor /tmp/private; chmod 700 /tmp/private\n",
        command: "/tmp/private launch --noiommu --device $TESTBED_BDF_0 --memory 64M --user vm --kernel /tmp/vm/status",
        after: "say_hugepages given_back\n",
        status: "2",
        error: "launch",
        says: &["Cannot execute this program again", "Permission denied"],
        ..STEP
    },
    Step {
        name: "kernel-not-readable",
        before: "cp /tmp/vm/status /tmp/vm/private; chmod 600 /tmp/vm/private\n",
        command: "$launch --user vm --kernel /tmp/vm/private",
        status: "1",
        error: "kernel",
        says: &["/tmp/vm/private", "Permission denied"],
        ..STEP
    },
    Step {
        name: "launched-without-privilege",
        command: "$as_vm launch --noiommu --device $TESTBED_BDF_0 --memory 64M --kernel /tmp/vm/status",
        status: "2",
        error: "open-iommufd",
        ..STEP
    },
    Step {
        name: "launched-through-a-group",
        command: "$launch --backend group --user vm --kernel /tmp/vm/status",
        status: "2",
        error: "handover-of-groups",
        says: &["io_uring"],
        ..STEP
    },
    Step {
        name: "served-at-no-place",
        command: "$launch --serve /nowhere/socket --kernel /tmp/vm/status",
        after: "say_hugepages given_back\n",
        status: "1",
        error: "handover-socket",
        says: &[
            "Cannot listen at the socket /nowhere/socket",
            "No such file or directory",
        ],
        ..STEP
    },
    Step {
        name: "handover-at-no-socket",
        command: "$as_vm run --handover socket=/tmp/vm/status --kernel /tmp/vm/status --memory 64M",
        status: "1",
        error: "handover-socket",
        says: &[
            "Cannot connect to the socket /tmp/vm/status",
            "Permission denied",
        ],
        ..STEP
    },
    Step {
        // A handover of nothing is complete, so that the next ones fail for what they say.
        name: "handover-of-nothing",
        command: offered!("--state '{\"devices\": []}'", ""),
        status: "6",
        error: "guest-status",
        ..STEP
    },
    Step {
        name: "handover-no-descriptor",
        command: "$as_vm run --handover fd=77 --kernel /tmp/vm/status --memory 64M",
        status: "1",
        error: "handover",
        says: &["descriptor 77 is not open"],
        ..STEP
    },
    Step {
        name: "handover-no-socket",
        command: "$as_vm run --handover fd=7 --kernel /tmp/vm/status --memory 64M 7< /tmp/vm/status",
        status: "1",
        error: "handover",
        says: &["descriptor 7 is not a Unix socket"],
        ..STEP
    },
    Step {
        name: "handover-closed",
        command: offered!("--closed", ""),
        status: "1",
        error: "handover",
        says: &["the sender closed the socket"],
        ..STEP
    },
    Step {
        name: "handover-version",
        command: offered!(
            "--header '{\"format\": \"pinvisor-handover\", \"version\": 99}'",
            ""
        ),
        status: "1",
        error: "handover",
        says: &["version 99", "the same version of Pinvisor"],
        ..STEP
    },
    Step {
        name: "handover-header",
        command: offered!("--header garbage", ""),
        status: "1",
        error: "handover",
        says: &["cannot receive it"],
        ..STEP
    },
    Step {
        name: "handover-unsealed",
        command: offered!("--unsealed", ""),
        status: "1",
        error: "handover",
        says: &["not sealed"],
        ..STEP
    },
    Step {
        name: "handover-state",
        command: offered!("--state '{\"devices\": 7}'", ""),
        status: "1",
        error: "handover",
        says: &["its state cannot be read"],
        ..STEP
    },
    Step {
        name: "handover-of-other-devices",
        command: offered!(
            "--state '{\"devices\": []}'",
            "--noiommu --device $TESTBED_BDF_0"
        ),
        status: "1",
        error: "handover",
        says: &["it has the devices none, and --device names $BDF"],
        ..STEP
    },
    Step {
        name: "handover-of-more-files",
        command: offered!("--state '{\"devices\": []}' --file /dev/null", ""),
        status: "1",
        error: "handover",
        says: &["file number 1 has no use"],
        ..STEP
    },
    Step {
        name: "handover-of-a-wrong-file",
        before: "device='{\"bdf\": \"'$TESTBED_BDF_0'\", \"file\": 2, \"id\": 1, \"iommu\": false, \"dma\": \"identity\",\n\
                 \"regions\": [null, null, null, null, null, null, null], \"reset\": {\"function\": \"flr\"},\n\
                 \"seen-in-slot\": false}'\n\
                 state='{\"iommufd\": 1, \"devices\": ['$device'], \"noiommu\": {\"ioas\": 1, \"hwpt\": 2},\n\
                 \"keeper\": {\"channel\": 3, \"process\": 4, \"pid\": 1},\n\
                 \"memory\": {\"file\": 5, \"page-size\": 2097152, \"extents\": [[0, 0, 67108864]]},\n\
                 \"addresses\": {\"windows\": [], \"bus-windows\": [], \"ecam\": 2952790016, \"is-coherent\": true}}'\n",
        command: offered!(
            "--state \"$state\" --file /dev/null --file /dev/null --file /dev/null --file /dev/null --file /dev/null",
            "--noiommu --device $TESTBED_BDF_0"
        ),
        status: "1",
        error: "handover",
        says: &["a file is not /dev/iommu"],
        ..STEP
    },
    Step {
        name: "handover-of-a-wrong-device",
        command: offered!(
            "--state \"$state\" --file /dev/iommu --file /dev/null --file /dev/null --file /dev/null --file /dev/null",
            "--noiommu --device $TESTBED_BDF_0"
        ),
        status: "1",
        error: "handover",
        says: &["a file is not the character device of $BDF"],
        ..STEP
    },
    Step {
        // The kernel tells nothing of a device that is not bound.
        name: "handover-of-an-unbound-device",
        command: offered!(
            "--state \"$state\" --file /dev/iommu --file /dev/vfio/devices/noiommu-vfio* --file /dev/null --file /dev/null --file /dev/null",
            "--noiommu --device $TESTBED_BDF_0"
        ),
        status: "3",
        error: "device",
        says: &["$BDF", "query its VFIO information"],
        ..STEP
    },
    Step {
        // What was refused holds nothing.
        name: "launched-again",
        command: "$launch --user vm --kernel /tmp/vm/status",
        status: "6",
        error: "guest-status",
        ..STEP
    },
];
