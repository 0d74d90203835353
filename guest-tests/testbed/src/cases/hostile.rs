// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that tries to reach what is not its own through a mediated device.
//!
//! Three observers check independently: the guest, which checks every word of its memory; a canary
//! in all other memory; and QEMU, which notes each store that reaches the device.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use super::check::{self, Findings};
use super::scattered::{EDU, MIN_CANARY_MIB, MIN_PIECES, SCATTERED};
use super::script::{self, PRELUDE};
use super::stress::{self, AtLeast, Share};
use crate::Result;
use crate::runner::CaseResult;

/// QEMU's event for each store to a device's registers, in the machine's addresses.
const STORES: &str = "memory_region_ops_write";
/// Starts that have to be refused.
const MIN_REFUSED: u64 = 100_000;
const MIN_ACCEPTED: u64 = 200;
/// End of the memory that QEMU's `edu` reaches by default.
const REACH: u64 = 1 << 28;
/// All reasons for which a start can be refused with the profile for `edu`, and memory anywhere.
const REASONS: [&str; 5] = [
    "length",
    "not-contiguous",
    "not-memory",
    "outside-window",
    "wrap-around",
];
/// Of 17 attempts, 16 are starts that are refused, and one is none.
const ATTEMPTS: u64 = 108_000;
const ACCEPTED: u64 = 210;
/// How often the monitor has to refuse for each reason.
const MIN_OF_REASON: u64 = 100;
const TESTS: [&str; 4] = [
    "invalid transfers do not start",
    "valid transfers run",
    "races start no other transfer",
    "other memory is unchanged",
];

/// 10,000 starts that are wrong and 20 that are right, in fragmented memory.
pub fn hostile() -> Result<CaseResult> {
    hostile_of(Share::Tenth)
}

/// The same with 100,000 and 200.
pub fn hostile_long() -> Result<CaseResult> {
    hostile_of(Share::Whole)
}

fn hostile_of(share: Share) -> Result<CaseResult> {
    let machine = stress::machine()?.trace(STORES).device(EDU);
    let arguments = format!(
        "--noiommu --memory 128M --device $TESTBED_BDF_0,dma=mediate,profile=edu64 --cpus 2 --seed 7 \
         --cmdline 'engines=hostile mode=mediate transfers={} accepted={}'",
        share.of(ATTEMPTS),
        share.of(ACCEPTED)
    );
    let script = [
        PRELUDE,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        &stress::run("hostile", SCATTERED, &arguments),
        "grep '^# hostile ' /tmp/hostile.tap\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let report = stress::passed(
        &mut findings,
        &outcome,
        "hostile",
        AtLeast::transfers(share.of(MIN_ACCEPTED)),
    );
    stress::tested(&mut findings, &report, "hostile", &TESTS);
    let guest = numbers_behind(&outcome.output, "# hostile ");
    let monitor = &report["outcome"]["mediated"][0];
    counts_agree(&mut findings, &guest, monitor, share);
    refused_for_all(&mut findings, monitor, share);
    let device = Device::replay(&outcome.trace, &bar(&report), &memory(&report));
    let started = monitor["started"].as_u64();
    findings.expect_eq("transfers of the device's", Some(device.started), started);
    findings.expect(
        device.strange.is_empty(),
        format!("stores that reached the device: {:?}", device.strange),
    );
    let pieces = memory(&report).len();
    findings.expect(
        pieces >= MIN_PIECES,
        format!("guest memory was in {pieces} pieces"),
    );
    check::canary_lives(&mut findings, &outcome, MIN_CANARY_MIB);
    let bdf = script::facts(&outcome.output);
    check::device_saw_quiet(&mut findings, &outcome, bdf.get("bdf"));
    Ok(findings.into_result(&outcome))
}

