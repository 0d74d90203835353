// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where Identify's structures have what is used here (Base 5.1.13, NVM Command Set 4.1.5).

/// CSI of the NVM command set.
pub const NVM_COMMAND_SET: u8 = 0;

/// A logical block format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// MS: bytes of metadata per block.
    pub metadata: u16,
    /// LBADS: 2 to the power of this bytes per block.
    pub block_shift: u8,
}

/// Identify Controller (CNS 01h).
pub mod controller {
    /// CMIC.
    pub const CMIC: usize = 76;
    /// MDTS.
    pub const MDTS: usize = 77;
    /// CNTLID.
    pub const ID: usize = 78;
    /// VER.
    pub const VERSION: usize = 80;
    /// OAES.
    pub const EVENTS: usize = 92;
    /// CTRATT.
    pub const ATTRIBUTES: usize = 96;
    /// CNTRLTYPE.
    pub const TYPE: usize = 111;
    /// OACS.
    pub const OACS: usize = 256;
    /// AERL.
    pub const AERL: usize = 259;
    /// LPA.
    pub const LPA: usize = 261;
    /// KAS.
    pub const KEEP_ALIVE: usize = 320;
    /// SQES.
    pub const SQES: usize = 512;
    /// CQES.
    pub const CQES: usize = 513;
    /// MAXCMD.
    pub const MAX_COMMANDS: usize = 514;
    /// ONCS.
    pub const ONCS: usize = 520;
    /// SGLS.
    pub const SGLS: usize = 536;

    /// CMIC bit 1: the subsystem may have other controllers.
    pub const SEVERAL_CONTROLLERS: u8 = 1 << 1;
    /// LPA bits 2:0, those that are offered; bit 2 is extended data.
    pub const LPA_OFFERED: u8 = 7;
    /// LPA bit 2: offsets, and lengths of 32 bits.
    pub const LPA_EXTENDED: u8 = 1 << 2;
    /// OAES bits 8 and 9: namespace attribute and firmware activation notices.
    pub const EVENTS_OFFERED: u32 = 3 << 8;
    /// CTRATT bits 0, 1 and 6: Host Identifier of 128 bits, Non-Operational Power State Permissive Mode, Traffic Based Keep
    /// Alive.
    pub const ATTRIBUTES_OFFERED: u32 = 0x43;
    /// SQES and CQES that are offered: entries of 64 and 16 bytes only.
    pub const ENTRY_SIZES: [u8; 2] = [0x66, 0x44];
}

/// Identify Namespace (CNS 00h).
pub mod namespace {
    use super::Format;
    use crate::bits::{word16, word64};

    /// NMIC.
    pub const NMIC: usize = 30;
    /// RESCAP.
    pub const RESCAP: usize = 31;
    const NLBAF: usize = 25;
    const FLBAS: usize = 26;
    const NULBAF: usize = 82;
    const FORMATS: usize = 128;

    /// NSZE: logical blocks; 0 where the namespace is not active.
    #[must_use]
    pub fn size(structure: &[u8]) -> u64 {
        word64(structure, 0)
    }

    /// The format of which the namespace is. FLBAS has its number in bits 3:0 and, if there are more than 16 formats, in
    /// bits 6:5.
    #[must_use]
    pub fn format(structure: &[u8]) -> Format {
        let byte = |at: usize| structure.get(at).copied().unwrap_or(0);
        let flbas = byte(FLBAS);
        let has_many = u16::from(byte(NLBAF)) + u16::from(byte(NULBAF)) > 15;
        let high = if has_many { flbas >> 1 & 0x30 } else { 0 };
        let at = FORMATS + 4 * usize::from(flbas & 0xf | high);
        Format {
            metadata: word16(structure, at),
            block_shift: byte(at + 2),
        }
    }
}

/// The command set that a Namespace Identification Descriptor list names (CNS 03h, type 4h), if it names one.
#[must_use]
pub fn command_set(descriptors: &[u8]) -> Option<u8> {
    const COMMAND_SET: u8 = 4;
    let mut rest = descriptors;
    while let [kind, length, _, _, data @ ..] = rest {
        if *length == 0 {
            return None;
        }
        if *kind == COMMAND_SET {
            return data.first().copied();
        }
        rest = data.get(usize::from(*length)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_set_is_found_among_descriptors() {
        let mut list = vec![0; 4096];
        assert_eq!(command_set(&list), None);
        list[..4].copy_from_slice(&[1, 8, 0, 0]);
        list[12..17].copy_from_slice(&[4, 1, 0, 0, 2]);
        assert_eq!(command_set(&list), Some(2));
        list[1] = 0xff;
        assert_eq!(command_set(&list), None, "the list goes on elsewhere");
        assert_eq!(command_set(&[4, 1, 0, 0]), None, "cut off");
        assert_eq!(command_set(&[9, 200, 0, 0, 0]), None, "cut off");
    }

    #[test]
    fn bits_of_a_format_number_above_15_need_more_than_16_formats() {
        let mut structure = vec![0; 4096];
        structure[26] = 0x21;
        structure[128 + 4 + 2] = 9;
        structure[128 + 4 * 17 + 2] = 12;
        structure[25] = 15;
        assert_eq!(namespace::format(&structure).block_shift, 9);
        structure[82] = 1;
        assert_eq!(namespace::format(&structure).block_shift, 12);
    }
}
