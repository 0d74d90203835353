// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requirements of a run to pass, and the reasons otherwise.
#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{Run, failing, mediated, passing};
use stress_report::{
    Ending, Extent, Note, Reason, Refusals, Report, Terminal, Verdict, explain, text,
};

/// The verdict's name and reasons of a passing run after a change of what was printed.
fn after(change: impl FnOnce(&mut Run)) -> (&'static str, Vec<String>) {
    let mut run = passing(4);
    change(&mut run);
    let verdict = run.report().verdict();
    let reasons = verdict.reasons().iter().map(ToString::to_string).collect();
    (verdict.name(), reasons)
}

fn replaced(from: &str, to: &str) -> (&'static str, Vec<String>) {
    after(|run| {
        assert!(run.serial.contains(from), "{from}");
        run.serial = run.serial.replace(from, to);
    })
}

fn cut_before(mark: &str) -> (&'static str, Vec<String>) {
    after(|run| run.serial.truncate(run.serial.find(mark).unwrap()))
}

#[test]
fn a_good_run_passes() {
    assert_eq!(passing(30).report().verdict(), Verdict::Passed);
    assert!(passing(30).report().notes().is_empty());
}

#[test]
fn every_flaw_fails() {
    let one = |reason: &str| ("failed", vec![reason.to_owned()]);
    let contradiction = |what: &str| one(&format!("The guest contradicts itself: {what}"));
    let refusals = Refusals {
        count: 1,
        last: vec![],
    };
    assert_eq!(
        after(|run| run.outcome.status = Some(1)),
        (
            "failed",
            vec![
                "The guest's status is 1".into(),
                "The guest contradicts itself: its status is 1, but no test failed".into()
            ]
        )
    );
    assert_eq!(
        after(|run| run.outcome.refusals = refusals),
        one("1 transfer was refused")
    );
    assert_eq!(
        replaced("ok 3 - ", "not ok 3 - "),
        (
            "failed",
            vec![
                "1 of 12 tests failed".into(),
                "The guest contradicts itself: its status is 0, but tests failed".into()
            ]
        )
    );
    for (from, to, reason) in [
        ("mismatches=0", "mismatches=2", "2 transfers had wrong data"),
        (
            "guard_hits=0",
            "guard_hits=1",
            "1 transfer changed memory around the buffer",
        ),
        (
            "lost_interrupts=0",
            "lost_interrupts=1",
            "1 interrupt was lost",
        ),
    ] {
        let (name, reasons) = replaced(from, to);
        assert_eq!((name, reasons.len()), ("failed", 2));
        assert_eq!(reasons[0], reason);
        assert!(reasons[1].ends_with("its totals name errors, but no test failed"));
    }
    let (name, reasons) = replaced(
        "ok 4 - ",
        "# finding kind=timeout engine=0 gpa=0 len=1 text=x\nok 4 - ",
    );
    assert_eq!(name, "failed");
    assert_eq!(
        reasons,
        ["1 transfer ended with an error of the device, or did not end"]
    );
    assert_eq!(
        replaced("ok 12 - ", "ok 11 - "),
        contradiction("test 11 ended more than once")
    );
    assert_eq!(replaced("ok 12 - ", "ok 13 - ").0, "failed");
    assert_eq!(replaced("ok 1 - ", "ok 0 - ").0, "failed");
    assert_eq!(
        replaced("1..12", "1..11"),
        contradiction("test 12 ended, but 11 were planned")
    );
    assert_eq!(
        replaced("1..12", "1..12\n1..12"),
        contradiction("it reported its plan twice")
    );
    assert_eq!(replaced("p99=210000", "p99=9999999").0, "failed");
    assert_eq!(
        replaced(
            "latency from=3145728 count=1",
            "latency from=3145728 count=9999999"
        )
        .0,
        "failed"
    );
    assert_eq!(
        replaced("totals transfers=", "totals transfers=1 was="),
        ("failed", vec![
            "The guest contradicts itself: its totals are less than it had reached before".into(),
            "The guest contradicts itself: its histogram has 18898 transfers, its totals have 1".into(),
        ])
    );
    for kind in [
        "bit-flip",
        "shifted",
        "wrong-extent",
        "mismatch",
        "guard-hit",
        "lost-interrupt",
    ] {
        let finding = format!("# finding kind={kind} engine=0 gpa=0 len=1 text=x\n1..12");
        let (name, reasons) = replaced("1..12", &finding);
        assert_eq!((name, reasons.len()), ("failed", 1), "{kind}");
        assert!(reasons[0].ends_with("but it reported 1"), "{reasons:?}");
    }
}

