// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The whole function against a simulated device.

#![expect(clippy::unwrap_used, reason = "a test")]

mod bus_windows;
mod config;
mod dropped;
mod faults;
mod hardware;
mod interrupts;
mod memory;
mod msix_page;
mod recorded;
mod resets;
mod vectors;

use std::sync::{Arc, Mutex};

use devices::pci::{BusWindows, PciFunction, Region};
use devices::vfio_pci::{BusMasterGate, Options, PassthroughFunction};
use devices_testing::{Call, DeviceImage, SimulatedHost, Witness};

const MEMORY: u16 = 2;
const BUS_MASTER: u16 = 4;
const INTX_DISABLE: u16 = 1 << 10;

/// A function, its device, and what it reported. Checks at its end that no rule was broken.
struct Bench {
    function: PassthroughFunction<SimulatedHost>,
    witness: Witness,
    gate: BusMasterGate,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn new(image: DeviceImage) -> Self {
        Self::with_gate(image, BusMasterGate::opened())
    }

    fn with_gate(image: DeviceImage, gate: BusMasterGate) -> Self {
        let (host, witness) = SimulatedHost::new(image, Some(gate.clone()));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let seen = failures.clone();
        let options = Options {
            bus_master: gate.clone(),
            interrupt_line: 10,
            bus_windows: BusWindows::default(),
            on_failure: Box::new(move |failure| seen.lock().unwrap().push(failure.to_string())),
        };
        let function = PassthroughFunction::new(host, options).unwrap();
        let bench = Self {
            function,
            witness,
            gate,
            failures,
        };
        let _ = bench.calls();
        bench
    }

    fn read(&mut self, offset: u16, length: usize) -> u32 {
        let mut bytes = [0; 4];
        self.function.config_read(offset, &mut bytes[..length]);
        u32::from_le_bytes(bytes)
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        self.function.config_write(offset, data);
    }

    fn command(&mut self, command: u16) {
        self.write(4, &command.to_le_bytes());
    }

    fn bar_read(&mut self, bar: u8, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.function.bar_read(Region::Bar(bar), offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn bar_write(&mut self, bar: u8, offset: u64, value: u32) {
        self.function
            .bar_write(Region::Bar(bar), offset, &value.to_le_bytes());
    }

    fn calls(&self) -> Vec<Call> {
        self.witness.take_calls()
    }

    fn failures(&self) -> Vec<String> {
        std::mem::take(&mut self.failures.lock().unwrap())
    }

    /// IDs and offsets of the capabilities that the guest sees.
    fn capabilities(&mut self) -> Vec<(u32, u16)> {
        let mut found = Vec::new();
        let mut at = u16::try_from(self.read(0x34, 1)).unwrap();
        while at != 0 {
            assert!(at >= 0x40 && at.is_multiple_of(4) && found.len() < 48);
            found.push((self.read(at, 1), at));
            at = u16::try_from(self.read(at + 1, 1)).unwrap();
        }
        found
    }

    /// The same in extended config space.
    fn extended(&mut self) -> Vec<(u32, u16)> {
        let mut found = Vec::new();
        let mut at = 0x100;
        while at != 0 {
            let header = self.read(at, 4);
            assert_ne!(header, u32::MAX);
            assert!(at >= 0x100 && found.len() < 960);
            if header & 0xffff != 0 {
                found.push((header & 0xffff, at));
            }
            at = u16::try_from(header >> 20).unwrap();
        }
        found
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.witness.violations(), Vec::<String>::new());
        }
    }
}

fn config_write(offset: u16, value: u16) -> Call {
    Call::ConfigWrite {
        offset,
        data: value.to_le_bytes().to_vec(),
    }
}
