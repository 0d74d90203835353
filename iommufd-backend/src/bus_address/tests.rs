// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Recorded and made-up config spaces.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::*;
use crate::pci_sysfs::RegionKind;

/// Config space from lines `OFFSET: BYTE ...` in hexadecimal; zeros where there are none.
fn config(text: &str) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    for line in text.lines() {
        let Some((offset, values)) = line.split_once(": ") else {
            continue;
        };
        let Ok(offset) = usize::from_str_radix(offset, 16) else {
            continue;
        };
        for (byte, value) in bytes[offset..].iter_mut().zip(values.split(' ')) {
            *byte = u8::from_str_radix(value, 16).unwrap();
        }
    }
    bytes
}

/// A network interface with virtual functions, as lspci shows its config space (pciutils,
/// tests/cap-pcie-2): BAR0, BAR1 and BAR3 are memory, BAR2 is ports.
const PHYSICAL: &str = "\
00: 86 80 c9 10 07 04 10 00 01 00 00 02 10 00 80 00
10: 00 00 80 e0 00 00 00 e0 21 10 00 00 00 00 84 e0
100: 01 00 01 14 00 00 00 00 00 00 00 00 30 20 06 00
140: 03 00 01 15 00 00 00 00 00 00 00 00 00 00 00 00
150: 0e 00 01 16 00 00 00 00 00 00 00 00 00 00 00 00
160: 10 00 01 00 00 00 00 00 09 00 00 00 08 00 08 00
170: 01 00 00 00 80 01 02 00 00 00 ca 10 53 05 00 00
180: 01 00 00 00 04 00 84 d2 00 00 00 00 00 00 00 00
190: 04 00 86 d2 00 00 00 00 00 00 00 00 00 00 00 00
";

const NONE: &str = "0x0 0x0 0x0\n";

struct Tree {
    root: tempfile::TempDir,
    sysfs: PciSysfs,
}

impl Tree {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let sysfs = PciSysfs::at(root.path());
        Self { root, sysfs }
    }

    fn path(&self, bdf: &str) -> PathBuf {
        self.root.path().join("bus/pci/devices").join(bdf)
    }

    fn function(&self, bdf: &str, config: &[u8], resource: &str) {
        fs::create_dir_all(self.path(bdf)).unwrap();
        fs::write(self.path(bdf).join("config"), config).unwrap();
        fs::write(self.path(bdf).join("resource"), resource).unwrap();
    }

    fn virtual_function(&self, bdf: &str, physical: &str, resource: &str) {
        self.function(bdf, &[0; 4096], resource);
        symlink(format!("../{physical}"), self.path(bdf).join("physfn")).unwrap();
    }

    fn translated(&self, bdf: &str) -> Option<TranslatedBar> {
        self.sysfs
            .translated_bar(bdf.parse().unwrap(), BusAddr::identity)
            .unwrap()
    }
}

/// What is translated in a function of this config space and `resource` file.
fn translated(config: &[u8], resource: &str) -> Option<TranslatedBar> {
    let tree = Tree::new();
    tree.function("0000:01:00.0", config, resource);
    tree.translated("0000:01:00.0")
}

const PHYSICAL_RESOURCE: &str = "\
0xe0800000 0xe081ffff 0x40200
0xe0000000 0xe03fffff 0x40200
0x1020 0x103f 0x40101
0xe0840000 0xe0843fff 0x40200
";

#[test]
fn recorded_devices_have_one_address_for_each_bar() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../devices/tests/configs");
    let mut compared = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("0x"));
        let resource: String = lines.map(|line| format!("{line}\n")).collect();
        let config = config(&text);
        assert_eq!(translated(&config, &resource), None, "{}", path.display());
        compared += function_bars(&config).iter().flatten().count();
    }
    assert!(compared > 20, "{compared} BARs");
    assert_eq!(translated(&config(PHYSICAL), PHYSICAL_RESOURCE), None);
}

#[test]
fn every_memory_bar_is_compared() {
    let config = config(PHYSICAL);
    for (bar, bus) in
        [(0, 0xe080_0000), (1, 0xe000_0000), (3, 0xe084_0000)].map(|(bar, bus)| (bar, BusAddr(bus)))
    {
        let moved = PHYSICAL_RESOURCE.replace(&format!("{bus:#x} "), "0x10000000 ");
        let cpu = Hpa(0x1000_0000);
        let found = translated(&config, &moved);
        assert_eq!(found, Some(TranslatedBar { bar, bus, cpu }));
    }
    // Ports are not memory.
    let ports = PHYSICAL_RESOURCE.replace("0x1020 ", "0x1000 ");
    assert_eq!(translated(&config, &ports), None);
}

#[test]
fn wide_bars_have_two_registers() {
    let wide = config("10: 0c 00 00 00 00 38 00 00 00 00 10 c0 00 00 00 00\n");
    let at = |first: &str| format!("{first}{NONE}0xc0100000 0xc0100fff 0x40200\n");
    let right = at("0x380000000000 0x380000003fff 0x14220c\n");
    assert_eq!(translated(&wide, &right), None);
    let low = at("0x0 0x3fff 0x2014220c\n");
    assert_eq!(translated(&wide, &low), None, "no place on the CPU's side");
    let bus = BusAddr(0x3800_0000_0000);
    let cpu = Hpa(0x1_0000_0000);
    let other = at("0x100000000 0x100003fff 0x14220c\n");
    assert_eq!(
        translated(&wide, &other),
        Some(TranslatedBar { bar: 0, bus, cpu })
    );
    // The last BAR has no register behind it.
    let last = config("20: 00 00 00 00 04 00 10 c0\n");
    let resource = format!("{}0xc0100000 0xc0100fff 0x40200\n", NONE.repeat(5));
    assert_eq!(translated(&last, &resource), None);
}

