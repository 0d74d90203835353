// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the kernel reports of the threads of a running monitor: filters, capabilities, user, root directory.

use super::check::{self, Findings};
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, AWAIT, PRELUDE};
use crate::error::Result;
use crate::machine::Outcome;
use crate::runner::CaseResult;
use crate::setup::{self, Arch};

/// In the guest: read the disk, so that its devices are at work, and wait.
const GUEST: &str = r#"
dd if=/dev/nvme0n1 of=/dev/null bs=1M count=4 2>/dev/null
echo "guest: waits"
sleep 1000
"#;

/// `threads NAME OPTIONS`: a run with these options, reported as NAME, which SIGTERM ends. Each thread is reported in
/// the form `COMMAND:SECCOMP:NONEWPRIVS:CAPEFF:CAPBND:UID:GID:GROUPS`.
const FUNCTIONS: &str = r#"
threads() {
    name=$1; shift
    rm -f /tmp/serial
    eval exec pinvisor -v run $ARGUMENTS --memory 256M --serial file=/tmp/serial --pidfile /run/guest.pid \
        --event-file /tmp/events-$name '"$@"' > /tmp/log-$name 2>&1 < /dev/null &
    monitor=$!
    await_guest
    for task in /proc/$monitor/task/*; do
        say ${name}_$(sed 's/^nvme-.*/nvme/' $task/comm) "$(awk '
            /^Seccomp:|^NoNewPrivs:|^CapEff:|^CapBnd:|^Uid:|^Gid:/ { found[$1] = $2 }
            /^Groups:/ { $1 = ""; found["Groups:"] = $0 }
            END { print found["Seccomp:"] ":" found["NoNewPrivs:"] ":" found["CapEff:"] ":" found["CapBnd:"] \
                ":" found["Uid:"] ":" found["Gid:"] ":" found["Groups:"] }' $task/status | tr -d ' ')"
    done
    say ${name}_root "$(readlink /proc/$monitor/root)"
    say ${name}_core "$(awk '/^Max core/ { print $5 $6 }' /proc/$monitor/limits)"
    kill $monitor; sleep 1; kill $monitor 2> /dev/null
    wait $monitor; say ${name}_status $?
    [ -e /run/guest.pid ]; say ${name}_pidfile $?
    say ${name}_pages "$(grep -c 'pages of guest memory are at the addresses' /tmp/log-$name)"
    say ${name}_events "$(sed 's/.*"event":"\([^"]*\)".*/\1/' /tmp/events-$name | tr '\n' ' ')"
    say ${name}_warnings "$(grep -v 'power button' /tmp/log-$name | grep -c -e 'warn:' -e 'error' -e 'no Landlock')"
    cat /tmp/log-$name
    await_exit
}
"#;

const RUNS: &str = r#"
mkdir -p /tmp/jail
threads on
threads log --seccomp log
threads off --seccomp off
chmod 777 /run
threads jail --jail-user 65534:65533 --jail-root /tmp/jail
chmod 755 /run
threads restart --on-reset restart
"#;

/// One that only a PC has.
const GUARDED: &str = r#"
ARGUMENTS="$(echo "$ARGUMENTS" | sed 's/--device [^ ]*/&,dma=mediate/')"
threads guarded
"#;

/// What is not a capability, and the user and group of a run without a jail.
const NONE: &str = "0000000000000000";

/// What becomes of what a main thread attempts with files.
const FILES: [(&str, &str); 7] = [
    ("write_open", "done"),
    ("remove_left", "done"),
    ("remove_kept", REFUSED),
    ("read", REFUSED),
    ("create", REFUSED),
    ("run", REFUSED),
    ("listen", REFUSED),
];
const REFUSED: &str = "permission denied";

/// The case.
pub fn threads(arch: Arch) -> Result<CaseResult> {
    let rig = Rig::on(arch, 12, &["nvme"], GUEST)?;
    let machine = rig
        .machine(setup::guest_kernel_of(arch)?.unpacked())
        .hugepages_2m(150);
    let script = [
        PRELUDE,
        AWAIT,
        &format!("ARGUMENTS=\"{ARGUMENTS}\"\n"),
        FUNCTIONS,
        "testbed-bind $TESTBED_BDF_0 || exit 1\ntestbed inside without-files\n",
        RUNS,
        match arch {
            Arch::X86_64 => GUARDED,
            Arch::Aarch64 => "",
        },
        "say_hugepages after\nsay_processes\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    Ok(judge(arch, &outcome))
}

fn judge(arch: Arch, outcome: &Outcome) -> CaseResult {
    let facts = script::facts(&outcome.output);
    let mut findings = Findings::default();
    check::left_clean(&mut findings, outcome, &facts);
    let mut expect = |key: &str, value: &str| {
        findings.expect_eq(key, facts.get(key).copied(), Some(value));
    };
    let confined = |seccomp: &str, ids: &str| format!("{seccomp}:1:{NONE}:{NONE}:{ids}");
    let guarded = (arch == Arch::X86_64).then_some(("guarded", "2", "0:0:", "/"));
    let confined_runs = [
        ("on", "2", "0:0:", "/"),
        ("log", "2", "0:0:", "/"),
        ("off", "0", "0:0:", "/"),
        ("jail", "2", "65534:65533:", "/tmp/jail"),
    ];
    let runs: Vec<_> = confined_runs.into_iter().chain(guarded).collect();
    for (run, seccomp, ids, root) in runs.iter().copied() {
        for thread in ["pinvisor", "vcpu0", "serial-output"] {
            expect(&format!("{run}_{thread}"), &confined(seccomp, ids));
        }
        expect(&format!("{run}_root"), root);
        expect(&format!("{run}_core"), "00");
        expect(&format!("{run}_warnings"), "0");
    }
    if guarded.is_some() {
        expect("guarded_nvme", &confined("2", "0:0:"));
    }
    expect("restart_vcpu0", &confined("2", "0:0:"));
    for run in runs.iter().map(|(run, ..)| *run).chain(["restart"]) {
        expect(&format!("{run}_status"), "0");
        // Of `[ -e FILE ]`: there is none.
        expect(&format!("{run}_pidfile"), "1");
        expect(&format!("{run}_pages"), "2");
        expect(&format!("{run}_events"), "started ready shutdown ");
    }
    // Without a filter.
    for (what, result) in FILES {
        expect(&format!("files_{what}"), result);
    }
    let free = facts.get("restart_pinvisor").copied().unwrap_or_default();
    findings.expect(
        free.starts_with("0:0:") && !free.contains(NONE),
        format!("the main thread of a run that restarts its guest: {free:?}"),
    );
    findings.into_result(outcome)
}
