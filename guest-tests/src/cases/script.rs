//! Pieces of the scripts that run on the test machine.
//!
//! What a script has to tell it tells in lines `testbed: KEY=VALUE`, which [`facts`] finds among the rest.

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

/// The values of the lines `testbed: KEY=VALUE`; the last of a key counts.
#[must_use]
pub fn facts(output: &str) -> BTreeMap<&str, &str> {
    let lines = output
        .lines()
        .filter_map(|line| line.strip_prefix("testbed: "));
    lines.filter_map(|line| line.split_once('=')).collect()
}

/// Runs `pinvisor` between the marks, behind a wrapper's words, and says its status as `KEY`.
#[must_use]
pub fn pinvisor(key: &str, wrapper: &str, arguments: &str) -> String {
    format!(
        "testbed-mark {BEGIN}\n{wrapper}pinvisor -vv run {arguments} < /dev/null\nsay {key} $?\ntestbed-mark {END}\n"
    )
}
