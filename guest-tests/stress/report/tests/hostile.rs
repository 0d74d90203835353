// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests that print anything.

mod common;

use std::error::Error;

use common::{failing, passing};
use proptest::prelude::*;
use stress_report::{
    Collector, Ending, Outcome, Report, Setup, Terminal, from_json, html, json, text,
};

fn report(chunks: &[&[u8]]) -> Report {
    let mut collector = Collector::new();
    for chunk in chunks {
        collector.feed(chunk);
        let _ = collector.progress();
    }
    collector.finish(Setup::default(), Outcome::new(Some(0), Ending::PoweredOff))
}

fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut ends: Vec<_> = places
        .iter()
        .map(|place| place.index(bytes.len() + 1))
        .collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let starts = [0].into_iter().chain(ends.clone());
    starts
        .zip(ends)
        .map(|(start, end)| &bytes[start..end])
        .collect()
}

/// A line as a guest would print it, with numbers and words that no guest would.
fn line() -> impl Strategy<Value = String> {
    let number = prop_oneof![Just(0), Just(1), Just(u64::MAX), 0..1000_u64, any::<u64>()];
    let word = prop_oneof![
        Just("</svg></pre><script>alert(1)</script>".to_owned()),
        Just("\u{1b}[2J\u{202e}\" onload='x' & <!--".to_owned()),
        Just("x".repeat(5000)),
        ".{0,30}",
    ];
    (prop::collection::vec(number, 3), word, 0..12).prop_map(|(numbers, word, which)| {
        let [a, b, c] = [numbers[0], numbers[1], numbers[2]];
        match which {
            0 => format!("# stress version=1 seed={a} cpus={b} tsc_khz={c} mode=identity program={word}"),
            1 => format!("# ram gpa={a} len={b}"),
            2 => format!("# engine id={a} interrupt=msi bdf=<b> name={word}"),
            3 => format!("# sample ms={a} transfers={b} bytes={c}"),
            4 => format!("# finding kind=shifted engine={a} gpa={b} len={c} text={word}"),
            5 => format!("# latency from={a} count={b}"),
            6 => format!("# landed gpa={a} len={b} bytes={c}"),
            7 => format!(
                "# totals transfers={a} bytes={b} mismatches={c} guard_hits={a} lost_interrupts={b} \
                 kb_s={c} p50={a} p99={b} max={c}"
            ),
            8 => format!("1..{a}"),
            9 => format!("not ok {a} - {word}"),
            10 => format!("# provoked least={a} most={b}"),
            _ => format!("Bail out! {word}"),
        }
    })
}

/// Every output of a report, and that nothing of it does what it should not.
fn show(report: &Report) -> Result<(), Box<dyn Error>> {
    let page = html(report)?;
    assert!(!page.contains("<script"));
    assert!(!page.contains("<!--"));
    assert!(!page.contains("onload='"));
    assert!(page.ends_with("</html>"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    let shown = text(
        report,
        Terminal {
            width: 80,
            colour: false,
        },
    );
    let lines = json(report)?;
    for output in [&page, &shown, &lines] {
        assert!(!output.contains(|c: char| c != '\n' && c.is_control()));
        assert!(!output.contains('\u{202e}'));
    }
    assert_eq!(&from_json(&lines)?, report);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_chunking_gives_the_same_report(places in prop::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        let serial = failing().serial;
        let whole = report(&[serial.as_bytes()]);
        prop_assert_eq!(report(&cut(serial.as_bytes(), &places)), whole);
    }

    #[test]
    fn any_bytes_are_read_without_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..4000),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let whole = report(&[&bytes]);
        prop_assert_eq!(&report(&cut(&bytes, &places)), &whole);
        show(&whole).unwrap();
    }

    #[test]
    fn any_numbers_and_words_can_be_shown(lines in prop::collection::vec(line(), 0..60)) {
        let serial = lines.join("\n");
        show(&report(&[serial.as_bytes()])).unwrap();
    }

    #[test]
    fn any_layout_can_be_shown(places in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..60)) {
        let mut run = passing(3);
        for (gpa, hpa, len) in places {
            run.setup.extents.push(stress_report::Extent {
                gpa: address::Gpa(gpa),
                hpa: address::Hpa(hpa),
                len: len >> (gpa & 63),
            });
            run.setup.bars.push(stress_report::Bar {
                name: "<script>\u{1b}".into(),
                gpa: address::Gpa(hpa),
                len: len >> (hpa & 63),
            });
        }
        show(&run.report()).unwrap();
    }
}

#[test]
fn a_guest_cannot_fill_memory() {
    let mut collector = Collector::new();
    let name = "n".repeat(900);
    for number in 0..6000_u64 {
        let lines = format!(
            "ok {number} - {name}\n# finding kind=mismatch engine=0 gpa=0 len=0 text={name}\n\
             # landed gpa={number} len=1 bytes=1\n# ram gpa={number} len=1\n\
             # latency from={number} count=1\n# engine id=1 interrupt=msi bdf={name} name={name}\n\
             # sample ms={number} transfers=1 bytes=1\n1..5\nBail out! {name}\n"
        );
        collector.feed(lines.as_bytes());
    }
    assert_eq!(collector.progress().done, 6000);
    let report = collector.finish(Setup::default(), Outcome::new(None, Ending::Reset));
    assert_eq!(report.tests.len() as u64 + report.left.tests, 6000);
    assert_eq!(report.findings.len() as u64 + report.left.findings, 6000);
    assert_eq!(report.samples.len() as u64 + report.left.samples, 6000);
    assert_eq!(report.finding_counts[0].count, 6000);
    // 4096 names of tests of 900 bytes are the most of it.
    assert!(json(&report).unwrap().len() < 6 << 20);
    assert!(html(&report).unwrap().len() < 6 << 20);
}
