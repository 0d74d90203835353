// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs that could have been.

use std::fmt::Write as _;

use address::{Gpa, Hpa, Iova};
use stress_format::{Engine, Interrupt, Landed, Latency, Mode, Record, Sample, Start, Totals};
use stress_report::{
    Bar, Collector, Ending, Extent, Landmark, Mediated, Outcome, Refusal, RefusedFor, Report, Setup,
};

const MIB: u64 = 1 << 20;

/// A guest's output and its monitor's data.
#[derive(Clone, Debug)]
pub struct Run {
    pub serial: String,
    pub setup: Setup,
    pub outcome: Outcome,
}

impl Run {
    pub fn report(self) -> Report {
        let mut collector = Collector::new();
        collector.feed(self.serial.as_bytes());
        collector.finish(self.setup, self.outcome)
    }
}

/// Numbers without a pattern, always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

const TESTS: [&str; 12] = [
    "edu 0: interrupt line",
    "edu 0: every length to the device",
    "edu 0: every length from the device",
    "edu 0: borders of pages and hugepages",
    "edu 0: borders of extents",
    "edu 1: every length from the device, by MSI",
    "edu 1: factorial",
    "nvme 2: identify",
    "nvme 2: every alignment",
    "nvme 2: PRP lists",
    "nvme 2: 32 commands in flight",
    "nvme 2: patterns",
];

/// A run in which all is well, with RAM in `extents` pieces.
pub fn passing(extents: u64) -> Run {
    let setup = setup(extents);
    let mut serial = String::from("[    0.000000] noise\r\n");
    let mut say = |line: &str| serial.push_str(&format!("{line}\r\n"));
    say("TAP version 14");
    let start = Start {
        seed: 7,
        cpus: 2,
        tsc_khz: 2_100_000,
        mode: Mode::Identity,
        program: "dma-stress",
    };
    say(&format!("# {}", Record::Start(start)));
    for (id, name, interrupt, bdf) in [
        (0, "edu", Interrupt::Intx, "00:01.0"),
        (1, "edu", Interrupt::Msi, "00:01.0"),
        (2, "nvme", Interrupt::Msix, "00:02.0"),
    ] {
        let engine = Engine {
            id,
            interrupt,
            bdf,
            name,
        };
        say(&format!("# {}", Record::Engine(engine)));
    }
    say(&format!("1..{}", TESTS.len()));
    let mut random = Random(3);
    let mut sample = Sample {
        ms: 0,
        transfers: 0,
        bytes: 0,
    };
    for (test, name) in (1..).zip(TESTS) {
        for _ in 0..8 {
            sample.ms += 200 + random.below(100);
            let moved = 1 + random.below(if test < 8 { 60 } else { 900 });
            sample.transfers += moved;
            sample.bytes += moved * (3000 + random.below(9000));
            say(&format!("# {}", Record::Sample(sample)));
        }
        say(&format!("ok {test} - {name}"));
    }
    for record in histogram(sample.transfers) {
        say(&format!("# {record}"));
    }
    for extent in &setup.extents {
        for piece in (0..extent.len).step_by(2 << 20) {
            let bytes = (1 << random.below(22)) - 1;
            let landed = Landed {
                gpa: extent.gpa.0 + piece,
                len: 2 * MIB,
                bytes,
            };
            say(&format!("# {}", Record::Landed(landed)));
        }
    }
    let totals = Totals {
        transfers: sample.transfers,
        bytes: sample.bytes,
        kb_s: 9841,
        p50: 8800,
        p99: 210_000,
        max: 3_400_000,
        ..Totals::default()
    };
    say(&format!("# {}", Record::Totals(totals)));
    let mut outcome = Outcome::new(Some(0), Ending::PoweredOff);
    outcome.duration_ms = sample.ms + 180;
    Run {
        serial,
        setup,
        outcome,
    }
}

