// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Config spaces of real hardware, as `lspci -xxxx` prints them. What the guest should see of each
//! follows from a separate walk.

use std::fs;
use std::path::PathBuf;

use devices::pci::{BarKind, BusWindows};
use devices::vfio_pci::{BusMasterGate, InterruptKind, Options, PassthroughFunction, SetupError};
use devices_testing::{DeviceImage, SimulatedHost};

use super::Bench;
use super::recorded::{attack, check_bars};

/// Capabilities, each with its place, in the order of the list.
type List = Vec<(u32, u16)>;

/// Kinds of which the guest sees the first.
const STANDARD: [u32; 10] = [0x01, 0x03, 0x05, 0x07, 0x09, 0x0d, 0x10, 0x11, 0x12, 0x13];
const EXTENDED: [u32; 5] = [0x01, 0x03, 0x04, 0x0b, 0x23];
/// A vendor's own, of which the guest sees all.
const VENDORS: [u32; 3] = [0x09, 0x0b, 0x23];

/// A recording: its name, its bytes, and the capabilities that its first lines list, which come from
/// `lspci`.
struct Recording {
    name: String,
    config: Vec<u8>,
    standard: List,
    extended: List,
}

fn recordings() -> Vec<Recording> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/configs/lspci");
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(read).collect()
}

fn read(path: &PathBuf) -> Recording {
    let text = fs::read_to_string(path).unwrap();
    let mut bytes = Vec::new();
    for line in text.lines() {
        let Some((offset, rest)) = line.split_once(": ") else {
            continue;
        };
        let values: Result<Vec<u8>, _> = rest
            .split_whitespace()
            .map(|word| u8::from_str_radix(word, 16))
            .collect();
        // Other lines have a colon too.
        if let (Ok(offset), Ok(values)) = (usize::from_str_radix(offset, 16), values) {
            assert_eq!(offset, bytes.len(), "{path:?}");
            bytes.extend(values);
        }
    }
    assert!(bytes.len() >= 256, "{path:?}");
    bytes.resize(if bytes.len() > 256 { 4096 } else { 256 }, 0);
    let listed = text
        .lines()
        .find_map(|line| line.strip_prefix("# capabilities: "));
    let (standard, extended) = listed
        .unwrap()
        .split_once(" | ext ")
        .unwrap_or((listed.unwrap(), ""));
    Recording {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        config: bytes,
        standard: parse_list(standard),
        extended: parse_list(extended),
    }
}

fn parse_list(text: &str) -> List {
    let one = |word: &str| {
        let (id, offset) = word.split_once('@').unwrap();
        let offset = u16::from_str_radix(offset, 16).unwrap();
        (u32::from_str_radix(id, 16).unwrap(), offset)
    };
    text.split_whitespace().map(one).collect()
}

impl Recording {
    fn dword(&self, offset: u16) -> u32 {
        let at = usize::from(offset);
        u32::from_le_bytes(self.config[at..at + 4].try_into().unwrap())
    }

    /// The lists as the bytes have them.
    fn walk(&self) -> (List, List) {
        let (mut standard, mut extended) = (List::new(), List::new());
        let is_new = |list: &List, at: u16| list.iter().all(|(_, seen)| *seen != at);
        let mut at = u16::from(self.config[0x34] & 0xfc);
        while at >= 0x40 && is_new(&standard, at) {
            let [id, next, ..] = self.dword(at).to_le_bytes();
            standard.push((id.into(), at));
            at = u16::from(next & 0xfc);
        }
        let mut at = 0x100;
        while self.config.len() > 256 && at >= 0x100 && is_new(&extended, at) {
            let header = self.dword(at);
            if header == 0 {
                break;
            }
            extended.push((header & 0xffff, at));
            at = u16::try_from(header >> 20 & 0xffc).unwrap();
        }
        (standard, extended)
    }

