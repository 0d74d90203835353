// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An entry of `ranges` or `dma-ranges`: an address on a bus, one of the bus above, and a length.

use address::{BusAddr, Hpa};

use crate::facts::bus_range::BusRange;

/// What an address on a PCI bus is for, by two bits of its first cell (PCI Bus Binding 2.1, section 2.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Memory, or a bus that has nothing else.
    Memory,
    /// I/O ports or config space.
    Other,
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressRange {
    pub kind: Kind,
    /// First address on the bus.
    pub bus: u64,
    /// First address of the same for the CPU.
    pub cpu: u64,
    /// Bytes.
    pub len: u64,
}

impl AddressRange {
    /// The same with the kinds of its addresses.
    pub fn addresses(&self) -> BusRange {
        BusRange {
            cpu: Hpa(self.cpu)..Hpa(self.cpu.saturating_add(self.len)),
            bus: BusAddr(self.bus),
        }
    }

    /// What `address` on the bus is above it.
    pub fn translate(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.bus)?;
        (offset < self.len).then(|| self.cpu.checked_add(offset))?
    }
}

/// Cells of 32 bits that each part of an entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Widths {
    pub bus: usize,
    pub cpu: usize,
    pub len: usize,
}

/// Cells of an address on a PCI bus, of which the first is no part of the number.
const PCI_CELLS: usize = 3;

impl Widths {
    /// The entries in `bytes`; `None` if they are not whole, or their parts have more than 64 bits.
    pub fn read(self, bytes: &[u8]) -> Option<Vec<AddressRange>> {
        let is_sane = (1..=PCI_CELLS).contains(&self.bus)
            && (1..=2).contains(&self.cpu)
            && (1..=2).contains(&self.len);
        let size = 4 * self.bus.checked_add(self.cpu)?.checked_add(self.len)?;
        if !is_sane || !bytes.len().is_multiple_of(size) {
            return None;
        }
        let entries = bytes.chunks_exact(size);
        Some(entries.map(|entry| self.entry(entry)).collect())
    }

    fn entry(self, entry: &[u8]) -> AddressRange {
        let (bus, rest) = entry.split_at(4 * self.bus);
        let (cpu, len) = rest.split_at(4 * self.cpu);
        let (kind, bus) = match bus.split_first_chunk::<4>() {
            Some((space, address)) if self.bus == PCI_CELLS => (kind(*space), address),
            _ => (Kind::Memory, bus),
        };
        AddressRange {
            kind,
            bus: number(bus),
            cpu: number(cpu),
            len: number(len),
        }
    }
}

fn kind(space: [u8; 4]) -> Kind {
    // Memory of 32 bits, and of 64.
    match space[0] & 3 {
        2 | 3 => Kind::Memory,
        _ => Kind::Other,
    }
}

/// At most eight bytes as a number.
fn number(bytes: &[u8]) -> u64 {
    let shift = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    bytes.iter().fold(0, shift)
}
