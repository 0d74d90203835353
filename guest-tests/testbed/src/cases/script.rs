// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pieces of the scripts that run on the test machine.
//!
//! A script reports in lines `testbed: KEY=VALUE`, which [`facts`] finds among the rest.

use std::collections::BTreeMap;

/// Marks in QEMU's trace: `pinvisor` starts, and has ended.
pub const BEGIN: u8 = 1;
/// See [`BEGIN`].
pub const END: u8 = 2;

/// Functions for scripts.
pub const PRELUDE: &str = "\
say() { echo \"testbed: $1=$2\"; }
say_hugepages() {
    free=0 total=0
    for pool in /sys/kernel/mm/hugepages/*; do
        [ -e \"$pool\" ] || continue
        free=$((free + $(cat \"$pool/free_hugepages\")))
        total=$((total + $(cat \"$pool/nr_hugepages\")))
    done
    say \"$1_free\" $free
    say \"$1_total\" $total
}
say_processes() { say processes \"$(ls -l /proc/[0-9]*/exe 2>/dev/null | grep -c /pinvisor)\"; }
say_disk() {
    testbed-bind -d '' \"$TESTBED_BDF_0\" || return 1
    for second in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/nvme0n1 ] && break; sleep 1; done
    say \"$1\" \"$(dd if=/dev/nvme0n1 bs=1M iflag=direct status=none | sha256sum | cut -d' ' -f1)\"
}
";

/// Functions for scripts that have the monitor of a guest in the background, process `$monitor`, and the guest's serial
/// output in /tmp/serial. `await_guest`: until the guest prints `$works`, or that it waits, or the monitor has ended.
/// `await_exit`: until no `pinvisor` runs. `await_pool`: until all hugepages of 2 MiB are free, since what io_uring had
/// pinned may come back after that.
pub const AWAIT: &str = r#"
await_guest() {
    for tenth in $(seq 1200); do
        grep -q "${works:-guest: waits}" /tmp/serial && break
        kill -0 $monitor 2>/dev/null || break
        sleep 0.1
    done
}
await_exit() {
    for tenth in $(seq 100); do
        ls -l /proc/[0-9]*/exe 2>/dev/null | grep -q /pinvisor || break
        sleep 0.1
    done
}
await_pool() {
    pool=/sys/kernel/mm/hugepages/hugepages-2048kB
    for tenth in $(seq 100); do
        [ "$(cat $pool/free_hugepages)" = "$(cat $pool/nr_hugepages)" ] && break
        sleep 0.1
    done
}
"#;

/// Functions for scripts, which need [`AWAIT`]. `start_work NUMBER`: a guest with the options `$load`, until it has worked
/// for a time that depends on the number. `kill_at_work NUMBER`: kills its monitor then, and waits until nothing of it runs.
pub const KILL_AT_WORK: &str = r#"
start_work() {
    rm -f /tmp/serial; touch /tmp/serial
    eval "exec pinvisor -vv run $load --serial file=/tmp/serial" < /dev/null 2> /tmp/log &
    monitor=$!
    await_guest
    grep -q "${works:-guest: waits}" /tmp/serial || cat /tmp/serial /tmp/log
    sleep 0.$(($1 * 7 % 10))
}
kill_at_work() {
    start_work $1
    kill -KILL $monitor
    wait $monitor
    echo "killed: $?"
    await_exit
}
"#;

/// A function for scripts: `hand_back KEY BDF...` gives devices of vfio-pci's to this machine, with a pattern in all
/// hugepages that are free. First bus mastering is on for a second without a driver, which is what every driver does
/// before it resets its device, for longer; then the machine's own driver has the device, if there is one. All the
/// while traffic arrives if `listen BDF`, with the number of a network interface on the same wire, was called. In
/// the end vfio-pci has the devices again.
pub const HAND_BACK: &str = r#"
listen() {
    nic=$(ls "/sys/bus/pci/devices/$1/net")
    /testbed/busybox ip addr add 10.9.9.1/24 broadcast 10.9.9.255 dev "$nic"
    /testbed/busybox ip link set "$nic" up
}
hand_back() {
    key=$1
    shift
    sender=
    if [ -n "$nic" ]; then
        testbed inside broadcast 10.9.9.255:9 &
        sender=$!
    fi
    testbed inside pool --key "$key" -- sh -c '
        command() { printf "\\$(printf %o "$2")" | dd of="/sys/bus/pci/devices/$1/config" bs=1 seek=4 conv=notrunc status=none; }
        for bdf; do
            echo none > "/sys/bus/pci/devices/$bdf/driver_override"
            echo "$bdf" > "/sys/bus/pci/devices/$bdf/driver/unbind"
            command "$bdf" 6
        done
        sleep 1
        for bdf; do
            command "$bdf" 0
            echo > "/sys/bus/pci/devices/$bdf/driver_override"
            echo "$bdf" > /sys/bus/pci/drivers_probe
        done
        sleep 1' hand_back "$@"
    [ -z "$sender" ] || kill "$sender"
    testbed-bind "$@"
    echo > /sys/kernel/tracing/trace
}
"#;

/// Whether [`HAND_BACK`] left under `key` that all was as before, and what it found if not.
pub fn handed_back(facts: &BTreeMap<&str, &str>, key: &str) -> Result<(), String> {
    let fact = |what: &str| facts.get(format!("{key}_{what}").as_str()).copied();
    let (held, changed) = (fact("held"), fact("changed"));
    let holds_some = held.is_some_and(|count| count != "0");
    if holds_some && changed == Some("0") {
        return Ok(());
    }
    Err(format!(
        "after the device was handed back: {changed:?} words in {:?} pages changed, of {held:?} hugepages",
        fact("pages")
    ))
}

/// The values of the lines `testbed: KEY=VALUE`; the last of a key counts.
#[must_use]
pub fn facts(output: &str) -> BTreeMap<&str, &str> {
    let lines = output
        .lines()
        .filter_map(|line| line.strip_prefix("testbed: "));
    lines.filter_map(|line| line.split_once('=')).collect()
}

/// Runs `pinvisor` between the marks, behind a wrapper command, and reports its status as `KEY`.
#[must_use]
pub fn pinvisor(key: &str, wrapper: &str, arguments: &str) -> String {
    format!(
        "testbed-mark {BEGIN}\n{wrapper}pinvisor -vv run {arguments} < /dev/null\nsay {key} $?\ntestbed-mark {END}\n"
    )
}
