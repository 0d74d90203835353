// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tree is read back as a kernel reads it.

mod addresses;

use std::collections::{BTreeMap, BTreeSet};

use address::BusAddr;

use super::*;
use crate::arch::aarch64::image::ALIGNMENT;
use crate::arch::aarch64::layout::{self, INTX_GSIS};

/// Properties by the path of their node and their name, as `/pcie@7000800000 ranges`.
type Tree = BTreeMap<String, Vec<u8>>;

/// Reads a flattened tree (Devicetree Specification v0.4, section 5.4).
fn read(blob: &[u8]) -> Tree {
    const BEGIN_NODE: u32 = 1;
    const END_NODE: u32 = 2;
    const PROPERTY: u32 = 3;
    const END: u32 = 9;
    let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().unwrap());
    let text = |at: usize| {
        let length = blob[at..].iter().position(|byte| *byte == 0).unwrap();
        std::str::from_utf8(&blob[at..at + length]).unwrap()
    };
    assert_eq!((word(0), word(4) as usize), (0xd00d_feed, blob.len()));
    let (mut at, strings) = (word(8) as usize, word(12) as usize);
    let mut path = Vec::new();
    let mut tree = Tree::new();
    loop {
        let token = word(at);
        at += 4;
        match token {
            BEGIN_NODE => {
                let name = text(at);
                at += (name.len() + 1).next_multiple_of(4);
                path.push(name);
            }
            END_NODE => {
                path.pop().unwrap();
            }
            PROPERTY => {
                let (length, name) = (word(at) as usize, text(strings + word(at + 4) as usize));
                let value = blob[at + 8..at + 8 + length].to_vec();
                tree.insert(format!("{} {name}", path.join("/")), value);
                at += 8 + length.next_multiple_of(4);
            }
            END => break,
            other => panic!("token {other}"),
        }
    }
    assert!(path.is_empty());
    tree
}

fn cells(tree: &Tree, name: &str) -> Vec<u32> {
    let value = tree.get(name).unwrap_or_else(|| panic!("no {name}"));
    let words = value.chunks_exact(4);
    words
        .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
        .collect()
}

fn longs(tree: &Tree, name: &str) -> Vec<u64> {
    let pairs = cells(tree, name);
    let long = |pair: &[u32]| u64::from(pair[0]) << 32 | u64::from(pair[1]);
    pairs.chunks_exact(2).map(long).collect()
}

fn platform(cpus: u8) -> Platform {
    let windows = vec![
        Gpa(0x1000_0000)..Gpa(0x3eff_0000),
        Gpa(0x80_0000_0000)..Gpa(0x100_0000_0000),
    ];
    let ecam = Gpa(0x70_0080_0000)..Gpa(0x70_0090_0000);
    let map = AddressMap {
        windows,
        ecam,
        ..AddressMap::conventional()
    };
    Platform::new(cpus, GicVersion::V3, Some(map))
}

fn boot(memory: &[Range<Gpa>]) -> Boot<'_> {
    Boot {
        memory,
        command_line: "quiet",
        on_bus: &[],
        initramfs: None,
        seed: &[0x5a; SEED],
    }
}

const MEMORY: [Range<Gpa>; 2] = [
    Gpa(0x4000_0000)..Gpa(0x5000_0000),
    Gpa(0x1_2340_0000)..Gpa(0x1_2360_0000),
];

#[test]
fn memory_and_what_is_in_it_are_named() {
    let initramfs = Gpa(0x1_2350_0000)..Gpa(0x1_2350_0123);
    let boot = Boot {
        initramfs: Some(&initramfs),
        ..boot(&MEMORY)
    };
    let tree = read(&write(&platform(1), &boot).unwrap());
    assert_eq!(
        longs(&tree, "/memory@40000000 reg"),
        [0x4000_0000, 0x1000_0000, 0x1_2340_0000, 0x20_0000]
    );
    assert_eq!(longs(&tree, "/chosen linux,initrd-start"), [0x1_2350_0000]);
    assert_eq!(longs(&tree, "/chosen linux,initrd-end"), [0x1_2350_0123]);
    assert_eq!(tree["/chosen bootargs"], b"quiet\0");
    // The serial port is where the kernel is told to find it.
    let console = std::str::from_utf8(&tree["/chosen stdout-path"]).unwrap();
    let console = format!("{} compatible", console.trim_end_matches('\0'));
    assert_eq!(tree[&console], b"ns16550a\0");
}

