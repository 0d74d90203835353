// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs that have to share the machine, or get little of it.

use super::refusal;
use super::rig::Rig;
use super::step::{STEP, Step};
use crate::error::Result;
use crate::runner::CaseResult;

/// Runs at once with so much memory each, one for each of the devices that follow, on a pool of 128 singles.
macro_rules! at_once {
    ($memory:literal, $devices:literal) => {
        concat!(
            "testbed inside shape --singles 128 -- sh /tmp/at-once ",
            $memory,
            " ",
            $devices
        )
    };
}

/// A run in a control group. What it is given is the group's name.
macro_rules! in_group {
    ($group:literal) => {
        concat!(
            "sh -c 'echo $$ > /sys/fs/cgroup/",
            $group,
            "/cgroup.procs; exec pinvisor run --noiommu --device $TESTBED_BDF_0 --kernel /testbed/off --memory 128M'"
        )
    };
}

/// A run whose memory is ordinary, and whose guest ends with a status.
const MEDIATED: &str = "pinvisor run --noiommu --device $TESTBED_BDF_1,dma=mediate --kernel /testbed/status --memory 64M";

/// The first device is an NVMe controller, three others follow.
pub const LIMITS: &[Step] = &[
    Step {
        name: "two-at-once",
        before: "for bdf in $TESTBED_BDF_0 $TESTBED_BDF_1 $TESTBED_BDF_2 $TESTBED_BDF_3; do testbed-bind $bdf; done\n\
                 cat > /tmp/at-once <<'END'\n\
                 memory=$1\n\
                 shift\n\
                 for bdf; do\n\
                 pinvisor run --noiommu --device $bdf --kernel /testbed/off --memory $memory &\n\
                 runs=\"$runs $!\"\n\
                 done\n\
                 for run in $runs; do wait $run || failed=$failed$?; done\n\
                 [ -z \"$failed\" ]\n\
                 END\n",
        command: at_once!("128M", "$TESTBED_BDF_0 $TESTBED_BDF_1"),
        ..STEP
    },
    Step {
        name: "four-at-once",
        command: at_once!(
            "64M",
            "$TESTBED_BDF_0 $TESTBED_BDF_1 $TESTBED_BDF_2 $TESTBED_BDF_3"
        ),
        ..STEP
    },
    Step {
        // As by Ctrl-z and fg, all the time, and so while memory is cleared.
        name: "stopped-and-continued",
        before: "cat > /tmp/stopped <<'END'\n\
                 \"$@\" &\n\
                 while read -r _ _ state _ < /proc/$!/stat && [ $state != Z ]; do\n\
                 kill -STOP $!; kill -CONT $!; sleep 0.005\n\
                 done\n\
                 wait $!\n\
                 END\n",
        command: "sh /tmp/stopped pinvisor run --noiommu --device $TESTBED_BDF_0 --kernel /testbed/off --memory 512M",
        ..STEP
    },
    Step {
        name: "group-of-hugepages",
        before: "mount -t cgroup2 cgroup /sys/fs/cgroup\n\
                 echo +hugetlb +pids > /sys/fs/cgroup/cgroup.subtree_control\n\
                 mkdir /sys/fs/cgroup/pages /sys/fs/cgroup/tasks\n\
                 echo 64M > /sys/fs/cgroup/pages/hugetlb.2MB.max\n",
        command: in_group!("pages"),
        status: "4",
        error: "too-few-hugepages",
        says: &["of which this process got 32", "hugetlb.2MB.max"],
        ..STEP
    },
    Step {
        name: "group-of-reserved-hugepages",
        before: "echo max > /sys/fs/cgroup/pages/hugetlb.2MB.max\n\
                 echo 64M > /sys/fs/cgroup/pages/hugetlb.2MB.rsvd.max\n",
        command: in_group!("pages"),
        status: "4",
        error: "too-few-hugepages",
        says: &["of which this process got 32", "hugetlb.2MB.rsvd.max"],
        ..STEP
    },
    Step {
        // Enough for the guest, too little for pages to choose from.
        name: "group-of-enough-hugepages",
        before: "echo max > /sys/fs/cgroup/pages/hugetlb.2MB.rsvd.max\n\
                 echo 140M > /sys/fs/cgroup/pages/hugetlb.2MB.max\n",
        command: concat!("testbed inside shape --singles 128 -- ", in_group!("pages")),
        ..STEP
    },
    Step {
        name: "group-of-tasks",
        // The monitor, its keeper, its two threads, and none of KVM's.
        before: "echo 4 > /sys/fs/cgroup/tasks/pids.max\n",
        command: in_group!("tasks"),
        status: "2",
        error: "no-worker",
        says: &["pids.max"],
        ..STEP
    },
    Step {
        name: "group-of-fewer-tasks",
        before: "echo 3 > /sys/fs/cgroup/tasks/pids.max\n",
        command: in_group!("tasks"),
        status: "2",
        error: "process",
        says: &["Cannot start a vCPU", "pids.max"],
        ..STEP
    },
    Step {
        name: "few-files",
        command: "sh -c 'ulimit -S -n 20; exec pinvisor run --noiommu --device $TESTBED_BDF_0 --kernel /testbed/off --memory 128M'",
        ..STEP
    },
    Step {
        // Guest memory is a file, too.
        name: "small-files",
        command: "sh -c 'ulimit -f 1000; exec pinvisor run --noiommu --device $TESTBED_BDF_0 --kernel /testbed/off --memory 128M'",
        status: "2",
        error: "process",
        says: &["File too large", "ulimit -f"],
        ..STEP
    },
    Step {
        name: "too-little-memory",
        before: "sed 's/^\\(MemAvailable\\|SwapFree\\):.*/\\1: 1024 kB/' /proc/meminfo > /tmp/meminfo; fake /proc/meminfo < /tmp/meminfo\n",
        command: MEDIATED,
        status: "4",
        error: "too-little-memory",
        says: &[
            "needs 64 MiB of ordinary host memory",
            "1 MiB are available",
        ],
        ..STEP
    },
    Step {
        name: "no-more-than-there-is",
        // Not sed -i: the file that is mounted would stay as it was.
        before: "sed 's/^MemAvailable:.*/MemAvailable: 2097152 kB/; s/^\\(CommitLimit\\|Committed_AS\\):.*/\\1: 4096 kB/' /tmp/fake/_proc_meminfo > /tmp/meminfo\n\
                 cat /tmp/meminfo > /tmp/fake/_proc_meminfo\n\
                 echo 2 | fake /proc/sys/vm/overcommit_memory\n",
        command: MEDIATED,
        after: "umount /proc/sys/vm/overcommit_memory /proc/meminfo\n",
        status: "4",
        error: "too-little-memory",
        says: &["vm.overcommit_memory=2", "sysctl vm.overcommit_memory=0"],
        ..STEP
    },
    Step {
        name: "enough-memory",
        command: MEDIATED,
        status: "6",
        error: "guest-status",
        ..STEP
    },
    Step {
        // The second CPU is never started, and waits for a signal.
        name: "blocked-signals",
        command: "timeout -s KILL 120 env --block-signal pinvisor run --noiommu --device $TESTBED_BDF_0 --kernel /testbed/off --memory 128M --cpus 2",
        ..STEP
    },
];

/// All of them in one boot.
pub fn limits() -> Result<CaseResult> {
    let rig = Rig::new(16, "")?;
    let machine = ["edu", "edu", "edu"]
        .iter()
        .fold(refusal::machine(&rig)?, |machine, device| {
            machine.device(device)
        })
        .hugepages_2m(420);
    refusal::run(&machine, &[LIMITS])
}
