// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is written is read again, and nothing else is mistaken for it.

use proptest::prelude::*;
use stress_format::{
    Engine, Finding, FindingKind, Interrupt, Landed, Latency, Line, Mode, Provoked, Ram, Record,
    Sample, Start, Totals,
};

fn record() -> impl Strategy<Value = Record<'static>> {
    let modes = prop_oneof![
        Just(Mode::Identity),
        Just(Mode::Iommu),
        Just(Mode::Translate),
        Just(Mode::Mediate)
    ];
    let interrupts = prop_oneof![
        Just(Interrupt::Polling),
        Just(Interrupt::Intx),
        Just(Interrupt::Msi),
        Just(Interrupt::Msix)
    ];
    let kinds = prop_oneof![
        Just(FindingKind::BitFlip),
        Just(FindingKind::Shifted),
        Just(FindingKind::WrongExtent),
        Just(FindingKind::Mismatch),
        Just(FindingKind::GuardHit),
        Just(FindingKind::LostInterrupt),
        Just(FindingKind::DeviceError),
        Just(FindingKind::Timeout)
    ];
    let texts = prop_oneof![
        Just("one"),
        Just("words with len=5 in them"),
        Just("text=twice")
    ];
    (
        any::<[u64; 9]>(),
        modes,
        interrupts,
        kinds,
        texts,
        0..9_usize,
    )
        .prop_map(|(n, mode, interrupt, kind, text, which)| {
            let [a, b, c, d, e, f, g, h, i] = n;
            match which {
                0 => Record::Start(Start {
                    seed: a,
                    cpus: b,
                    tsc_khz: c,
                    mode,
                    program: text,
                }),
                1 => Record::Ram(Ram { gpa: a, len: b }),
                2 => Record::Engine(Engine {
                    id: a,
                    interrupt,
                    bdf: "00:1f.7",
                    name: text,
                }),
                3 => Record::Sample(Sample {
                    ms: a,
                    transfers: b,
                    bytes: c,
                }),
                4 => Record::Finding(Finding {
                    kind,
                    engine: a,
                    gpa: b,
                    len: c,
                    text,
                }),
                5 => Record::Latency(Latency { from: a, count: b }),
                6 => Record::Landed(Landed {
                    gpa: a,
                    len: b,
                    bytes: c,
                }),
                7 => Record::Provoked(Provoked { least: a, most: b }),
                _ => Record::Totals(Totals {
                    transfers: a,
                    bytes: b,
                    mismatches: c,
                    guard_hits: d,
                    lost_interrupts: e,
                    kb_s: f,
                    p50: g,
                    p99: h,
                    max: i,
                }),
            }
        })
}

proptest! {
    #[test]
    fn records_come_back(record in record()) {
        let line = format!("# {record}\r\n");
        prop_assert_eq!(Line::parse(&line), Some(Line::Record(record)));
    }

    #[test]
    fn any_text_is_read_without_harm(line in ".{0,200}") {
        let _ = Line::parse(&line);
        let _ = Record::parse(&line);
    }
}

#[test]
fn lines_of_tap_are_distinguished_from_others() {
    for (line, expected) in [
        ("TAP version 14\r", Some(Line::Version)),
        ("1..12", Some(Line::Plan(12))),
        (
            "ok 3 - edu: lengths",
            Some(Line::Test {
                ok: true,
                number: 3,
                name: "edu: lengths",
            }),
        ),
        (
            "not ok 4",
            Some(Line::Test {
                ok: false,
                number: 4,
                name: "",
            }),
        ),
        ("Bail out! no engine", Some(Line::BailOut("no engine"))),
        ("[    0.1] ok 3 - kernel", None),
        ("# a comment", None),
        ("# ram gpa=0x1000", None),
        (
            "# stress version=2 seed=1 cpus=1 tsc_khz=1 mode=identity program=x",
            None,
        ),
        ("okay 3 - no", None),
        ("1..x", None),
        ("", None),
    ] {
        assert_eq!(Line::parse(line), expected, "{line:?}");
    }
}

#[test]
fn names_come_back() {
    assert_eq!("translate".parse(), Ok(Mode::Translate));
    assert_eq!(Interrupt::Msix.to_string().parse(), Ok(Interrupt::Msix));
    assert_eq!(
        FindingKind::WrongExtent.to_string().parse(),
        Ok(FindingKind::WrongExtent)
    );
    assert_eq!("Identity".parse::<Mode>(), Err(stress_format::UnknownName));
}