#[test]
fn every_cpu_has_the_number_that_kvm_gives_it() {
    let tree = read(&write(&platform(32), &boot(&MEMORY)).unwrap());
    let found: Vec<_> = tree
        .keys()
        .filter(|name| name.starts_with("/cpus/cpu@") && name.ends_with(" reg"))
        .map(|name| cells(&tree, name)[0])
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let expected: Vec<u32> = (0..16).chain(0x100..0x110).collect();
    assert_eq!(found, expected);
}

#[test]
fn windows_are_the_same_on_the_bus_and_for_the_cpu() {
    let tree = read(&write(&platform(1), &boot(&MEMORY)).unwrap());
    let ports = [0x100_0000, 0, 0, 0x70, 0x70_0000, 0, 0x1_0000];
    let low = [0x200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000];
    let high = [0x300_0000, 0x80, 0, 0x80, 0, 0x80, 0];
    assert_eq!(
        cells(&tree, "/pcie@7000800000 ranges"),
        [ports, low, high].concat()
    );
}

#[test]
fn every_pin_of_every_device_has_the_line_that_the_monitor_raises() {
    let tree = read(&write(&platform(1), &boot(&MEMORY)).unwrap());
    let map = cells(&tree, "/pcie@7000800000 interrupt-map");
    let mask = cells(&tree, "/pcie@7000800000 interrupt-map-mask");
    for device in 0..32_u8 {
        for pin in devices::pci::Pin::ALL {
            let unit = [u32::from(device) << 11, 0, 0, pin.register().into()];
            let masked: Vec<u32> = unit.iter().zip(&mask).map(|(a, b)| a & b).collect();
            let found: Vec<_> = map
                .chunks_exact(10)
                .filter(|entry| entry[..4] == masked)
                .collect();
            let gsi = INTX_GSIS[usize::from(pin.line(device))];
            assert_eq!(found.len(), 1, "{device} {pin:?}");
            assert_eq!(found[0][4..], [GIC, 0, 0, SHARED, gsi, HIGH]);
        }
    }
}

#[test]
fn the_power_registers_are_named() {
    let tree = read(&write(&platform(1), &boot(&MEMORY)).unwrap());
    assert_eq!(tree["/power@7000620000 compatible"], b"pinvisor,power\0");
    assert_eq!(longs(&tree, "/power@7000620000 reg"), [POWER.start.0, 4]);
}

#[test]
fn messages_go_to_the_its_with_the_requester_id() {
    let tree = read(&write(&platform(1), &boot(&MEMORY)).unwrap());
    let its = "/interrupt-controller@7000000000/msi-controller@7000080000";
    let phandle = cells(&tree, &format!("{its} phandle"))[0];
    assert_eq!(
        cells(&tree, "/pcie@7000800000 msi-map"),
        [0, phandle, 0, 0x1_0000]
    );
    assert_eq!(
        longs(&tree, &format!("{its} reg")),
        [layout::ITS.start.0, 0x2_0000]
    );
}

