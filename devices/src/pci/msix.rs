// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! MSI-X: table, masks and control register (PCI 3.0, section 6.8.2).

use std::ops::Range;

use pci_config::regs::{MSIX_ENABLE, MSIX_FUNCTION_MASK};
use pci_config::{MsixControl, MsixLocation};

use super::access::DwordWrite;
use super::msi::MsiMessage;

/// Bytes of one table entry.
pub const ENTRY_SIZE: u64 = 16;
/// Most vectors a function can have.
pub const MAX_VECTORS: u16 = 2048;

const VECTOR_MASKED: u32 = 1;

#[derive(Clone, Copy, Debug)]
struct Entry {
    message: MsiMessage,
    masked: bool,
}

/// At reset every vector is masked.
const RESET_ENTRY: Entry = Entry {
    message: MsiMessage {
        address: 0,
        data: 0,
    },
    masked: true,
};

/// The state that a guest programs to get MSI-X interrupts.
#[derive(Clone, Debug)]
pub struct Msix {
    entries: Vec<Entry>,
    enabled: bool,
    function_masked: bool,
}

impl Msix {
    /// A table of `vectors` entries, 1 to [`MAX_VECTORS`]; more are cut off.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        Self {
            entries: vec![RESET_ENTRY; usize::from(vectors.clamp(1, MAX_VECTORS))],
            enabled: false,
            function_masked: false,
        }
    }

    /// Entries in the table.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        u16::try_from(self.entries.len()).unwrap_or(MAX_VECTORS)
    }

    /// The Message Control register.
    #[must_use]
    pub fn control(&self) -> u16 {
        let bit = |set, bit| if set { bit } else { 0 };
        (self.vectors() - 1)
            | bit(self.enabled, MSIX_ENABLE)
            | bit(self.function_masked, MSIX_FUNCTION_MASK)
    }

    /// Writes the Message Control register.
    pub fn set_control(&mut self, control: u16) {
        self.enabled = control & MSIX_ENABLE != 0;
        self.function_masked = control & MSIX_FUNCTION_MASK != 0;
    }

    /// Whether the guest has turned MSI-X on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// What `vector` sends when it is raised now; `None` while it is masked or MSI-X is off.
    #[must_use]
    pub fn message(&self, vector: u16) -> Option<MsiMessage> {
        let entry = self.entries.get(usize::from(vector))?;
        (self.enabled && !self.function_masked && !entry.masked).then_some(entry.message)
    }

    /// Reads the table at byte `offset`, naturally aligned and at most 8 bytes. Past the end:
    /// all-ones.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        let within = usize::try_from(offset % ENTRY_SIZE).unwrap_or(0);
        let Some(bytes) = self.entry_bytes(offset) else {
            data.fill(0xff);
            return;
        };
        match bytes.get(within..within + data.len()) {
            Some(part) => data.copy_from_slice(part),
            None => data.fill(0xff),
        }
    }

    /// Writes the table at byte `offset`, naturally aligned and at most 8 bytes; returns the
    /// vector it belongs to. Past the end: dropped.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) -> Option<u16> {
        let within = usize::try_from(offset % ENTRY_SIZE).ok()?;
        let mut bytes = self.entry_bytes(offset)?;
        bytes
            .get_mut(within..within + data.len())?
            .copy_from_slice(data);
        let vector = u16::try_from(offset / ENTRY_SIZE).ok()?;
        self.entries[usize::from(vector)] = entry_from(bytes);
        Some(vector)
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.entries.fill(RESET_ENTRY);
        self.enabled = false;
        self.function_masked = false;
    }

    fn entry_bytes(&self, offset: u64) -> Option<[u8; 16]> {
        let entry = self
            .entries
            .get(usize::try_from(offset / ENTRY_SIZE).ok()?)?;
        let control = if entry.masked { VECTOR_MASKED } else { 0 };
        let value = u128::from(entry.message.address)
            | u128::from(entry.message.data) << 64
            | u128::from(control) << 96;
        Some(value.to_le_bytes())
    }
}

fn entry_from(bytes: [u8; 16]) -> Entry {
    let [a0, a1, a2, a3, a4, a5, a6, a7, d0, d1, d2, d3, control, ..] = bytes;
    Entry {
        message: MsiMessage {
            // Bits 1:0 are not part of the address; guests write them as 0.
            address: u64::from_le_bytes([a0 & !3, a1, a2, a3, a4, a5, a6, a7]),
            data: u32::from_le_bytes([d0, d1, d2, d3]),
        },
        masked: u32::from(control) & VECTOR_MASKED != 0,
    }
}