#[test]
fn what_was_found_counts_without_totals() {
    for (kind, reason) in [
        ("wrong-extent", "1 transfer had wrong data"),
        ("guard-hit", "1 transfer changed memory around the buffer"),
        ("lost-interrupt", "1 interrupt was lost"),
    ] {
        let (name, reasons) = after(|run| {
            run.serial.truncate(run.serial.find("# totals").unwrap());
            let finding = format!("# finding kind={kind} engine=0 gpa=0 len=1 text=x\n");
            run.serial.push_str(&finding);
        });
        assert_eq!(name, "failed", "{kind}");
        assert_eq!(reasons[0], reason);
    }
}

#[test]
fn engines_that_moved_nothing_do_not_pass() {
    let (name, reasons) = after(|run| {
        let start = run.serial.find("# totals").unwrap();
        run.serial.truncate(start);
        let totals = stress_format::Record::Totals(stress_format::Totals::default());
        run.serial.push_str(&format!("# {totals}\n"));
    });
    assert_ne!(name, "passed");
    assert!(
        reasons
            .iter()
            .any(|reason| reason == "The guest had nothing to test"),
        "{reasons:?}"
    );
}

#[test]
fn every_gap_is_incomplete() {
    let one = |reason: &str| ("incomplete", vec![reason.to_owned()]);
    assert_eq!(
        after(|run| run.outcome.status = None),
        one("The guest ended without a status")
    );
    assert_eq!(
        after(|run| run.outcome.status = Some(2)),
        one("The guest had nothing to test")
    );
    assert_eq!(
        after(|run| run.outcome.ending = Ending::Crashed("triple fault".into())),
        one("The guest crashed: triple fault")
    );
    assert_eq!(
        after(|run| run.outcome.ending = Ending::Stopped("time limit".into())),
        one("The guest was stopped: time limit")
    );
    assert_eq!(
        after(|run| run.outcome.ending = Ending::Reset),
        one("The guest started again")
    );
    assert_eq!(replaced("1..12", "1..13"), one("12 of 13 tests ended"));
    assert_eq!(
        replaced("1..12", ""),
        one("The guest did not report the number of tests")
    );
    assert_eq!(
        replaced("# stress ", "# distress "),
        one("The guest did not report its start")
    );
    assert_eq!(
        replaced("1..12", "1..12\nBail out! no memory"),
        one("The guest gave up: no memory")
    );
    assert_eq!(
        cut_before("# totals"),
        one("The guest did not report its totals")
    );
    assert_eq!(
        cut_before("ok 12 - "),
        (
            "incomplete",
            vec![
                "11 of 12 tests ended".into(),
                "The guest did not report its totals".into(),
            ]
        )
    );
    let (name, reasons) = after(|run| run.serial.clear());
    assert_eq!((name, reasons.len()), ("incomplete", 3));
}

#[test]
fn tests_that_are_skipped_pass_unless_all_are() {
    let mut run = passing(1);
    run.serial = run
        .serial
        .replace("borders of extents", "borders of extents # Skip: one only");
    let report = run.clone().report();
    assert_eq!(report.verdict(), Verdict::Passed);
    assert_eq!(report.notes(), [Note::Skipped { count: 1 }]);
    assert_eq!(&*report.tests[4].name, "edu 0: borders of extents");
    assert_eq!(report.tests[4].skipped.as_deref(), Some("one only"));
    run.serial = run.serial.replace("ok 5 -", "not ok 5 -");
    let report = run.report();
    assert!(matches!(report.verdict(), Verdict::Failed(_)));
    assert_eq!(report.tests[4].skipped, None);
    assert_eq!(
        replaced(": ", ": # SKIP "),
        ("incomplete", vec!["The guest had nothing to test".into()])
    );
}

#[test]
fn pieces_that_reach_over_the_edge_of_an_extent_are_not_astray() {
    let mut run = passing(1);
    let gpa = run.setup.extents[0].gpa.0;
    run.serial.push_str(&format!(
        "# landed gpa={:#x} len=0x200000 bytes=1\n",
        gpa - 0x1000
    ));
    assert!(run.clone().report().notes().is_empty());
    run.serial.push_str(&format!(
        "# landed gpa={:#x} len=0x1000 bytes=1\n",
        gpa - 0x1000
    ));
    assert_eq!(run.report().notes().len(), 1);
}

