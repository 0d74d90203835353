// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Config spaces of QEMU's device models and of real devices.

use std::fs;
use std::path::Path;

use devices::pci::{BarKind, PciFunction};
use devices_testing::{DeviceImage, operations};

use super::{BUS_MASTER, Bench, MEMORY};

/// Device, capabilities and extended capabilities that the guest sees.
type Recorded = (&'static str, &'static [u32], &'static [u32]);

const RECORDED: [Recorded; 18] = [
    ("ahci", &[0x05, 0x12], &[]),
    ("e1000", &[], &[]),
    ("e1000e", &[0x01, 0x05, 0x10, 0x11], &[0x01, 0x03]),
    ("edu", &[0x05], &[]),
    ("fiji", &[0x09, 0x01, 0x10, 0x05], &[0x0b, 0x01]),
    ("idxd", &[0x10, 0x11, 0x01], &[0x01, 0x23]),
    ("igb", &[0x01, 0x05, 0x11, 0x10], &[0x01]),
    ("ivshmem", &[], &[]),
    ("iwlwifi", &[0x01, 0x05, 0x10], &[0x01, 0x03]),
    ("megasas", &[0x11, 0x05], &[]),
    ("nvme", &[0x11, 0x10, 0x01], &[]),
    ("pci-testdev", &[], &[]),
    ("pvscsi", &[0x10, 0x05], &[]),
    ("rtl8139", &[], &[]),
    ("sdhci", &[], &[]),
    (
        "virtio-blk",
        &[0x11, 0x09, 0x09, 0x09, 0x09, 0x09, 0x01, 0x10],
        &[],
    ),
    (
        "virtio-net",
        &[0x11, 0x09, 0x09, 0x09, 0x09, 0x09, 0x01, 0x10],
        &[],
    ),
    ("xhci", &[0x11, 0x10], &[]),
];

fn load(name: &str) -> DeviceImage {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs");
    let text = fs::read_to_string(folder.join(format!("{name}.txt"))).unwrap();
    DeviceImage::parse(name, &text).unwrap()
}

#[test]
fn the_table_covers_every_recording() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs");
    let recordings = fs::read_dir(folder).unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        path.extension().is_some_and(|extension| extension == "txt")
    });
    assert_eq!(recordings.count(), RECORDED.len());
}

#[test]
fn the_right_capabilities_are_shown() {
    for (name, standard, extended) in RECORDED {
        let image = load(name);
        let full = image.config.len() == 4096;
        let mut bench = Bench::new(image);
        let ids: Vec<_> = bench.capabilities().into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, standard, "{name}");
        if full {
            let ids: Vec<_> = bench.extended().into_iter().map(|(id, _)| id).collect();
            assert_eq!(ids, extended, "{name}");
        }
        assert_eq!(bench.read(0, 4), bench.read(0, 2) | bench.read(2, 2) << 16);
        assert_eq!(bench.read(4, 2), 0);
    }
}

#[test]
fn bars_are_sized_and_decoded() {
    for (name, ..) in RECORDED {
        check_bars(name, load(name));
    }
}

/// Sizes each BAR of a device and turns them on.
pub(super) fn check_bars(name: &str, image: DeviceImage) {
    let bars = image.info.bars.clone();
    let config = image.config.clone();
    let mut bench = Bench::new(image);
    for (index, region) in (0..6_u8).zip(&bars).filter(|(_, region)| region.size != 0) {
        let at = 0x10 + 4 * u16::from(index);
        let kind = BarKind::from_register(config[usize::from(at)].into());
        let old = bench.read(at, 4);
        bench.write(at, &[0xff; 4]);
        let mut mask = u64::from(bench.read(at, 4) & !0xf) | 0xffff_ffff << 32;
        bench.write(at, &old.to_le_bytes());
        if matches!(kind, BarKind::Memory64 { .. }) {
            let high = bench.read(at + 4, 4);
            bench.write(at + 4, &[0xff; 4]);
            mask = mask & 0xffff_ffff | u64::from(bench.read(at + 4, 4)) << 32;
            bench.write(at + 4, &high.to_le_bytes());
        }
        let expected = region.size.max(16);
        assert_eq!(mask.wrapping_neg(), expected, "{name} BAR {index}");
    }
    bench.command(MEMORY | BUS_MASTER | 1);
    let decoded = bench.function.windows().iter().count();
    let present = bars.iter().filter(|region| region.size != 0).count();
    assert_eq!(decoded, present, "{name}");
}

#[test]
fn no_write_breaks_a_rule() {
    for (name, ..) in RECORDED {
        attack(name, &load(name));
    }
}

/// Writes everywhere, and does what a fuzzer might.
pub(super) fn attack(name: &str, image: &DeviceImage) {
    let size = u16::try_from(image.config.len()).unwrap();
    for (step, data) in [
        (1, &[0xff_u8][..]),
        (2, &[0xff; 2]),
        (4, &[0xff; 4]),
        (4, &[0; 4]),
    ] {
        let mut bench = Bench::new(image.clone());
        for offset in (0..size).step_by(step) {
            bench.write(offset, data);
            let _ = bench.read(offset, data.len());
        }
        bench.function.reset();
        assert_eq!(bench.witness.command(), 0, "{name}");
    }
    let sequence: Vec<u8> = (0..4000_u32)
        .map(|n| ((n * 7919) >> 5).to_le_bytes()[0])
        .collect();
    operations::run_with(image.clone(), &sequence);
}
