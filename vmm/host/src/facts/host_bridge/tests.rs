// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bridges of boards, as their device trees describe them.

use address::BusAddr;
use proptest::prelude::*;

use super::boards::*;
use super::*;
use crate::sys_root::tests::Fake;

const GIB: u64 = 1 << 30;

fn bridge(fake: &Fake) -> Result<HostBridge, HostBridgeError> {
    host_bridge(&fake.root, bdf(), &[Hpa(GIB)..Hpa(4 * GIB)])
}

#[test]
fn windows_and_coherence_are_those_of_the_bridge() {
    let coherent = virt(&[("pcie", "dma-coherent", &[])]);
    let expected = HostBridge {
        windows: vec![
            range(0x1000_0000..0x3eff_0000, 0x1000_0000),
            range(0x80_0000_0000..0x100_0000_0000, 0x80_0000_0000),
        ],
        dma: DmaMap::Identity,
        is_coherent: true,
    };
    assert_eq!(bridge(&coherent), Ok(expected.clone()));
    // What the bus above says counts, unless the bridge says otherwise.
    let above = virt(&[("", "dma-coherent", &[])]);
    assert_eq!(bridge(&above), Ok(expected));
    for fake in [
        virt(&[]),
        virt(&[("", "dma-coherent", &[]), ("pcie", "dma-noncoherent", &[])]),
    ] {
        assert!(!bridge(&fake).unwrap().is_coherent);
    }
}

/// A range of the CPU's addresses that begins at `bus` on the bus.
fn range(cpu: Range<u64>, bus: u64) -> BusRange {
    BusRange {
        cpu: Hpa(cpu.start)..Hpa(cpu.end),
        bus: BusAddr(bus),
    }
}

#[test]
fn raspberry_pi_4_moves_bars_and_reaches_less_than_all_memory_or_moves_it() {
    let early = bridge(&pi4_early()).unwrap();
    let window = range(0x6_0000_0000..0x6_4000_0000, 0xc000_0000);
    assert_eq!(early.windows, std::slice::from_ref(&window));
    assert_eq!(early.dma, DmaMap::Ranges(vec![range(0..3 * GIB, 0)]));
    assert!(!early.is_coherent);
    let late = bridge(&pi4_late()).unwrap();
    assert_eq!(late.windows, [window]);
    assert_eq!(late.dma.to_bus(Hpa(GIB)), Some(BusAddr(17 * GIB)));
    assert!(!late.is_coherent);
}

#[test]
fn raspberry_pi_5_moves_bars_and_memory() {
    let found = bridge(&pi5()).unwrap();
    let windows = [
        range(0x1b_0000_0000..0x1b_ffff_fffc, 0),
        range(0x18_0000_0000..0x1b_0000_0000, 0x4_0000_0000),
    ];
    assert_eq!(found.windows, windows);
    // What is for messages is no memory.
    let memory = range(0..64 * GIB, 0x10_0000_0000);
    assert_eq!(found.dma, DmaMap::Ranges(vec![memory]));
    assert!(!found.is_coherent);
}

#[test]
fn rk3399_moves_nothing() {
    let found = bridge(&rk3399()).unwrap();
    assert_eq!(
        found.windows,
        [range(0xfa00_0000..0xfbe0_0000, 0xfa00_0000)]
    );
    assert_eq!(found.dma, DmaMap::Identity);
    assert!(!found.is_coherent);
}

#[test]
fn imx8m_reaches_3_gib_from_the_start_of_memory() {
    let found = bridge(&imx8m()).unwrap();
    assert_eq!(
        found.windows,
        [range(0x1800_0000..0x1ff0_0000, 0x1800_0000)]
    );
    assert_eq!(found.dma, DmaMap::Identity);
    assert!(!found.is_coherent);
    // A board with 4 GiB, of which it does not reach the last one.
    let ram = [Hpa(GIB)..Hpa(5 * GIB)];
    let found = host_bridge(&imx8m().root, bdf(), &ram).unwrap();
    let memory = range(GIB..4 * GIB, GIB);
    assert_eq!(found.dma, DmaMap::Ranges(vec![memory]));
}

/// A bridge without `dma-ranges` in `soc`, in `outer`, which have these.
fn nested(outer: Option<&[u32]>, soc: Option<&[u32]>) -> Fake {
    let mut properties: Vec<(&str, &str, &[u32])> = vec![
        ("", "#address-cells", &[2]),
        ("outer", "#address-cells", &[2]),
        ("outer", "#size-cells", &[2]),
        ("outer/soc", "#address-cells", &[2]),
        ("outer/soc", "#size-cells", &[2]),
        ("outer/soc/pcie", "#address-cells", &[3]),
        ("outer/soc/pcie", "#size-cells", &[2]),
    ];
    properties.extend(outer.map(|cells| ("outer", "dma-ranges", cells)));
    properties.extend(soc.map(|cells| ("outer/soc", "dma-ranges", cells)));
    machine("outer/soc/pcie", &properties)
}

