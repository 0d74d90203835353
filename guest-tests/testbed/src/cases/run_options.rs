// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Features of `pinvisor run` for its users: options from a file, the serial port's other places,
//! events, pidfile, log.

use std::collections::BTreeMap;

use super::check::{self, Findings};
use super::rig::Rig;
use super::script::{self, PRELUDE};
use crate::error::Result;
use crate::machine::Outcome;
use crate::runner::CaseResult;
use crate::setup;

/// In the guest: print what is typed, and end on `quit`; before, print a lot if the command line
/// requests it.
const GUEST: &str = r#"
grep -qw flood /proc/cmdline && { seq 2000; poweroff -f; }
stty -echo
echo "guest: listens"
while read -r line; do
    [ "$line" = quit ] && break
    echo "guest: heard $line"
done
"#;

/// Every option of `run` in a file.
const EVERY_OPTION: &str = r#"
cat > /tmp/options.toml << END
cmdline = "console=ttyS0 quiet"
cpus = 1
device = [{ bdf = "$TESTBED_BDF_0", dma = "auto" }]
event-fd = 5
event-file = "/tmp/events"
initramfs = "/testbed/initramfs"
kernel = "/tmp/kernel"
log-file = "/tmp/log"
memory = { size = "256M", hugepage_size = "2M" }
noiommu = true
pidfile = "/tmp/pid"
serial = "pty"
verbose = 2
END
"#;

/// Functions for what follows. `talk PATH WORDS UNTIL` is a client of the socket.
const FUNCTIONS: &str = r#"
await() { for tenth in $(seq 1200); do eval "$1" && return; sleep 0.1; done; say gave_up "$1"; }
heard() { await "grep -q '$1' $2"; }
talk() {
    perl -MIO::Socket::UNIX -e '
        my ($path, $words, $until) = @ARGV;
        my $socket = IO::Socket::UNIX->new(Peer => $path) or die "connect: $!";
        alarm 600;
        print $socket "$words\n" if length $words;
        $socket->flush;
        while (<$socket>) { $| = 1; print; last if length $until and /$until/ }' "$@"
}
"#;

/// All options in a file, and a reader of the pseudoterminal who comes, goes and comes again.
const BY_FILE: &str = r#"
sed s/memory/memroy/ /tmp/options.toml > /tmp/mistyped.toml
pinvisor run --config /tmp/mistyped.toml 2> /tmp/mistyped; say mistyped $?
say mistyped_says "$(cat /tmp/mistyped)"