/// A structure of the capability inside a BAR: the table or the pending bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The BAR.
    pub bar: u8,
    /// Byte range in it.
    pub range: Range<u64>,
}

/// The contents of the MSI-X capability's registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MsixLayout {
    /// Entries in the table.
    pub vectors: u16,
    /// Where the table is.
    pub table: Placement,
    /// Where the pending bits are.
    pub pending: Placement,
}

impl MsixLayout {
    /// Decodes the capability's three dwords.
    #[must_use]
    pub fn parse(dwords: [u32; 3]) -> Self {
        let [header, table, pending] = dwords;
        let [_, _, low, high] = header.to_le_bytes();
        let vectors = MsixControl(u16::from_le_bytes([low, high])).vectors();
        let place = |register: u32, size: u64| {
            let location = MsixLocation(register);
            let start = u64::from(location.offset());
            Placement {
                bar: location.bar(),
                range: start..start + size,
            }
        };
        Self {
            vectors,
            table: place(table, u64::from(vectors) * ENTRY_SIZE),
            pending: place(pending, u64::from(vectors).div_ceil(64) * 8),
        }
    }
}

/// Message Control as the capability's first dword carries it.
pub(crate) fn control_write(msix: &Msix, write: DwordWrite) -> u16 {
    let [_, _, low, high] = write.merge(u32::from(msix.control()) << 16).to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dword(msix: &Msix, offset: u64) -> u32 {
        let mut data = [0; 4];
        msix.read_table(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn entries_are_read_and_written_at_every_width() {
        let mut msix = Msix::new(4);
        assert_eq!(
            msix.write_table(16, &0x1234_fee0_1003_u64.to_le_bytes()),
            Some(1)
        );
        assert_eq!(msix.write_table(24, &0x4021_u32.to_le_bytes()), Some(1));
        assert_eq!(dword(&msix, 16), 0xfee0_1000, "bits 1:0 read as 0");
        assert_eq!(dword(&msix, 20), 0x1234);
        assert_eq!(dword(&msix, 24), 0x4021);
        assert_eq!(dword(&msix, 28), 1, "masked from the start");
        assert_eq!(msix.write_table(28, &[0xfe]), Some(1));
        assert_eq!(dword(&msix, 28), 0, "reserved bits read as 0");
        let mut wide = [0; 8];
        msix.read_table(24, &mut wide);
        assert_eq!(u64::from_le_bytes(wide), 0x4021);
        assert_eq!(msix.write_table(25, &[0x50]), Some(1));
        assert_eq!(dword(&msix, 24), 0x5021);
        assert_eq!(dword(&msix, 0), 0, "neighbours untouched");
    }

    #[test]
    fn nothing_is_behind_the_table() {
        let mut msix = Msix::new(3);
        assert_eq!(msix.write_table(48, &[0; 4]), None);
        assert_eq!(msix.write_table(!7, &[0; 8]), None);
        assert_eq!(dword(&msix, 48), u32::MAX);
    }

    #[test]
    fn a_vector_delivers_only_with_all_masks_off() {
        for bits in 0..8 {
            let (enabled, function_masked, masked) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            let mut msix = Msix::new(2);
            msix.write_table(28, &u32::from(masked).to_le_bytes());
            let mut control = 0;
            if enabled {
                control |= MSIX_ENABLE;
            }
            if function_masked {
                control |= MSIX_FUNCTION_MASK;
            }
            msix.set_control(control);
            assert_eq!(msix.control(), control | 1);
            let delivers = enabled && !function_masked && !masked;
            assert_eq!(msix.message(1).is_some(), delivers, "{bits:#b}");
            assert_eq!(msix.message(0), None);
        }
    }

    #[test]
    fn the_capability_names_table_and_pending_bits() {
        let layout = MsixLayout::parse([0x8040_0011, 0x2004, 0x3003]);
        assert_eq!(layout.vectors, 65);
        assert_eq!(
            layout.table,
            Placement {
                bar: 4,
                range: 0x2000..0x2410
            }
        );
        assert_eq!(
            layout.pending,
            Placement {
                bar: 3,
                range: 0x3000..0x3010
            }
        );
        let largest = MsixLayout::parse([0x07ff_0011, !0, !0]);
        assert_eq!(largest.vectors, 2048);
        assert_eq!(largest.table.range.end, 0xffff_fff8 + 0x8000);
        assert_eq!(Msix::new(largest.vectors).control(), 0x7ff);
    }
}
