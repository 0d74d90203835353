// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bridges of boards, as their device trees describe them.

use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;
use crate::sys_root::tests::Fake;

const TREE: &str = "sys/firmware/devicetree/base";
const GIB: u64 = 1 << 30;

fn bdf() -> Bdf {
    "0000:01:00.0".parse().unwrap()
}

/// A machine whose device is behind the bridge of `node`, which is in the tree if that has properties.
fn machine(node: &str, properties: &[(&str, &str, &[u32])]) -> Fake {
    let fake = Fake::new();
    let path = |name: &str| fake.dir.path().join(name);
    fake.directory(&format!("{TREE}/{node}"));
    for (node, property, cells) in properties {
        fake.directory(&format!("{TREE}/{node}"));
        let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        std::fs::write(path(&format!("{TREE}/{node}/{property}")), bytes).unwrap();
    }
    let platform = "sys/devices/platform/a.pcie";
    let function = format!("{platform}/pci0000:00/0000:00:00.0/0000:01:00.0");
    fake.directory(&function);
    symlink(
        path(&format!("{TREE}/{node}")),
        path(&format!("{platform}/of_node")),
    )
    .unwrap();
    fake.directory("sys/bus/pci/devices");
    symlink(path(&function), path("sys/bus/pci/devices/0000:01:00.0")).unwrap();
    fake
}

fn bridge(fake: &Fake) -> Result<HostBridge, HostBridgeError> {
    host_bridge(&fake.root, bdf(), &[Hpa(GIB)..Hpa(4 * GIB)])
}

/// Cells of a bridge in a node whose addresses have two.
const CELLS: [(&str, &str, &[u32]); 4] = [
    ("", "#address-cells", &[2]),
    ("", "#size-cells", &[2]),
    ("pcie", "#address-cells", &[3]),
    ("pcie", "#size-cells", &[2]),
];

/// QEMU's machine `virt`: ports, a window of 32 bits and one of 64, nothing moved.
const VIRT: &[u32] = &[
    0x100_0000,
    0,
    0,
    0,
    0x3eff_0000,
    0,
    0x1_0000, //
    0x200_0000,
    0,
    0x1000_0000,
    0,
    0x1000_0000,
    0,
    0x2eff_0000, //
    0x300_0000,
    0x80,
    0,
    0x80,
    0,
    0x80,
    0,
];

fn virt(more: &[(&'static str, &'static str, &'static [u32])]) -> Fake {
    machine(
        "pcie",
        &[&CELLS[..], &[("pcie", "ranges", VIRT)], more].concat(),
    )
}

#[test]
fn windows_and_coherence_are_those_of_the_bridge() {
    let coherent = virt(&[("pcie", "dma-coherent", &[])]);
    let expected = HostBridge {
        windows: vec![
            Hpa(0x1000_0000)..Hpa(0x3eff_0000),
            Hpa(0x80_0000_0000)..Hpa(0x100_0000_0000),
        ],
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

#[test]
fn a_bridge_that_moves_bars_is_refused() {
    // Raspberry Pi 4: 1 GiB at 0xc000_0000 on the bus, 24 GiB for the CPU.
    let ranges = &[0x200_0000, 0, 0xc000_0000, 6, 0, 0, 0x4000_0000];
    let fake = machine(
        "pcie",
        &[&CELLS[..], &[("pcie", "ranges", ranges)]].concat(),
    );
    let Err(HostBridgeError::Offset { bus, cpu, path, .. }) = bridge(&fake) else {
        panic!("it was taken");
    };
    assert_eq!((bus, cpu), (BusAddr(0xc000_0000), Hpa(6 << 32)));
    assert!(path.ends_with("pcie/ranges"));
}

#[test]
fn a_bridge_that_moves_memory_is_refused() {
    // Raspberry Pi 5, external connector: 64 GiB of memory begin at 64 GiB on the bus.
    let fake = virt(&[("pcie", "dma-ranges", &[0x4300_0000, 0x10, 0, 0, 0, 0x10, 0])]);
    let Err(HostBridgeError::Offset { bus, cpu, .. }) = bridge(&fake) else {
        panic!("it was taken");
    };
    assert_eq!((bus, cpu), (BusAddr(0x10_0000_0000), Hpa(0)));
    // The same by the bus that the bridge is on.
    let moved: &[u32] = &[0, 0xc000_0000, 0, 0, 0, 0x4000_0000];
    let ranges = [&CELLS[2..], &[("", "#address-cells", &[2][..])]].concat();
    let properties: Vec<_> = ranges
        .iter()
        .map(|(node, name, cells)| match *node {
            "pcie" => ("soc/pcie", *name, *cells),
            node => (node, *name, *cells),
        })
        .chain([
            ("soc", "#address-cells", &[2][..]),
            ("soc", "#size-cells", &[2][..]),
            ("soc", "ranges", &[][..]),
            ("soc", "dma-ranges", moved),
        ])
        .collect();
    let fake = machine("soc/pcie", &properties);
    assert!(matches!(bridge(&fake), Err(HostBridgeError::Offset { .. })));
}

#[test]
fn memory_that_the_bus_does_not_reach_is_named() {
    let all = virt(&[(
        "pcie",
        "dma-ranges",
        &[
            0x4300_0000,
            0,
            0,
            0,
            0,
            0,
            0x8000_0000, //
            0x4300_0000,
            0,
            0x8000_0000,
            0,
            0x8000_0000,
            1,
            0,
        ],
    )]);
    assert!(bridge(&all).is_ok());
    // Raspberry Pi 4, early chips: 3 GiB.
    let some = virt(&[(
        "pcie",
        "dma-ranges",
        &[0x200_0000, 0, 0, 0, 0, 0, 0xc000_0000],
    )]);
    let Err(HostBridgeError::Reach { ram, .. }) = bridge(&some) else {
        panic!("it was taken");
    };
    assert_eq!(ram, Hpa(GIB)..Hpa(4 * GIB));
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
    assert_eq!(found.windows, [Hpa(0x10_0010_0000)..Hpa(0x10_0020_0000)]);
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