/// QEMU's `edu` by default, which cuts addresses down to 28 bits, with the profile that its IDs pick: most of the
/// guest's memory is out of its reach, and a transfer there is refused instead of reaching the machine's first memory.
pub fn narrow() -> Result<CaseResult> {
    let machine = stress::machine()?.trace(STORES).device("edu");
    let arguments = "--noiommu --memory 128M --device $TESTBED_BDF_0,dma=mediate --timeout 40 \
                     --cmdline 'mode=mediate transfers=24 bytes=0'";
    let script = [
        PRELUDE,
        "testbed-bind $TESTBED_BDF_0 || exit 1\n",
        &stress::run("narrow", SCATTERED, arguments),
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    // The guest finds that its data was not moved.
    let report = stress::verdict(&mut findings, &outcome, "narrow", "failed");
    let monitor = &report["outcome"]["mediated"][0];
    let unreachable = reasons(monitor).get("unreachable").copied();
    findings.expect(
        unreachable > Some(0),
        format!("the monitor reports {monitor}"),
    );
    let reached: Vec<_> = memory(&report)
        .into_iter()
        .filter(|piece| piece.end <= REACH)
        .collect();
    let device = Device::replay(&outcome.trace, &bar(&report), &reached);
    let started = monitor["started"].as_u64();
    findings.expect_eq("transfers of the device's", Some(device.started), started);
    findings.expect(
        device.strange.is_empty(),
        format!("stores that reached the device: {:?}", device.strange),
    );
    check::canary_lives(&mut findings, &outcome, MIN_CANARY_MIB);
    Ok(findings.into_result(&outcome))
}

/// The guest's own counts: `name=number` behind a mark.
pub fn numbers_behind<'a>(output: &'a str, mark: &str) -> BTreeMap<&'a str, u64> {
    let line = output.lines().find_map(|line| line.strip_prefix(mark));
    let words = line.unwrap_or_default().split_whitespace();
    let pairs = words.filter_map(|word| word.split_once('='));
    pairs
        .filter_map(|(name, number)| Some((name, number.parse().ok()?)))
        .collect()
}

/// Every start that the guest asked for is in exactly one of the monitor's counts. What happens in a race is not
/// known before; all else is where the guest has it.
fn counts_agree(
    findings: &mut Findings,
    guest: &BTreeMap<&str, u64>,
    monitor: &Value,
    share: Share,
) {
    // Another one for each side, so that nothing agrees with nothing.
    let guest_has = |name| guest.get(name).copied().unwrap_or(1 << 61);
    let [started, refused, busy, failed, ignored] =
        ["started", "refused", "busy", "failed", "ignored"]
            .map(|name| monitor[name].as_u64().unwrap_or(1 << 60));
    let raced = guest_has("raced_starts");
    findings.expect_eq("failed starts", failed, 0);
    findings.expect_eq("dropped pieces", ignored, guest_has("dropped"));
    findings.expect_eq(
        "starts that the monitor counts",
        started + refused + busy,
        guest_has("accepted") + guest_has("refused") + raced,
    );
    for (name, monitors, guests) in [
        ("accepted", started, guest_has("accepted")),
        ("refused", refused, guest_has("refused")),
        ("busy", busy, 0),
    ] {
        findings.expect(
            (guests..=guests + raced).contains(&monitors),
            format!("{name}: {monitors} by the monitor, {guests} by the guest and some of {raced} in the race"),
        );
    }
    for (name, least) in [
        ("accepted", MIN_ACCEPTED),
        ("refused", MIN_REFUSED),
        ("malformed", 1000),
        ("raced", 1000),
        ("raced_by_others", 1000),
    ] {
        let least = share.of(least);
        findings.expect(
            guest_has(name) >= least,
            format!("{name}: {} are less than {least}", guest_has(name)),
        );
    }
}

/// The guest was wrong in every way, many times.
fn refused_for_all(findings: &mut Findings, monitor: &Value, share: Share) {
    let counts = reasons(monitor);
    findings.expect(
        REASONS
            .iter()
            .all(|reason| counts.get(reason) >= Some(&share.of(MIN_OF_REASON))),
        format!("refused for {counts:?}"),
    );
}

/// How often the monitor refused for which reason.
fn reasons(monitor: &Value) -> BTreeMap<&str, u64> {
    let reasons = monitor["reasons"].as_array().into_iter().flatten();
    reasons
        .filter_map(|entry| Some((entry["reason"].as_str()?, entry["count"].as_u64()?)))
        .collect()
}