#[test]
fn the_buses_above_move_memory_as_linux_finds_it() {
    const FROM_3G: &[u32] = &[0, 0xc000_0000, 0, 0, 1, 0];
    const FROM_12G: &[u32] = &[3, 0, 0, 0, 1, 0];
    let at = |fake: &Fake| bridge(fake).unwrap().dma.to_bus(Hpa(GIB));
    assert_eq!(at(&nested(None, Some(FROM_3G))), Some(BusAddr(4 * GIB)));
    // Empty ranges change nothing; a missing property ends the search.
    let empty = nested(Some(FROM_12G), Some(&[]));
    assert_eq!(at(&empty), Some(BusAddr(13 * GIB)));
    assert_eq!(at(&nested(Some(FROM_12G), None)), Some(BusAddr(GIB)));
    // What the inner one says of the outer one's addresses, which are at 12 GiB.
    let both = nested(Some(FROM_12G), Some(&[8, 0, 3, 0, 1, 0]));
    assert_eq!(at(&both), Some(BusAddr(33 * GIB)));
}

#[test]
fn a_bridge_that_reaches_no_memory_and_one_with_a_seam_are_refused() {
    let ranges: &[u32] = &[0x200_0000, 0, 0, 0x10, 0, 0, 0xc000_0000];
    let none = virt(&[("pcie", "dma-ranges", ranges)]);
    assert!(matches!(bridge(&none), Err(HostBridgeError::Reach { .. })));
    #[rustfmt::skip]
    let seam: &[u32] = &[
        0x200_0000, 0, 0, 0, 0, 0, 0x8000_0000,
        0x200_0000, 1, 0, 0, 0x8000_0000, 1, 0,
    ];
    let Err(HostBridgeError::Seam { at, path, .. }) =
        bridge(&virt(&[("pcie", "dma-ranges", seam)]))
    else {
        panic!("it was taken");
    };
    assert_eq!(at, Hpa(2 * GIB));
    assert!(path.ends_with("pcie/dma-ranges"));
}

#[test]
fn ranges_that_cover_memory_and_move_nothing_are_no_ranges() {
    #[rustfmt::skip]
    let all: &[u32] = &[
        0x4300_0000, 0, 0, 0, 0, 0, 0x8000_0000,
        0x4300_0000, 0, 0x8000_0000, 0, 0x8000_0000, 1, 0,
    ];
    let found = bridge(&virt(&[("pcie", "dma-ranges", all)])).unwrap();
    assert_eq!(found.dma, DmaMap::Identity);
}

#[test]
fn addresses_are_translated_by_the_buses_above() {
    let properties: &[(&str, &str, &[u32])] = &[
        ("", "#address-cells", &[2]),
        ("", "#size-cells", &[2]),
        ("soc", "#address-cells", &[1]),
        ("soc", "#size-cells", &[1]),
        // 256 MiB of it are at 64 GiB.
        ("soc", "ranges", &[0x1000_0000, 0x10, 0, 0x1000_0000]),
        ("soc/pcie", "#address-cells", &[3]),
        ("soc/pcie", "#size-cells", &[2]),
        (
            "soc/pcie",
            "ranges",
            &[0x300_0000, 0x10, 0x10_0000, 0x1010_0000, 0, 0x10_0000],
        ),
    ];
    let found = bridge(&machine("soc/pcie", properties)).unwrap();
    let window = range(0x10_0010_0000..0x10_0020_0000, 0x10_0010_0000);
    assert_eq!(found.windows, [window]);
}

#[test]
fn a_machine_without_a_device_tree_is_told_from_a_device_without_a_bridge() {
    let fake = Fake::new();
    assert_eq!(bridge(&fake), Err(HostBridgeError::Absent { bdf: bdf() }));
    fake.directory("sys/firmware/acpi/tables");
    assert_eq!(bridge(&fake), Err(HostBridgeError::Acpi { bdf: bdf() }));
}

#[test]
fn what_makes_no_sense_is_named() {
    let fake = virt(&[("pcie", "dma-ranges", &[1, 2, 3])]);
    let Err(HostBridgeError::Malformed { path, .. }) = bridge(&fake) else {
        panic!("it was taken");
    };
    assert!(path.ends_with("pcie/dma-ranges"));
}

proptest! {
    // A tree of files is made for each.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_property_makes_it_panic(
        cells in 0_u32..5, parent in 0_u32..4, ranges in prop::collection::vec(any::<u32>(), 0..30),
    ) {
        let fake = machine("pcie", &[
            ("", "#address-cells", &[parent]),
            ("pcie", "#address-cells", &[cells]),
            ("pcie", "#size-cells", &[2]),
            ("pcie", "ranges", &ranges),
            ("pcie", "dma-ranges", &ranges),
        ]);
        let _ = bridge(&fake);
    }
}