#[test]
fn tests_that_are_too_many_to_check_do_not_pass() {
    let (name, reasons) = after(|run| {
        let tests: String = (13..=5000)
            .map(|number| format!("ok {number} - x\n"))
            .collect();
        run.serial.push_str(&tests);
        run.serial = run.serial.replace("1..12", "1..5000");
    });
    assert_eq!(
        (name, reasons),
        (
            "incomplete",
            vec!["5000 tests are too many to check".into()]
        )
    );
}

#[test]
fn failures_come_before_gaps() {
    let mut run = failing();
    run.outcome.ending = Ending::Crashed("shutdown".into());
    let Verdict::Failed(reasons) = run.report().verdict() else {
        panic!("not failed");
    };
    assert_eq!(
        reasons[0],
        Reason::TestsFailed {
            failed: 1,
            done: 12
        }
    );
    assert_eq!(
        reasons.last(),
        Some(&Reason::Crashed {
            how: "shutdown".into()
        })
    );
}

#[test]
fn a_layout_that_is_not_the_identity_is_noted() {
    let notes = failing().report().notes();
    assert_eq!(notes[0], Note::NotIdentity { count: 2, all: 8 });
    assert!(matches!(notes[1], Note::Outside { gpa } if gpa.0 == 0x9000_0000));
    let mut run = failing();
    run.serial = run.serial.replace("mode=identity", "mode=translate");
    let notes = run.report().notes();
    assert!(
        !notes
            .iter()
            .any(|note| matches!(note, Note::NotIdentity { .. }))
    );
}

#[test]
fn the_monitor_refuses_what_the_guest_provokes_and_nothing_else() {
    let judged = |refused, provoked: &str| {
        after(|run| {
            run.outcome.mediated = vec![mediated(&[("window", refused)]), mediated(&[])];
            run.serial += provoked;
        })
    };
    let provoked = "# provoked least=30 most=35\n# provoked least=0 most=5\n";
    for (refused, provoked) in [(0, ""), (30, provoked), (40, provoked)] {
        assert_eq!(judged(refused, provoked), ("passed", vec![]));
    }
    for (refused, provoked, reason) in [
        (
            1,
            "",
            "The monitor refused 1 transfer, of which the guest provoked none",
        ),
        (
            41,
            provoked,
            "The monitor refused 41 transfers, of which the guest provoked at most 40",
        ),
        (
            29,
            provoked,
            "The monitor refused 29 transfers, but the guest provoked 30",
        ),
    ] {
        assert_eq!(
            judged(refused, provoked),
            ("failed", vec![reason.to_owned()])
        );
    }
    // Nothing is mediated, and nothing refused.
    let (name, _) = after(|run| run.serial += provoked);
    assert_eq!(name, "failed");
    let (name, reasons) = after(|run| {
        run.outcome.mediated = vec![mediated(&[])];
        run.outcome.mediated[0].failed = 2;
    });
    assert_eq!(
        (name, reasons.as_slice()),
        (
            "failed",
            &["2 mediated transfers were not accepted by the device".to_owned()][..]
        )
    );
}

fn shown(report: &Report, width: usize, colour: bool) -> String {
    text(report, Terminal { width, colour })
}

#[test]
fn the_terminal_shows_what_matters() {
    let page = shown(&failing().report(), 100, false);
    for part in [
        "not ok 5 - edu 0: borders of extents",
        "at 0x1_0e20_0000, on the host at 0x1_0880_0000",
        explain(stress_format::FindingKind::WrongExtent).title,
        "Refused DMA: 2 transfers",
        "Mediated    0000:01:00.0: 210 started, 5 refused",
        "            refused for: length 1, not-memory 4",
        "            the guest provoked 1 to 3 refusals",
        "64 B at 0x7fff_ffff_f000",
        "FAILED",
        "            1 of 12 tests failed\n",
    ] {
        assert!(page.contains(part), "{part}:\n{page}");
    }
    assert!(page.lines().count() < 60, "{page}");
    assert!(!page.contains('\x1b'));
    assert!(shown(&passing(4).report(), 100, true).contains("\x1b[32mVerdict     PASSED\x1b[0m"));
    assert!(shown(&passing(150).report(), 80, false).lines().count() < 25);
}

#[test]
fn the_terminal_is_not_overrun() {
    let mut run = failing();
    let extents = run.setup.extents.iter_mut();
    extents.for_each(|extent: &mut Extent| extent.len = u64::MAX);
    run.serial = run
        .serial
        .replace("edu 0: borders of extents", &"ä word ".repeat(100));
    for width in [0, 40, 64, 200] {
        let page = shown(&run.clone().report(), width, false);
        let widest = page.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(width.max(40)), "{page}");
    }
}