fn hex(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

/// The table: where the guest's memory is.
fn memory(report: &Value) -> Vec<Range<u64>> {
    let extents = report["setup"]["extents"].as_array().into_iter().flatten();
    let mut ranges: Vec<_> = extents
        .filter_map(|extent| {
            let start = hex(&extent["hpa"])?;
            Some(start..start + extent["len"].as_u64()?)
        })
        .collect();
    ranges.sort_by_key(|range| range.start);
    ranges
}

/// The device's registers.
fn bar(report: &Value) -> Range<u64> {
    let bar = &report["setup"]["bars"][0];
    let start = hex(&bar["gpa"]).unwrap_or(0);
    start..start + bar["len"].as_u64().unwrap_or(0)
}

/// Accesses to the device, from QEMU.
#[derive(Debug, Default, PartialEq, Eq)]
struct Device {
    registers: [u64; 3],
    started: u64,
    /// The first stores that must not have reached it.
    strange: Vec<String>,
}

impl Device {
    /// Goes through QEMU's log.
    fn replay(log: &str, bar: &Range<u64>, memory: &[Range<u64>]) -> Self {
        let mut device = Self::default();
        for (address, value, width) in log.lines().filter_map(store) {
            if bar.contains(&address) && !device.take(address - bar.start, value, width, memory) {
                let text = format!("{width} bytes {value:#x} at {:#x}", address - bar.start);
                if device.strange.len() < 8 {
                    device.strange.push(text);
                }
            }
        }
        device
    }

    /// Whether a store may be.
    fn take(&mut self, offset: u64, value: u64, width: u8, memory: &[Range<u64>]) -> bool {
        match offset {
            0x80 | 0x88 | 0x90 if width == 8 => {
                self.registers[usize::try_from((offset - 0x80) / 8).unwrap_or(0)] = value;
                true
            }
            0x98 if width == 8 && value & 1 != 0 => {
                self.started += 1;
                let [source, destination, count] = self.registers;
                let (inside, device) = match value & 2 {
                    0 => (source, destination),
                    _ => (destination, source),
                };
                let window = 0x4_0000..=0x4_1000_u64;
                let end = |start: u64| start.checked_add(count).filter(|_| count > 0);
                let in_window = window.contains(&device)
                    && end(device).is_some_and(|end| window.contains(&end));
                in_window && end(inside).is_some_and(|end| is_memory(memory, &(inside..end)))
            }
            // Not of the DMA engine.
            _ => !(0x80..0xa0).contains(&offset),
        }
    }
}

/// Whether all of `range` is memory, whose pieces are sorted.
fn is_memory(memory: &[Range<u64>], range: &Range<u64>) -> bool {
    let mut at = range.start;
    let first = memory.partition_point(|piece| piece.end <= at);
    for piece in &memory[first..] {
        if piece.start > at {
            break;
        }
        at = piece.end;
        if at >= range.end {
            return true;
        }
    }
    false
}

/// Address, value and bytes of a line of [`STORES`].
fn store(line: &str) -> Option<(u64, u64, u8)> {
    let (_, rest) = line.split_once("memory_region_ops_write ")?;
    let words: Vec<_> = rest.split_whitespace().collect();
    let behind = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1).copied()
    };
    let hex = |name| u64::from_str_radix(behind(name)?.strip_prefix("0x")?, 16).ok();
    Some((hex("addr")?, hex("value")?, behind("size")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = "# hostile attempts=101500 accepted=203 refused=100000 malformed=6000 dropped=9000 \
                         raced=12000 raced_by_others=20000 raced_starts=10000\n";
    const MONITOR: [(&str, u64); 5] = [
        ("started", 205),
        ("refused", 109_000),
        ("busy", 998),
        ("failed", 0),
        ("ignored", 9000),
    ];

    /// With changes of the monitor's counts.
    fn judged(guest: &str, changes: &[(&str, u64)]) -> String {
        let mut findings = Findings::default();
        let guest = numbers_behind(guest, "# hostile ");
        let counts = MONITOR.iter().chain(changes).copied();
        let monitor: BTreeMap<_, _> = counts.collect();
        counts_agree(
            &mut findings,
            &guest,
            &serde_json::json!(monitor),
            Share::Whole,
        );
        format!("{findings:?}")
    }

    #[test]
    fn counts_have_to_agree() {
        let well = format!("{:?}", Findings::default());
        assert_eq!(judged(GUEST, &[]), well);
        let sum = "starts that the monitor counts";
        let cases: [(&[(&str, u64)], &str); 5] = [
            (&[("started", 206)], sum),
            (&[("busy", 997)], sum),
            (&[("failed", 1)], "failed starts"),
            (&[("ignored", 9001)], "dropped pieces"),
            (
                &[("started", 9206), ("refused", 99_999)],
                "refused: 99999 by the monitor",
            ),
        ];
        for (changes, found) in cases {
            let judged = judged(GUEST, changes);
            assert!(judged.contains(found), "{changes:?}: {judged}");
        }
        let few = GUEST.replace("refused=100000", "refused=99999");
        assert!(judged(&few, &[]).contains("refused: 99999 are less than"));
        assert_ne!(judged("", &[]), well);
        let mut findings = Findings::default();
        counts_agree(&mut findings, &BTreeMap::new(), &Value::Null, Share::Whole);
        assert!(format!("{findings:?}").contains(sum));
    }

    #[test]
    fn every_reason_has_to_occur() {
        let judged = |reasons: &[&str]| {
            let reasons: Vec<_> = reasons
                .iter()
                .map(|reason| serde_json::json!({ "reason": reason, "count": 100 }))
                .collect();
            let mut findings = Findings::default();
            refused_for_all(
                &mut findings,
                &serde_json::json!({ "reasons": reasons }),
                Share::Whole,
            );
            format!("{findings:?}") == format!("{:?}", Findings::default())
        };
        assert!(judged(&REASONS));
        assert!(!judged(&REASONS[1..]) && !judged(&[]));
    }

    /// Two pages that touch, and one.
    const MEMORY: [Range<u64>; 3] = [0x5000..0x6000, 0x6000..0x7000, 0x9000..0xa000];
    const BAR: Range<u64> = 0xfe00_0000..0xfe10_0000;

    fn log(stores: &[(u64, u64)]) -> String {
        let line = |(offset, value)| {
            let address = BAR.start + offset;
            format!(
                "memory_region_ops_write cpu 0 mr 0x55 addr {address:#x} value {value:#x} size 8 name 'edu-mmio'\n"
            )
        };
        stores.iter().copied().map(line).collect()
    }

    #[test]
    fn what_reaches_the_device_is_judged() {
        let replay = |stores: &[(u64, u64)]| {
            let device = Device::replay(&log(stores), &BAR, &MEMORY);
            (device.started, device.strange.len())
        };
        let transfer = |source, destination, count, command| {
            replay(&[
                (0x80, source),
                (0x88, destination),
                (0x90, count),
                (0x98, command),
            ])
        };
        assert_eq!(transfer(0x40000, 0x5001, 0xfff, 3), (1, 0));
        assert_eq!(transfer(0x5800, 0x40000, 0x1000, 1), (1, 0));
        for (source, destination, count, command) in [
            // Past the end, before it, in the hole, nothing, all.
            (0x40000, 0x6001, 0x1000, 3),
            (0x40000, 0x4fff, 2, 3),
            (0x40000, 0x7000, 1, 3),
            (0x40000, 0x5000, 0, 3),
            (0x40000, u64::MAX, 2, 3),
            // The device's side.
            (0x40001, 0x5000, 0x1000, 3),
            (0x3ffff, 0x5000, 1, 3),
            (0x5000, 0x41000, 1, 1),
            // The other direction.
            (0x40000, 0x5000, 16, 1),
        ] {
            assert_eq!(transfer(source, destination, count, command), (1, 1));
        }
        assert_eq!(replay(&[(0x98, 2), (0xa0, 1)]), (0, 1));
        let narrow = log(&[(0x80, 0)]).replace("size 8", "size 4");
        assert_eq!(Device::replay(&narrow, &BAR, &MEMORY).strange.len(), 1);
        let elsewhere = log(&[(0x98, 0)]).replace("0xfe00", "0xfd00");
        assert_eq!(Device::replay(&elsewhere, &BAR, &MEMORY), Device::default());
    }

    #[test]
    fn a_report_has_the_addresses_of_memory_and_registers() {
        let report = serde_json::json!({ "setup": {
            "extents": [
                { "gpa": "0x100000", "hpa": "0x9000", "len": 4096 },
                { "gpa": "0x101000", "hpa": "0x5000", "len": 4096 },
            ],
            "bars": [{ "name": "x", "gpa": "0xfe000000", "len": 0x10_0000 }],
        }});
        assert_eq!(memory(&report), [0x5000..0x6000, 0x9000..0xa000]);
        assert_eq!(bar(&report), BAR);
        assert!(bar(&Value::Null).is_empty() && memory(&Value::Null).is_empty());
    }
}
