// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An ELF file's notes about its entry by PVH, Xen's boot protocol, which other monitors use too
//! (Xen, public/elfnote.h; Linux, arch/x86/platform/pvh/head.S).

use std::fs::File;
use std::os::unix::fs::FileExt;

use elf::abi::PT_NOTE;
use elf::note::{Note, NoteAny, NoteIterator};

use super::elf::Headers;

/// Owners of notes.
const XEN: &[u8] = b"Xen";
const LINUX: &[u8] = b"Linux";
/// XEN_ELFNOTE_PHYS32_ENTRY: physical address of the 32-bit entry point, in 4 or 8 bytes.
const PHYS32_ENTRY: u64 = 18;
/// XEN_ELFNOTE_PHYS32_RELOC: the image can be moved; alignment, lowest and last address, of which
/// those at the end may be missing, in 4 bytes each.
const PHYS32_RELOC: u64 = 19;

/// Bytes of notes that are looked at: Linux has some hundreds.
const MAX_BYTES: u64 = 1 << 20;

/// A file with more notes than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has {0} bytes of notes, more than {MAX_BYTES}")]
pub(super) struct TooManyNotes(u64);

/// The contents of a file's notes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Physical address of the 32-bit entry point, as the image is linked.
    pub entry: Option<u64>,
    /// Where the image may be moved to, if it may.
    pub relocation: Option<Relocation>,
    /// The image is Linux: it has notes in that name, as every vmlinux does.
    pub is_linux: bool,
}

/// Where an image may be moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relocation {
    /// A multiple of this.
    pub alignment: u32,
    /// Lowest address of its first byte.
    pub lowest: u32,
    /// Highest address of its last byte.
    pub last: u32,
}

impl Default for Relocation {
    fn default() -> Self {
        Self {
            alignment: 2 << 20,
            lowest: 0,
            last: u32::MAX,
        }
    }
}

impl Notes {
    /// Reads the notes of `file`, which has these headers. What cannot be read is not there.
    pub fn read(headers: &Headers, file: &File) -> Result<Self, TooManyNotes> {
        let segments = headers.segments.iter();
        let segments = segments.filter(|segment| segment.p_type == PT_NOTE);
        let total = segments
            .clone()
            .fold(0_u64, |sum, segment| sum.saturating_add(segment.p_filesz));
        if total > MAX_BYTES {
            return Err(TooManyNotes(total));
        }
        let mut found = Self::default();
        for segment in segments {
            let mut bytes = vec![0; usize::try_from(segment.p_filesz).unwrap_or(0)];
            if file.read_exact_at(&mut bytes, segment.p_offset).is_err() {
                continue;
            }
            let alignment = usize::try_from(segment.p_align).unwrap_or(0);
            let (order, class) = (headers.file.endianness, headers.file.class);
            for note in NoteIterator::new(order, class, alignment, &bytes) {
                if let Note::Unknown(note) = note {
                    found.take(&note);
                }
            }
        }
        Ok(found)
    }

    fn take(&mut self, note: &NoteAny<'_>) {
        let owner = note.name.strip_suffix(b"\0").unwrap_or(note.name);
        let numbers = note.desc.chunks_exact(4);
        let mut numbers =
            numbers.filter_map(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)));
        match (owner, note.n_type) {
            (LINUX, _) => self.is_linux = true,
            (XEN, PHYS32_ENTRY) => {
                self.entry = numbers
                    .next()
                    .map(|low| u64::from(numbers.next().unwrap_or(0)) << 32 | u64::from(low));
            }
            (XEN, PHYS32_RELOC) => {
                let whole = Relocation::default();
                self.relocation = Some(Relocation {
                    alignment: numbers.next().unwrap_or(whole.alignment),
                    lowest: numbers.next().unwrap_or(whole.lowest),
                    last: numbers.next().unwrap_or(whole.last),
                });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(notes: &[(u64, &[u8], &[u8])]) -> Notes {
        let mut found = Notes::default();
        for (n_type, name, desc) in notes {
            found.take(&NoteAny {
                n_type: *n_type,
                name,
                desc,
            });
        }
        found
    }

    #[test]
    fn an_entry_point_has_four_or_eight_bytes() {
        let entry = |desc: &[u8]| taken(&[(18, b"Xen\0", desc)]).entry;
        assert_eq!(entry(&[0x50, 8, 0, 1]), Some(0x0100_0850));
        assert_eq!(entry(&[0x50, 8, 0, 1, 0, 0, 0, 0]), Some(0x0100_0850));
        assert_eq!(entry(&[0, 0, 0, 0, 1, 0, 0, 0]), Some(1 << 32));
        assert_eq!(entry(&[1, 2, 3]), None);
        assert_eq!(taken(&[(18, b"GNU\0", &[1; 4])]), Notes::default());
    }

    #[test]
    fn limits_that_are_missing_have_defaults() {
        let relocation = |desc: &[u8]| taken(&[(19, b"Xen\0", desc)]).relocation.unwrap();
        assert_eq!(relocation(&[]), Relocation::default());
        let alignment = relocation(&[0, 0, 0x40, 0]);
        assert_eq!(
            alignment,
            Relocation {
                alignment: 4 << 20,
                ..Relocation::default()
            }
        );
        let all = relocation(&[0, 0, 0x20, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0x3f]);
        assert_eq!((all.lowest, all.last), (16 << 20, (1 << 30) - 1));
    }

    #[test]
    fn linux_is_identified_by_its_notes() {
        assert!(taken(&[(0x101, b"Linux\0", b"6.1")]).is_linux);
        assert!(!taken(&[(6, b"Xen\0", b"FreeBSD\0")]).is_linux);
    }
}
