// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mediation as guests and profiles meet it.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test")]

mod bits;
mod checks;
mod config;
mod generated;
mod hostile;
mod numbers;
mod profile;
mod registers;
mod rules;
mod shown;

use address::{Gpa, Hpa};
use devices::mediate::{MediatedFunction, Options, Profile, Reason, Run, Statistics};
use devices::pci::{BarKind, Region};
use devices::vfio_pci::{HostFunction, RegionInfo};
use devices_testing::{Call, DeviceImage, SimulatedHost, Witness};

/// Where the guest's memory is, and how far its host addresses are from there.
const RAM: std::ops::Range<u64> = 0x10_0000..0x20_0000;
const SHIFT: u64 = 0x7000_0000;

const BAR: Region = Region::Bar(0);

/// A device with two address registers, a length, and a command with start and direction.
const PROFILE: &str = r#"
version = 1
name = "test"
devices = [{ vendor = 0x1234, device = 0xabcd }]
descriptors_in_memory = false
refusal = "drop"

[[register]]
name = "source"
bar = 0
offset = 0x10
width = 8

[[register]]
name = "destination"
bar = 0
offset = 0x18
width = 8

[[register]]
name = "length"
bar = 0
offset = 0x20
width = 4

[[register]]
name = "command"
bar = 0
offset = 0x24
width = 4

[[transfer]]
name = "dma"
source = "source"
destination = "destination"
length = { register = "length" }
direction = { register = "command", mask = 0x100, to_memory = 0x100, from_memory = 0 }
start = { register = "command", mask = 1, value = 1 }
busy = { register = "command", mask = 1, value = 1 }
max_length = 0x1000
address_bits = 40
window = { start = 0x8000, length = 0x1000 }
"#;

/// [`PROFILE`] with pieces replaced, each of which must be there.
fn profile(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(PROFILE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}

struct Device {
    function: MediatedFunction<SimulatedHost>,
    witness: Witness,
    /// Why the monitor was asked to stop.
    stops: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

/// The device's side of BARs 0 and 1, 64 KiB each.
fn image() -> DeviceImage {
    let kind = BarKind::Memory32 {
        prefetchable: false,
    };
    let mut image = DeviceImage::new("test", 256)
        .bar(0, kind, 0x10000, 0xfe00_0000)
        .bar(1, kind, 0x10000, 0xfe01_0000);
    image.config[4] = 2;
    image
}

fn translate(gpa: Gpa, length: u64) -> Option<Run> {
    RAM.contains(&gpa.0).then(|| Run {
        hpa: Hpa(gpa.0 + SHIFT),
        len: length.min(RAM.end - gpa.0),
    })
}

impl Device {
    fn new(profile: &str) -> Self {
        Self::with(profile, image())
    }

    fn with(profile: &str, image: DeviceImage) -> Self {
        let (host, witness) = SimulatedHost::new(image, None);
        let stops = std::sync::Arc::default();
        let told = std::sync::Arc::clone(&stops);
        let options = Options {
            translate: Box::new(translate),
            on_stop: Box::new(move |failure| {
                let told: &std::sync::Mutex<Vec<String>> = &told;
                told.lock().unwrap().push(failure.to_string());
            }),
        };
        let profile = Profile::parse("test", profile).unwrap();
        let function = MediatedFunction::new(host, profile, options).unwrap();
        drop(witness.take_all_calls());
        Self {
            function,
            witness,
            stops,
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.function.region_write(BAR, offset, data).unwrap();
    }

    fn write32(&mut self, offset: u64, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }

    fn write64(&mut self, offset: u64, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }

    fn read<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut data = [0xaa; N];
        self.function.region_read(BAR, offset, &mut data).unwrap();
        data
    }

    fn read64(&mut self, offset: u64) -> u64 {
        u64::from_le_bytes(self.read(offset))
    }

    fn read32(&mut self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read(offset))
    }

    /// Registers of [`PROFILE`], the last of which may start.
    fn program(&mut self, source: u64, destination: u64, length: u32, command: u32) {
        self.write64(0x10, source);
        self.write64(0x18, destination);
        self.write32(0x20, length);
        self.write32(0x24, command);
    }

    /// The stores that the device has seen since the last time.
    fn stores(&self) -> Vec<(u64, Vec<u8>)> {
        let stores = self
            .witness
            .take_calls()
            .into_iter()
            .map(|call| match call {
                Call::RegionWrite { offset, data, .. } => (offset, data),
                other => panic!("{other:?}"),
            });
        stores.collect()
    }

    fn counts(&self) -> Statistics {
        self.function.counters().read()
    }

    fn refusal(&self) -> Option<Reason> {
        self.counts().last_refusal.map(|refusal| refusal.reason)
    }
}

fn store64(offset: u64, value: u64) -> (u64, Vec<u8>) {
    (offset, value.to_le_bytes().to_vec())
}

fn store32(offset: u64, value: u32) -> (u64, Vec<u8>) {
    (offset, value.to_le_bytes().to_vec())
}
