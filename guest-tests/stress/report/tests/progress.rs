// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is shown while a guest runs.

use stress_report::{Collector, Progress};

const TOTALS: &str = "# totals transfers=9 bytes=900 mismatches=0 guard_hits=0 lost_interrupts=0 \
                      kb_s=1 p50=1 p99=1 max=1\n";

#[test]
fn progress_is_what_was_reported_so_far() {
    let mut collector = Collector::new();
    let mut expected = Progress {
        done: 0,
        planned: None,
        failed: 0,
        findings: 0,
        ms: 0,
        transfers: 0,
        bytes: 0,
        last_test: None,
        complete: false,
    };
    assert_eq!(collector.progress(), expected);

    collector.feed(b"[    0.1] kernel\n1..3\n# sample ms=250 transfers=4 bytes=4");
    expected.planned = Some(3);
    assert_eq!(
        collector.progress(),
        expected,
        "a line that has not ended is not read"
    );

    collector.feed(b"00\n");
    (expected.ms, expected.transfers, expected.bytes) = (250, 4, 400);
    assert_eq!(collector.progress(), expected);

    collector
        .feed(b"ok 1 - one\n# finding kind=timeout engine=0 gpa=0 len=1 text=x\nnot ok 2 - two\n");
    (expected.done, expected.failed, expected.findings) = (2, 1, 1);
    expected.last_test = Some("two");
    assert_eq!(collector.progress(), expected);

    collector.feed(TOTALS.as_bytes());
    (expected.transfers, expected.bytes, expected.complete) = (9, 900, true);
    assert_eq!(collector.progress(), expected);
}
