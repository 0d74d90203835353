// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a run does to the terminal that it is started from, and what becomes of it, in tmux.

use super::check::{self, Findings};
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, PRELUDE};
use crate::error::Result;
use crate::machine::Outcome;
use crate::paths::{self, GuestTarget};
use crate::runner::CaseResult;
use crate::setup::{self, Arch};

/// Functions for what follows. `begin NAME` types a run into a new terminal and waits until its guest prints.
/// The shell is one that leaves its terminal's modes alone.
const FUNCTIONS: &str = r#"
await() { for tenth in $(seq 600); do eval "$1" && return; sleep 0.1; done; say gave_up "$1"; }
pane() { tmux capture-pane -p -t case; }
modes() { stty -a -F "$terminal" | tr ' ;' '\n\n' | grep -xE -- '-?(icanon|echo|isig|icrnl|opost|onlcr)' | sort | tr '\n' ' '; }
begin() {
    rm -f /tmp/events
    [ -z "$1" ] || tmux -f /dev/null new-session -d -s case -x 100 -y 40 "PS1='typed> ' sh"
    terminal=$(tmux display-message -p -t case '#{pane_tty}')
    await 'pane | grep -q "typed>"'
    tmux send-keys -t case 'clear; sh /tmp/run; echo "status=$?."' Enter
    await 'pane | grep -q "Command line:"'
    pinvisor=$(cat /tmp/pid)
}
ended() { await 'pane | grep -q "status=[0-9]*\."'; pane | sed -n 's/.*status=\([0-9]*\)\..*/\1/p'; }
"#;

/// Ended by keys; by signals, fatal ones among them; while it shows how far it is; by the terminal's end.
const STEPS: &str = r#"
begin new
say raw "$(modes)"
echo "testbed: pane begins"; pane; echo "testbed: pane ends"
tmux send-keys -t case C-c C-a h
await 'pane | grep -q "Ctrl-a x *ends"'
tmux send-keys -t case C-a x
say by_keys "$(ended)"
say after_keys "$(modes)"
say reason_keys "$(sed -n 's/.*"reason":"\([^"]*\)".*/\1/p' /tmp/events)"

begin ''
kill -TERM "$pinvisor"; sleep 1; kill -TERM "$pinvisor" 2> /dev/null
say by_signal "$(ended)"
say after_signal "$(modes)"

begin ''
kill -KILL "$pinvisor"
ended > /dev/null
say after_kill "$(modes)"
tmux send-keys -t case C-j 'stty sane' C-j
await 'modes | grep -q " icanon"'
say after_sane "$(modes)"

progress='/[0-9]+ tests'
tmux send-keys -t case 'clear; pinvisor -v stress --software --kernel /testbed/dma-stress --memory 64M; echo "status=$?."' Enter
await 'pane | grep -qE "$progress"'
tmux send-keys -t case C-c
say by_break "$(ended)"
say after_break "$(modes)"
say progress_left "$(pane | grep -cE "$progress")"

begin ''
kill -QUIT "$pinvisor"
say by_quit "$(ended)"
say after_quit "$(modes)"

begin ''
kill -BUS "$pinvisor"
say by_bus "$(ended)"
say after_bus "$(modes)"
say reason_bus "$(sed -n 's/.*"reason":"\([^"]*\)".*/\1/p' /tmp/events)"
await '! ls -l /proc/[0-9]*/exe 2> /dev/null | grep -q /pinvisor'

begin ''
tmux kill-session -t case
await '! [ -e "/proc/$pinvisor" ]'
[ -e /tmp/pid ]; say pidfile_left $?
say reason_gone "$(sed -n 's/.*"reason":"\([^"]*\)".*/\1/p' /tmp/events)"
say command "$(od -An -tu1 -j4 -N1 "/sys/bus/pci/devices/$TESTBED_BDF_0/config" | tr -d ' ')"
"#;

/// The case.
pub fn modes() -> Result<CaseResult> {
    let rig = Rig::new(12, "while :; do sleep 1; done")?;
    let machine = rig
        .machine(setup::guest_kernel()?.vmlinux())
        .file(
            "dma-stress",
            paths::guest_program("dma-stress", GuestTarget::BareMetal(Arch::X86_64))?,
        )
        .hugepages_2m(150);
    let arguments = ARGUMENTS
        .replace(" quiet", "")
        .replace("/testbed/kernel", "/tmp/kernel");
    let script = [
        PRELUDE,
        FUNCTIONS,
        "cp /testbed/kernel /tmp/kernel\ntestbed-bind $TESTBED_BDF_0 || exit 1\nexport TERM=screen\n",
        &format!(
            "cat > /tmp/run << END\npinvisor -v run {arguments} --memory 256M --pidfile /tmp/pid --event-file /tmp/events\nEND\n"
        ),
        STEPS,
        "say_hugepages after\nsay_processes\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    Ok(judge(&outcome))
}

fn judge(outcome: &Outcome) -> CaseResult {
    let facts = script::facts(&outcome.output);
    let mut findings = Findings::default();
    check::left_clean(&mut findings, outcome, &facts);
    findings.expect_eq("waited in vain", facts.get("gave_up"), None);
    let sane = "echo icanon icrnl isig onlcr opost ";
    let raw = "-echo -icanon -icrnl -isig onlcr opost ";
    for (key, value) in [
        ("raw", raw),
        ("by_keys", "0"),
        ("after_keys", sane),
        ("reason_keys", "user"),
        ("by_signal", "0"),
        ("after_signal", sane),
        // No process can restore it then; the documented command does.
        ("after_kill", raw),
        ("after_sane", sane),
        ("by_break", "6"),
        ("after_break", sane),
        ("progress_left", "0"),
        ("by_quit", "0"),
        ("after_quit", sane),
        // 128 and the signal's number.
        ("by_bus", "135"),
        ("after_bus", sane),
        ("reason_bus", "fatal-signal"),
        ("pidfile_left", "1"),
    ] {
        findings.expect_eq(key, facts.get(key).copied(), Some(value));
    }
    let gone = facts.get("reason_gone").copied().unwrap_or_default();
    findings.expect(
        ["signal", "terminal-gone"].contains(&gone),
        format!("the terminal's end ended the guest by {gone:?}"),
    );
    let command = facts
        .get("command")
        .and_then(|text| text.parse::<u8>().ok());
    findings.expect(
        command.is_some_and(|command| command & 4 == 0),
        format!("the device's COMMAND is {command:?}"),
    );
    let pane = outcome.output.split("testbed: pane begins\n").nth(1);
    let pane = pane.and_then(|rest| rest.split("testbed: pane ends").next());
    findings.expect(
        pane.is_some_and(begins_at_the_left),
        "the guest's lines do not begin at the left",
    );
    findings.into_result(outcome)
}

/// The kernel's lines, of which there are some, begin with their time.
fn begins_at_the_left(pane: &str) -> bool {
    let lines: Vec<_> = pane.lines().filter(|line| line.contains("[    ")).collect();
    lines.len() > 3 && lines.iter().all(|line| line.starts_with('['))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staircase_is_seen() {
        let straight = "[    0.000000] a\n[    0.000000] b\n[    0.100000] c\n[    1.2] d\n";
        assert!(begins_at_the_left(straight));
        assert!(!begins_at_the_left(&straight.replace("\n[", "\n   [")));
        assert!(!begins_at_the_left("nothing\n"));
    }
}