#[test]
fn what_has_no_address_on_the_bus_is_left_out() {
    // Enhanced Allocation: the BARs are 0 (pciutils, tests/cap-ea-1).
    let enhanced = config("00: 7d 17 1e a0 06 00 10 00 08 00 00 02 00 00 00 00\n");
    let resource = "0x843000000000 0x8430001fffff 0x140204\n";
    assert_eq!(translated(&enhanced, resource), None);
    assert_eq!(translated(&[0xff; 4096], resource), None, "no response");
    assert_eq!(translated(&[], resource), None);
    let mut bridge = config(PHYSICAL);
    bridge[0x0e] = 1;
    assert_eq!(translated(&bridge, resource), None);
}

/// The second virtual function of [`PHYSICAL`], whose BARs are 0 and 3.
fn second(first: u64, third: u64) -> String {
    let bar = |start: u64| format!("{start:#x} {:#x} 0x140204\n", start + 0x3fff);
    format!("{}{NONE}{NONE}{}", bar(first), bar(third))
}

#[test]
fn virtual_functions_follow_one_another_in_the_physical_ones_bars() {
    let tree = Tree::new();
    tree.function("0000:01:00.0", &config(PHYSICAL), PHYSICAL_RESOURCE);
    let add = |bdf, resource: &str| tree.virtual_function(bdf, "0000:01:00.0", resource);
    // First offset 0x180, stride 2.
    add("0000:02:10.0", &second(0xd284_0000, 0xd286_0000));
    add("0000:02:10.2", &second(0xd284_4000, 0xd286_4000));
    add("0000:02:10.4", &second(0xd284_8000, 0xd286_4000));
    assert_eq!(tree.translated("0000:01:00.0"), None);
    assert_eq!(tree.translated("0000:02:10.0"), None);
    assert_eq!(tree.translated("0000:02:10.2"), None);
    let (bus, cpu) = (BusAddr(0xd286_8000), Hpa(0xd286_4000));
    assert_eq!(
        tree.translated("0000:02:10.4"),
        Some(TranslatedBar { bar: 3, bus, cpu })
    );
    // Between two, and before all: these are not the physical function's.
    for bdf in ["0000:02:10.1", "0000:01:00.1"] {
        add(bdf, &second(0xd000_0000, 0xd100_0000));
        assert_eq!(tree.translated(bdf), None);
    }
}

#[test]
fn without_the_physical_functions_capability_nothing_is_compared() {
    let tree = Tree::new();
    let far = second(0xd000_0000, 0xd100_0000);
    tree.virtual_function("0000:02:10.0", "0000:01:00.0", &far);
    let without = |config: &[u8]| {
        tree.function("0000:01:00.0", config, PHYSICAL_RESOURCE);
        tree.translated("0000:02:10.0")
    };
    assert!(without(&config(PHYSICAL)).is_some());
    // What every user may read, a list that runs in circles, and unassigned BARs.
    assert_eq!(without(&config(PHYSICAL)[..64]), None);
    let circle = PHYSICAL.replace("150: 0e 00 01 16", "150: 0e 00 01 14");
    assert_eq!(without(&config(&circle)), None);
    let unset = PHYSICAL.replace("04 00 84 d2", "04 00 00 00");
    let unset = unset.replace("04 00 86 d2", "04 00 00 00");
    assert_eq!(without(&config(&unset)), None);
    fs::remove_file(tree.path("0000:02:10.0").join("physfn")).unwrap();
    symlink("../elsewhere", tree.path("0000:02:10.0").join("physfn")).unwrap();
    let odd = tree
        .sysfs
        .translated_bar("0000:02:10.0".parse().unwrap(), BusAddr::identity);
    assert!(matches!(odd, Err(Error::Parse { .. })));
}

#[test]
fn what_a_host_bridge_does_is_expected() {
    // Raspberry Pi 4: 24 GiB for the CPU is 3 GiB on the bus.
    let mut config = [0; 64];
    config[0x10..0x14].copy_from_slice(&0xc010_0000_u32.to_le_bytes());
    let resource = Resource {
        kind: RegionKind::Memory,
        start: Some(0x6_0010_0000),
        size: 0x4000,
    };
    let found = |offset: u64| {
        let expected = |cpu| BusAddr::with_offset(cpu, offset);
        compare(function_bars(&config), &[Some(resource); 7], expected)
    };
    assert_eq!(found(0xc000_0000_u64.wrapping_sub(0x6_0000_0000)), None);
    let moved = found(0).unwrap();
    assert_eq!(
        (moved.bus, moved.cpu),
        (BusAddr(0xc010_0000), Hpa(0x6_0010_0000))
    );
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600), bdf: u16, physical: u16,
        size: u64, start: u64,
    ) {
        let resource = Resource { kind: RegionKind::Memory, start: Some(start), size };
        let name = |id: u16| Bdf::new(0, (id >> 8) as u8, (id >> 3 & 31) as u8, (id & 7) as u8).unwrap();
        compare(function_bars(&bytes), &[Some(resource); 7], BusAddr::identity);
        let mut bytes = bytes;
        if let Some(capability) = bytes.get_mut(0x100..0x102) {
            capability.copy_from_slice(&EXT_CAP_SRIOV.to_le_bytes());
        }
        virtual_bars(&bytes, name(physical), name(bdf), &[Some(resource); 7]);
    }
}
