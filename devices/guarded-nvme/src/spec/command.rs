// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Submission queue entries (Base 4.1.1): a guest's, as read, and the monitor's, as rebuilt.

use address::Hpa;

use crate::bits::{byte, high32, join16, join32, low16, low32, upper16};

/// Bytes of a submission queue entry: CC.IOSQES is 6.
pub const ENTRY_BYTES: usize = 64;

/// A command dword that is specific to its opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cdw {
    /// Command Dword 10.
    D10 = 10,
    /// Command Dword 11.
    D11 = 11,
    /// Command Dword 12.
    D12 = 12,
    /// Command Dword 13.
    D13 = 13,
    /// Command Dword 14.
    D14 = 14,
}

/// The monitor's copy of one of the guest's entries.
///
/// The guest can change its entry at any time, so it is read once, whole, and nothing but this copy is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry([u64; 8]);

impl Entry {
    /// The entry of these words, in the order of memory.
    #[must_use]
    pub const fn new(words: [u64; 8]) -> Self {
        Self(words)
    }

    /// The entry of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = crate::bits::word64(bytes, 0);
        }
        Self(words)
    }

    /// CDW0 bits 7:0.
    #[must_use]
    pub const fn opcode(&self) -> u8 {
        byte(low32(self.0[0]), 0)
    }

    /// Whether FUSE (CDW0 bits 9:8) and PSDT (15:14) are 0: neither fused nor with SGLs.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        byte(low32(self.0[0]), 1) & 0xc3 == 0
    }

    /// CDW0 bits 31:16.
    #[must_use]
    pub const fn cid(&self) -> u16 {
        upper16(low32(self.0[0]))
    }

    /// CDW1.
    #[must_use]
    pub const fn nsid(&self) -> u32 {
        high32(self.0[0])
    }

    /// PRP Entry 1, CDW6 and 7.
    #[must_use]
    pub const fn prp1(&self) -> u64 {
        self.0[3]
    }

    /// PRP Entry 2, CDW8 and 9.
    #[must_use]
    pub const fn prp2(&self) -> u64 {
        self.0[4]
    }

    /// A dword that is specific to the opcode.
    #[must_use]
    pub const fn cdw(&self, number: Cdw) -> u32 {
        let number = number as usize;
        let word = self.0[number / 2];
        if number.is_multiple_of(2) {
            low32(word)
        } else {
            high32(word)
        }
    }

    /// Bits 15:0 of a dword.
    #[must_use]
    pub const fn low(&self, number: Cdw) -> u16 {
        low16(self.cdw(number))
    }

    /// Bits 31:16 of a dword.
    #[must_use]
    pub const fn high(&self, number: Cdw) -> u16 {
        upper16(self.cdw(number))
    }
}

/// A command for the device.
///
/// Only this crate makes one: from zeros, with the fields that a rule names. Its two addresses
/// are [`Hpa`]s that the guest's table or the monitor's memory gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceCommand([u64; 8]);

impl DeviceCommand {
    /// `opcode` for `nsid`; all else 0.
    pub(crate) fn new(opcode: u8, nsid: u32) -> Self {
        let mut words = [0; 8];
        words[0] = join32(opcode.into(), nsid);
        Self(words)
    }

    /// The command with this dword.
    pub(crate) fn with(mut self, number: Cdw, value: u32) -> Self {
        let number = number as usize;
        let word = &mut self.0[number / 2];
        *word = if number.is_multiple_of(2) {
            join32(value, high32(*word))
        } else {
            join32(low32(*word), value)
        };
        self
    }

    /// The command with these PRP entries.
    pub(crate) fn with_prps(mut self, first: Hpa, second: Option<Hpa>) -> Self {
        self.0[3] = first.0;
        self.0[4] = second.map_or(0, |page| page.0);
        self
    }

    /// The command with this identifier of the monitor's.
    #[must_use]
    pub fn with_cid(mut self, cid: u16) -> Self {
        let low = join16(low16(low32(self.0[0])), cid);
        self.0[0] = join32(low, high32(self.0[0]));
        self
    }

    /// The entry as it is in memory.
    #[must_use]
    pub const fn words(&self) -> [u64; 8] {
        self.0
    }

    /// The entry to be read field by field.
    #[must_use]
    pub const fn entry(&self) -> Entry {
        Entry(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let mut bytes = [0; ENTRY_BYTES];
        for (number, byte) in (0..).zip(&mut bytes) {
            *byte = number;
        }
        let entry = Entry::from_bytes(&bytes);
        assert_eq!(entry.opcode(), 0);
        assert_eq!(entry.cid(), 0x0302);
        assert_eq!(entry.nsid(), 0x0706_0504);
        assert_eq!(entry.prp1(), 0x1f1e_1d1c_1b1a_1918);
        assert_eq!(entry.prp2(), 0x2726_2524_2322_2120);
        assert_eq!(entry.cdw(Cdw::D10), 0x2b2a_2928);
        assert_eq!(entry.cdw(Cdw::D11), 0x2f2e_2d2c);
        assert_eq!(entry.cdw(Cdw::D14), 0x3b3a_3938);
        assert_eq!(entry.low(Cdw::D12), 0x3130);
        assert_eq!(entry.high(Cdw::D12), 0x3332);
    }

    #[test]
    fn fused_commands_and_sgls_are_not_plain() {
        for bit in 8..16 {
            let entry = Entry::new([1 << bit, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(entry.is_plain(), (10..14).contains(&bit), "bit {bit}");
        }
    }

    #[test]
    fn a_command_has_what_it_was_given_and_zeros() {
        let command = DeviceCommand::new(2, 7)
            .with(Cdw::D10, 0x10)
            .with(Cdw::D11, 0x11)
            .with(Cdw::D12, 0x12)
            .with_prps(Hpa(0x1000), Some(Hpa(0x2000)))
            .with_cid(0xabcd);
        let expected = [0x7_abcd_0002, 0, 0, 0x1000, 0x2000, 0x11_0000_0010, 0x12, 0];
        assert_eq!(command.words(), expected);
        assert_eq!(command.with_prps(Hpa(0x1000), None).words()[4], 0);
    }
}