    /// With BARs as large as their addresses let them be, 1 MiB at the most.
    fn image(&self) -> DeviceImage {
        let mut image = DeviceImage::new(&self.name, 4096);
        image.config.clone_from(&self.config);
        image.info.config_size = u16::try_from(self.config.len()).unwrap();
        image.info.interrupts[InterruptKind::Intx].count = u16::from(self.config[0x3d] != 0);
        let mut index = 0;
        while index < 6 {
            let register = self.dword(0x10 + 4 * u16::from(index));
            let kind = BarKind::from_register(register);
            let (mut address, low, most) = match kind {
                BarKind::Io => (u64::from(register & !3), 4, 0x100),
                _ => (u64::from(register & !0xf), 16, 1 << 20),
            };
            let step = if matches!(kind, BarKind::Memory64 { .. }) && index < 5 {
                address |= u64::from(self.dword(0x14 + 4 * u16::from(index))) << 32;
                2
            } else {
                1
            };
            if address != 0 {
                let size = (1_u64 << address.trailing_zeros()).clamp(low, most);
                image = image.bar(index, kind, size, address);
            }
            index += step;
        }
        image
    }

    /// What a guest should see of the two lists.
    fn shown(&self, image: &DeviceImage) -> (List, List) {
        let (standard, extended) = self.walk();
        let first_of = |list: &List, at: usize| {
            let (id, _) = list[at];
            VENDORS.contains(&id) || list[..at].iter().all(|(other, _)| *other != id)
        };
        let keep = |list: List, known: &[u32]| -> List {
            let numbered = (0..).zip(list.clone());
            let kept = numbered.filter(|(at, (id, _))| known.contains(id) && first_of(&list, *at));
            kept.map(|(_, one)| one).collect()
        };
        let mut standard = keep(standard, &STANDARD);
        standard.retain(|(id, at)| *id != 0x11 || self.has_table(image, *at));
        (standard, keep(extended, &EXTENDED))
    }

    /// Whether the MSI-X table is inside its BAR.
    fn has_table(&self, image: &DeviceImage, at: u16) -> bool {
        let (control, table) = (self.dword(at) >> 16 & 0x7ff, self.dword(at + 4));
        let end = u64::from(table & !7) + 16 * (u64::from(control) + 1);
        let bar = image.info.bars.get((table & 7) as usize);
        bar.is_some_and(|bar| bar.host_address.is_some() && end <= bar.size)
    }
}

/// Those that answer; one does not.
fn answering() -> Vec<Recording> {
    let mut all = recordings();
    assert_eq!(all.len(), 40);
    all.retain(|recording| recording.config[..2] != [0xff, 0xff]);
    assert_eq!(all.len(), 39);
    all
}

#[test]
fn the_walk_finds_what_lspci_lists() {
    for recording in answering() {
        let (standard, extended) = recording.walk();
        assert_eq!(standard, recording.standard, "{}", recording.name);
        // One has a pointer to an odd address, which Linux and the walk round down and lspci does not.
        let odd = |(_, at): &(u32, u16)| !at.is_multiple_of(4);
        let sound = recording.extended.iter().position(odd);
        let sound = sound.unwrap_or(extended.len());
        assert_eq!(
            extended[..sound],
            recording.extended[..sound],
            "{}",
            recording.name
        );
    }
}

#[test]
fn a_device_that_fell_off_the_bus_is_refused() {
    let mut dead = recordings();
    dead.retain(|recording| recording.config[..2] == [0xff, 0xff]);
    let mut image = DeviceImage::new("dead", 256);
    image.config.clone_from(&dead[0].config);
    let (host, _) = SimulatedHost::new(image, None);
    let options = Options {
        bus_master: BusMasterGate::opened(),
        interrupt_line: 0,
        bus_windows: BusWindows::default(),
        on_failure: Box::new(|_| {}),
    };
    let refused = PassthroughFunction::new(host, options);
    assert!(matches!(refused, Err(SetupError::Silent { .. })));
}

#[test]
fn the_right_capabilities_are_shown() {
    for recording in answering() {
        let image = recording.image();
        let (standard, extended) = recording.shown(&image);
        let mut bench = Bench::new(image);
        assert_eq!(bench.capabilities(), standard, "{}", recording.name);
        if recording.config.len() > 256 {
            assert_eq!(bench.extended(), extended, "{}", recording.name);
        }
        assert_eq!(bench.read(0, 4), recording.dword(0), "{}", recording.name);
        assert_eq!(bench.read(8, 4), recording.dword(8), "{}", recording.name);
        assert_eq!(bench.read(4, 2), 0, "{}", recording.name);
    }
}

#[test]
fn bars_are_sized_and_decoded() {
    for recording in answering() {
        check_bars(&recording.name, recording.image());
    }
}

#[test]
fn no_write_breaks_a_rule() {
    for recording in answering() {
        attack(&recording.name, &recording.image());
    }
}