echo 4194303 > /tmp/pid
pinvisor run --config /tmp/options.toml 5> /tmp/descriptor 2> /tmp/stderr < /dev/null &
pinvisor=$!
await '[ -e /tmp/events ]'
heard ready /tmp/events
terminal=$(sed -n 's/.*"ready".*"serial":"\([^"]*\)".*/\1/p' /tmp/events)
say terminal "$terminal"
cat "$terminal" > /tmp/first & reader=$!
heard 'guest: listens' /tmp/first
[ "$(cat /tmp/pid)" = $pinvisor ]; say pidfile $?
pinvisor run --config /tmp/options.toml --event-fd 6 6> /dev/null 2> /tmp/second_run; say second_run $?
say second_run_says "$(cat /tmp/second_run)"
echo one > "$terminal"
heard 'guest: heard one' /tmp/first
kill $reader; wait $reader
echo two > "$terminal"
cat "$terminal" > /tmp/again & reader=$!
heard 'guest: heard two' /tmp/again
echo quit > "$terminal"
wait $pinvisor; say by_file $?
wait $reader
[ -e /tmp/pid ]; say pidfile_left $?
say events "$(sed 's/.*"event":"\([^"]*\)".*/\1/' /tmp/events | tr '\n' ' ')"
say descriptor "$(sed 's/.*"event":"\([^"]*\)".*/\1/' /tmp/descriptor | tr '\n' ' ')"
say shutdown "$(tail -n 1 /tmp/events)"
say stderr "$(cat /tmp/stderr)"
say phases "$(grep -c 'INFO  phases: .*total' /tmp/log)"
say debug "$(grep -c DEBUG /tmp/log)"
grep phases: /tmp/log
"#;

/// Clients of the socket, one at a time; then a pipe with room for a page (fcntl(2), `F_SETPIPE_SZ`) that no process
/// reads.
const BY_LINE: &str = r#"
options="--noiommu --device $TESTBED_BDF_0 --memory 256M --kernel /tmp/kernel --initramfs /testbed/initramfs"
pinvisor run $options --serial socket=/tmp/socket &
pinvisor=$!
await '[ -S /tmp/socket ]'
talk /tmp/socket '' 'guest: listens' > /tmp/first &
client=$!
await '[ -s /tmp/first ]'
say other_client "$(talk /tmp/socket '' '')"
wait $client
for word in three four; do
    talk /tmp/socket $word "guest: heard $word" > /tmp/client
    say client_$word "$(grep -c "guest: heard $word" /tmp/client)"
done
talk /tmp/socket quit 'guest: done' > /dev/null
wait $pinvisor; say by_socket $?
[ -e /tmp/socket ]; say socket_left $?

{ pinvisor run $options --cmdline 'console=ttyS0 flood'; echo $? > /tmp/flood; } < /dev/null | perl -e 'fcntl(STDIN, 1031, 4096) or die; sleep 1000' &
await '[ -s /tmp/flood ]'
say flood "$(cat /tmp/flood)"
"#;

/// The case.
pub fn options() -> Result<CaseResult> {
    let rig = Rig::new(11, GUEST)?;
    let machine = rig
        .machine(setup::guest_kernel()?.vmlinux())
        .hugepages_2m(150);
    let script = [
        PRELUDE,
        FUNCTIONS,
        "cp /testbed/kernel /tmp/kernel\ntestbed-bind $TESTBED_BDF_0 || exit 1\nsay version \"$(pinvisor --version)\"\n",
        EVERY_OPTION,
        BY_FILE,
        BY_LINE,
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
    for (key, value) in [
        ("mistyped", "1"),
        ("second_run", "1"),
        ("by_file", "0"),
        ("pidfile", "0"),
        // Of `[ -e FILE ]`: there is none.
        ("pidfile_left", "1"),
        ("socket_left", "1"),
        ("events", "started ready shutdown "),
        ("descriptor", "started ready shutdown "),
        ("phases", "1"),
        (
            "other_client",
            "pinvisor: another client is using the serial port",
        ),
        ("client_three", "1"),
        ("client_four", "1"),
        ("by_socket", "0"),
        ("flood", "0"),
    ] {
        findings.expect_eq(key, facts.get(key).copied(), Some(value));
    }
    let serial = format!(
        "pinvisor: the guest's serial port is {}",
        facts.get("terminal").unwrap_or(&"nowhere")
    );
    findings.expect_eq(
        "standard error",
        facts.get("stderr").copied(),
        Some(&*serial),
    );
    said(&mut findings, &facts);
    findings.into_result(outcome)
}

/// Words that must be in the output.
fn said(findings: &mut Findings, facts: &BTreeMap<&str, &str>) {
    for (key, words) in [
        ("version", &["pinvisor 0."][..]),
        ("terminal", &["/dev/pts/"]),
        (
            "mistyped_says",
            &[
                "/tmp/mistyped.toml:9:",
                "unknown field `memroy`",
                "`memory`",
            ],
        ),
        ("second_run_says", &["/tmp/pid", "in use by process"]),
        ("shutdown", &["\"reason\":\"power-off\"", "\"exit_code\":0"]),
    ] {
        let found = facts.get(key).copied().unwrap_or_default();
        for word in words {
            findings.expect(
                found.contains(word),
                format!("{key}: no {word:?} in {found:?}"),
            );
        }
    }
    let debug = facts.get("debug").copied().unwrap_or_default();
    findings.expect(
        debug != "0" && !debug.is_empty(),
        "verbose = 2 logs no details",
    );
}
