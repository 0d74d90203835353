// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The header of an arm64 Linux kernel (Documentation/arch/arm64/booting.rst, "Call the kernel image").

use crate::boot::release::Release;

/// Bytes of the header.
pub const LEN: usize = 64;
/// `magic`, the letters `ARM\x64`.
const MAGIC: &[u8] = b"ARM\x64";
/// Where it is.
const MAGIC_AT: usize = 0x38;
/// Where the PE header's offset is, which only a kernel with an EFI stub has.
const PE_OFFSET_AT: usize = 0x3c;
/// `flags`: the kernel is big-endian.
const BIG_ENDIAN: u64 = 1;
/// `flags`: the kernel may be anywhere in memory (since Linux 4.6).
const ANYWHERE: u64 = 1 << 3;
/// More than any kernel has.
const MAX_LEN: u64 = 1 << 30;
/// The kernel's place is a multiple of this, and the device tree is less.
pub const ALIGNMENT: u64 = 2 << 20;

/// Pieces of memory that a kernel with an EFI stub lists before it can allocate, from Linux 6.0 on
/// (arch/arm64/include/asm/memory.h, `INIT_MEMBLOCK_MEMORY_REGIONS`).
const REGIONS_WITH_EFI: usize = 1024;
/// The same for other kernels, and before (mm/memblock.c, `INIT_MEMBLOCK_REGIONS`).
const REGIONS: usize = 128;
/// Of these, what the kernel itself takes: it sets its image and KFENCE's pool apart while it maps memory, each of
/// which splits a piece in three (arch/arm64/mm/mmu.c, `map_mem`; mm/memblock.c, `memblock_isolate_range`).
const OWN_REGIONS: usize = 4;
/// The first release that is trusted with more pieces: one after the one that has the larger list.
const MORE_REGIONS: Release = Release { major: 6, minor: 1 };

/// What the header of a kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// From the place of the kernel, a multiple of [`ALIGNMENT`], to where its image begins.
    pub text_offset: u64,
    /// Bytes of its image in memory, with what is not in the file.
    pub image_size: u64,
    flags: u64,
    has_efi_stub: bool,
}

impl Header {
    /// The header that `start`, the first bytes of a file, is. `None` if it is none.
    #[must_use]
    pub fn parse(start: &[u8; LEN]) -> Option<Self> {
        let long = |at: usize| Some(u64::from_le_bytes(start.get(at..at + 8)?.try_into().ok()?));
        if start.get(MAGIC_AT..MAGIC_AT + MAGIC.len()) != Some(MAGIC) {
            return None;
        }
        let pe = start.get(PE_OFFSET_AT..)?;
        Some(Self {
            text_offset: long(8)?,
            image_size: long(16)?,
            flags: long(24)?,
            has_efi_stub: start.starts_with(b"MZ") && pe != [0; 4],
        })
    }

    /// Why a kernel with this header cannot be used.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.image_size == 0 {
            return Err("it does not say how much memory it needs (Linux before 3.17)");
        }
        if self.image_size > MAX_LEN || self.text_offset >= ALIGNMENT {
            return Err("its header is not sound");
        }
        if self.flags & BIG_ENDIAN != 0 {
            return Err("it is big-endian");
        }
        if self.flags & ANYWHERE == 0 {
            return Err("it must be at the start of memory (Linux before 4.6)");
        }
        Ok(())
    }

    /// Bytes in one piece that a kernel takes, whose file has `file_len` of them: from its place on, and room for the
    /// device tree behind it, in whole multiples of [`ALIGNMENT`], as the kernel maps the tree by blocks of that size.
    #[must_use]
    pub fn room(&self, file_len: u64) -> u64 {
        let image = self.image_size.max(file_len);
        let end = self.text_offset.saturating_add(image);
        let blocks = end.div_ceil(ALIGNMENT).saturating_add(1);
        blocks.min(u64::MAX / ALIGNMENT) * ALIGNMENT
    }

    /// Pieces of RAM that a kernel of `release` takes: what is in more of them disappears without a word.
    #[must_use]
    pub fn pieces(&self, release: Option<Release>) -> usize {
        let is_new = release.is_some_and(|release| release >= MORE_REGIONS);
        let regions = match self.has_efi_stub && is_new {
            true => REGIONS_WITH_EFI,
            false => REGIONS,
        };
        regions - OWN_REGIONS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn bytes(text_offset: u64, image_size: u64, flags: u64) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[8..16].copy_from_slice(&text_offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&image_size.to_le_bytes());
        bytes[24..32].copy_from_slice(&flags.to_le_bytes());
        bytes[0x38..0x3c].copy_from_slice(b"ARM\x64");
        bytes[0x3c] = 0x40;
        bytes
    }

    fn header(text_offset: u64, image_size: u64, flags: u64) -> Header {
        Header::parse(&bytes(text_offset, image_size, flags)).unwrap()
    }

    #[test]
    fn only_the_magic_number_makes_a_kernel() {
        let mut other = bytes(0, MIB, 0xa);
        other[0x38] = b'R';
        assert_eq!(Header::parse(&other), None);
        assert_eq!(Header::parse(&[0; LEN]), None);
        let found = header(0x8_0000, 33 * MIB, 0xa);
        assert_eq!((found.text_offset, found.image_size), (0x8_0000, 33 * MIB));
        assert_eq!(found.check(), Ok(()));
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        for (text_offset, image_size, flags, word) in [
            (0, 0, 0xa, "3.17"),
            (0, 2 << 30, 0xa, "sound"),
            (2 * MIB, MIB, 0xa, "sound"),
            (0, MIB, 0xb, "big-endian"),
            (0, MIB, 2, "4.6"),
        ] {
            let reason = header(text_offset, image_size, flags).check().unwrap_err();
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn the_device_tree_has_a_block_of_its_own_behind_the_kernel() {
        assert_eq!(header(0, 4 * MIB, 0xa).room(MIB), 6 * MIB);
        assert_eq!(header(0, 4 * MIB, 0xa).room(5 * MIB), 8 * MIB);
        assert_eq!(header(0x8_0000, 4 * MIB, 0xa).room(MIB), 8 * MIB);
    }

    #[test]
    fn only_a_new_kernel_with_an_efi_stub_takes_many_pieces() {
        let release = |major, minor| Some(Release { major, minor });
        let efi = header(0, MIB, 0xa);
        assert_eq!(efi.pieces(release(6, 1)), 1020);
        assert_eq!(efi.pieces(release(6, 0)), 124);
        assert_eq!(efi.pieces(release(5, 10)), 124);
        assert_eq!(efi.pieces(None), 124);
        let mut plain = bytes(0, MIB, 0xa);
        plain[0x3c] = 0;
        assert_eq!(Header::parse(&plain).unwrap().pieces(release(6, 12)), 124);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(start: [u8; LEN], file_len: u64) {
            let mut start = start;
            start[0x38..0x3c].copy_from_slice(b"ARM\x64");
            let header = Header::parse(&start).unwrap();
            let _ = header.check();
            prop_assert_eq!(header.room(file_len) % ALIGNMENT, 0);
        }
    }
}