#[test]
fn a_gicv2_has_a_frame_for_messages() {
    let platform = Platform {
        gic: GicVersion::V2,
        ..platform(4)
    };
    let tree = read(&write(&platform, &boot(&MEMORY)).unwrap());
    let gic = "/interrupt-controller@7000000000";
    assert_eq!(tree[&format!("{gic} compatible")], b"arm,gic-400\0");
    // Distributor and CPU interface (bindings/interrupt-controller/arm,gic.yaml).
    assert_eq!(
        longs(&tree, &format!("{gic} reg")),
        [0x70_0000_0000, 0x1000, 0x70_0002_0000, 0x2000]
    );
    let frame = format!("{gic}/v2m@7000030000");
    assert_eq!(tree[&format!("{frame} compatible")], b"arm,gic-v2m-frame\0");
    assert!(tree.contains_key(&format!("{frame} msi-controller")));
    let phandle = cells(&tree, &format!("{frame} phandle"));
    assert_eq!(cells(&tree, "/pcie@7000800000 msi-parent"), phandle);
    assert!(!tree.contains_key("/pcie@7000800000 msi-map"));
    let numbers = ["arm,msi-base-spi", "arm,msi-num-spis"]
        .map(|name| cells(&tree, &format!("{frame} {name}"))[0]);
    assert_eq!(numbers, [64, 448]);
    // The timer's interrupts name the CPUs.
    assert_eq!(cells(&tree, "/timer interrupts")[..3], [PRIVATE, 13, 0xf04]);
    let v3 = Platform {
        gic: GicVersion::V3,
        ..platform
    };
    let tree = read(&write(&v3, &boot(&MEMORY)).unwrap());
    assert_eq!(cells(&tree, "/timer interrupts")[..3], [PRIVATE, 13, HIGH]);
}

#[test]
fn coherence_is_claimed_only_where_the_host_has_it() {
    let coherent = "/pcie@7000800000 dma-coherent";
    let mut platform = platform(1);
    let tree = |platform: &Platform| read(&write(platform, &boot(&MEMORY)).unwrap());
    assert!(tree(&platform).contains_key(coherent));
    platform.bus.as_mut().unwrap().is_coherent = false;
    assert!(!tree(&platform).contains_key(coherent));
}

#[test]
fn a_machine_without_a_bus_has_no_node_of_one() {
    let has_bus = |platform: &Platform| {
        let tree = read(&write(platform, &boot(&MEMORY)).unwrap());
        tree.keys().any(|property| property.starts_with("/pcie@"))
    };
    assert!(has_bus(&platform(1)));
    assert!(!has_bus(&Platform::new(1, GicVersion::V3, None)));
}

#[test]
fn random_bytes_are_used_once() {
    let seed: [u8; SEED] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let boot = Boot {
        seed: &seed,
        ..boot(&MEMORY)
    };
    let tree = read(&write(&platform(1), &boot).unwrap());
    let used = [&tree["/chosen kaslr-seed"][..], &tree["/chosen rng-seed"]].concat();
    assert_eq!(used, seed);
}

#[test]
fn the_tree_of_the_largest_machine_fits_its_place() {
    let memory: Vec<_> = (0..2048_u64)
        .map(|i| Gpa(i << 22)..Gpa((i << 22) + (1 << 21)))
        .collect();
    let on_bus = memory.iter().map(|range| BusWindow {
        cpu: range.clone(),
        bus: BusAddr(range.start.0 + (1 << 40)),
    });
    let on_bus: Vec<_> = on_bus.collect();
    let line = "x".repeat(layout::COMMAND_LINE_ROOM);
    let boot = Boot {
        command_line: &line,
        on_bus: &on_bus,
        ..boot(&memory)
    };
    let mut platform = platform(32);
    platform.bus.as_mut().unwrap().windows = vec![Gpa(0x1000_0000)..Gpa(0x1001_0000); 64];
    let blob = write(&platform, &boot).unwrap();
    assert!((blob.len() as u64) < ALIGNMENT, "{} bytes", blob.len());
}

#[test]
fn a_nul_on_the_command_line_is_refused() {
    let boot = Boot {
        command_line: "a\0b",
        ..boot(&MEMORY)
    };
    assert!(matches!(
        write(&platform(1), &boot),
        Err(Error::InvalidString)
    ));
}
