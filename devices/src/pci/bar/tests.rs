// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use address::BusAddr;

use super::*;

const MEM32: BarKind = BarKind::Memory32 {
    prefetchable: false,
};
const MEM64P: BarKind = BarKind::Memory64 { prefetchable: true };

fn write(bars: &mut Bars, offset: u16, value: u32) {
    bars.write(DwordWrite::new(offset, &value.to_le_bytes()).unwrap());
}

fn probe(bars: &mut Bars, offset: u16) -> u32 {
    let old = bars.read(offset).unwrap();
    write(bars, offset, u32::MAX);
    let mask = bars.read(offset).unwrap();
    write(bars, offset, old);
    assert_eq!(bars.read(offset), Some(old));
    mask
}

#[test]
fn the_guest_learns_every_size() {
    for (kind, size, home, low, high) in [
        (BarKind::Io, 4, 0xc000, 0xffff_fffd, 0),
        (BarKind::Io, 256, 0xc000, 0xffff_ff01, 0),
        (MEM32, 16, 0xfe00_0010, 0xffff_fff0, 0),
        (MEM32, 0x1000, 0xfe00_0000, 0xffff_f000, 0),
        (
            BarKind::Memory32 { prefetchable: true },
            1 << 31,
            1 << 31,
            0x8000_0008,
            0,
        ),
        (MEM64P, 0x4000, 0x38_0000_4000, 0xffff_c00c, u32::MAX),
        (MEM64P, 1 << 31, 1 << 38, 0x8000_000c, u32::MAX),
        (MEM64P, 1 << 32, 1 << 38, 0x0000_000c, u32::MAX),
        (MEM64P, 1 << 36, 1 << 38, 0x0000_000c, 0xffff_fff0),
    ] {
        let mut bars = Bars::default();
        bars.insert(2, Bar::new(kind, size, home).unwrap()).unwrap();
        assert_eq!(probe(&mut bars, BAR0 + 8), low, "{kind:?} {size:#x}");
        assert_eq!(probe(&mut bars, BAR0 + 12), high, "{kind:?} {size:#x}");
        assert_eq!(bars.get(2).unwrap().address(), home);
        assert_eq!(probe(&mut bars, BAR0), 0);
        assert_eq!(probe(&mut bars, ROM), 0);
    }
}

#[test]
fn a_value_left_by_sizing_is_no_address() {
    let mut bars = Bars::default();
    bars.insert(0, Bar::new(MEM64P, 0x1000, 0x12_3456_7000).unwrap())
        .unwrap();
    for (low, high, place) in [
        (u32::MAX, 0x12, None),
        (0x3456_7000, u32::MAX, None),
        (0, 0, None),
        (0x3456_7000, 0x12, Some(0x12_3456_7000)),
        (0x3456_8000, 0x12, Some(0x12_3456_8000)),
    ] {
        write(&mut bars, BAR0, low);
        write(&mut bars, BAR0 + 4, high);
        assert_eq!(
            bars.get(0).unwrap().place(),
            place.map(BusAddr),
            "{low:#x} {high:#x}"
        );
    }
}

#[test]
fn windows_follow_the_registers() {
    let mut bars = Bars::default();
    bars.insert(0, Bar::new(BarKind::Io, 32, 0).unwrap())
        .unwrap();
    bars.insert(1, Bar::new(MEM32, 0x1000, 0xfe00_0000).unwrap())
        .unwrap();
    bars.set_rom(0x10000, 0).unwrap();
    assert_eq!(bars.get(0).unwrap().window(0), None);
    assert_eq!(bars.get(1).unwrap().window(1).unwrap().base, 0xfe00_0000);
    write(&mut bars, BAR0, 0xffff_ffe0);
    assert_eq!(bars.get(0).unwrap().window(0), None, "past the last port");
    write(&mut bars, BAR0, 0xc0ff);
    assert_eq!(bars.get(0).unwrap().window(0).unwrap().base, 0xc0e0);
    write(&mut bars, BAR0 + 4, 0xffff_ffff);
    assert_eq!(bars.get(1).unwrap().window(1).unwrap().base, 0xffff_f000);

    assert_eq!(bars.rom_window(), None);
    write(&mut bars, ROM, u32::MAX);
    assert_eq!(bars.read(ROM), Some(0xffff_0001));
    write(&mut bars, ROM, 0xfd01_0000);
    assert_eq!(bars.rom_window(), None);
    write(&mut bars, ROM, 0xfd01_0001);
    assert_eq!(bars.rom_window().unwrap().base, 0xfd01_0000);
    bars.reset();
    assert_eq!(bars.rom_window(), None);
    assert!(bars.get(0).unwrap().is_home());
}

#[test]
fn bytes_and_words_of_a_register_can_be_written() {
    let mut bars = Bars::default();
    bars.insert(0, Bar::new(MEM32, 0x1000, 0xfe00_0000).unwrap())
        .unwrap();
    bars.write(DwordWrite::new(BAR0 + 2, &[0x12, 0xfd]).unwrap());
    assert_eq!(bars.read(BAR0), Some(0xfd12_0000));
    bars.write(DwordWrite::new(BAR0 + 1, &[0xff]).unwrap());
    assert_eq!(bars.read(BAR0), Some(0xfd12_f000));
}

#[test]
fn impossible_bars_are_refused() {
    for (kind, size, home) in [
        (MEM32, 0, 0),
        (MEM32, 8, 0),
        (MEM32, 0x1800, 0),
        (MEM32, 1 << 33, 0),
        (MEM32, 0x1000, 0x800),
        (MEM32, 0x1000, 1 << 32),
        (BarKind::Io, 2, 0),
        (BarKind::Io, 0x100, 0x10000),
    ] {
        assert!(
            Bar::new(kind, size, home).is_err(),
            "{kind:?} {size:#x} {home:#x}"
        );
    }
    let mut bars = Bars::default();
    let wide = || Bar::new(MEM64P, 0x1000, 0).unwrap();
    let narrow = || Bar::new(MEM32, 0x1000, 0).unwrap();
    assert!(bars.insert(5, wide()).is_err());
    assert!(bars.insert(6, narrow()).is_err());
    bars.insert(0, wide()).unwrap();
    assert!(bars.insert(1, narrow()).is_err());
    assert!(bars.insert(0, narrow()).is_err());
    for (size, home) in [
        (0x400, 0),
        (0x1800, 0),
        (1 << 32, 0),
        (0x1000, 0x800),
        (0x1000, 1 << 32),
    ] {
        assert!(bars.set_rom(size, home).is_err(), "{size:#x} {home:#x}");
    }
}