/// A histogram of two humps, a tail and a straggler.
fn histogram(transfers: u64) -> Vec<Record<'static>> {
    let mut left = transfers - 1;
    let mut bars = vec![(3_145_728, 1)];
    for (from, share) in [
        (4096, 40),
        (5120, 18),
        (6144, 9),
        (7168, 5),
        (8192, 2),
        (10_240, 3),
        (12_288, 3),
        (14_336, 2),
        (229_376, 500),
        (65_536, 10),
        (81_920, 3),
        (98_304, 2),
        (16_384, 3),
    ] {
        let count = left / share;
        left -= count;
        bars.push((from, count));
    }
    bars.push((20_480, left));
    bars.sort_unstable();
    let bars = bars.into_iter().filter(|(_, count)| *count > 0);
    bars.map(|(from, count)| Record::Latency(Latency { from, count }))
        .collect()
}

fn setup(count: u64) -> Setup {
    let mut random = Random(11);
    let mut at = 0x1_0000_0000;
    let mut extents = Vec::new();
    for _ in 0..count {
        at += (1 + random.below(40)) * 2 * MIB;
        let len = (1 + random.below(3) * random.below(4)) * 2 * MIB;
        extents.push(Extent {
            gpa: Gpa(at),
            hpa: Hpa(at),
            len,
        });
        at += len;
    }
    let kernel = extents[extents.len() / 2].gpa;
    let bar = |name: &str, gpa, len| Bar {
        name: name.into(),
        gpa: Gpa(gpa),
        len,
    };
    let landmark = |name: &str, gpa, len| Landmark {
        name: name.into(),
        gpa,
        len,
    };
    Setup {
        monitor: "pinvisor 0.1.0".into(),
        host_kernel: "7.3.0".into(),
        command_line: "pinvisor stress --device 00:04.0 --device 00:05.0 --memory 128M".into(),
        guest_command_line: "seed=7 transfers=2000 irq=all mode=identity".into(),
        backend: "noiommu".into(),
        extents,
        bars: vec![
            bar("00:01.0 BAR0", 0xfe80_0000, MIB),
            bar("00:02.0 BAR0", 0xfe90_0000, 16 << 10),
            bar("00:03.0 BAR2", 0xc0_0000_0000, 2048 * MIB),
        ],
        landmarks: vec![
            landmark("low memory", Gpa(0), 0xa0000),
            landmark("kernel image", kernel, MIB / 2),
        ],
    }
}

/// A device of which the monitor refused transfers for these reasons.
pub fn mediated(refused: &[(&str, u64)]) -> Mediated {
    let reasons = refused.iter().map(|(reason, count)| RefusedFor {
        reason: (*reason).into(),
        count: *count,
    });
    Mediated {
        device: "0000:01:00.0".into(),
        started: 210,
        refused: refused.iter().map(|(_, count)| count).sum(),
        reasons: reasons.collect(),
        ..Mediated::default()
    }
}

/// A run on a layout in which two extents are swapped, and a driver that goes astray.
pub fn failing() -> Run {
    let mut run = passing(8);
    let (a, b) = (run.setup.extents[2], run.setup.extents[5]);
    run.setup.extents[2].hpa = b.hpa;
    run.setup.extents[5].hpa = a.hpa;
    let mut findings = String::new();
    for (extent, other) in [(a, b), (b, a), (a, b)] {
        let (gpa, found) = (extent.gpa.0 + 0x1400, other.gpa.0 + 0x1400);
        let _ = write!(
            findings,
            "# finding kind=wrong-extent engine=1 gpa={gpa:#x} len=0x1000 \
             text=the data of the buffer at {gpa:#x} lies at {found:#x}\r\n"
        );
    }
    findings.push_str(
        "# finding kind=lost-interrupt engine=0 gpa=0x100000000 len=0x40 \
         text=done without an interrupt after 2000000 ticks\r\n",
    );
    run.serial = run
        .serial
        .replace("ok 5 - ", &format!("{findings}not ok 5 - "))
        .replace("mismatches=0", "mismatches=3")
        .replace("lost_interrupts=0", "lost_interrupts=1");
    run.serial
        .push_str("# landed gpa=0x90000000 len=0x200000 bytes=4096\r\n");
    run.serial.push_str("# provoked least=1 most=3\r\n");
    run.outcome.mediated = vec![mediated(&[("length", 1), ("not-memory", 4)])];
    run.outcome.status = Some(1);
    run.outcome.refusals.count = 2;
    run.outcome.refusals.last = vec![
        Refusal {
            address: Iova(0x9f000),
            len: 4096,
        },
        Refusal {
            address: Iova(0x7fff_ffff_f000),
            len: 64,
        },
    ];
    run
}
