// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Results for valid and invalid files.

use std::io::Write;
use std::os::unix::fs::FileExt;

use elf::abi::PT_NOTE;

use super::*;

/// A note: type, owner, contents.
type NoteOf = (u32, &'static str, &'static [u8]);

/// An ELF file with one segment of `in_memory` bytes at `address`, and perhaps notes.
struct Image {
    class: u8,
    machine: u16,
    kind: u16,
    entry: u64,
    address: u64,
    offset: u64,
    in_file: u64,
    in_memory: u64,
    notes: &'static [NoteOf],
}

const GOOD: Image = Image {
    class: 2,
    machine: EM_X86_64,
    kind: ET_EXEC,
    entry: 0x100_0010,
    address: 0x100_0000,
    offset: 0x1000,
    in_file: 0x20,
    in_memory: 0x3000,
    notes: &[],
};

/// Where notes are in the file.
const NOTES: u64 = 0x800;

impl Image {
    fn write(&self) -> tempfile::NamedTempFile {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', self.class, 1, 1];
        bytes.resize(16, 0);
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.machine.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        let [header, segment] = if self.class == 1 { [52, 32] } else { [64, 56] };
        for word in [self.entry, header, 0] {
            bytes.extend(self.word(word));
        }
        bytes.extend(0_u32.to_le_bytes());
        let segments = 1 + u64::from(!self.notes.is_empty());
        for half in [header, segment, segments, 64, 0, 0] {
            bytes.extend(&half.to_le_bytes()[..2]);
        }
        bytes.extend(self.segment(PT_LOAD, self.offset, self.in_file));
        let notes = self.note_bytes();
        bytes.extend(self.segment(PT_NOTE, NOTES, notes.len() as u64));
        bytes.resize(0x800, 0);
        bytes.extend(notes);
        bytes.resize(0x1000, 0);
        bytes.extend((0..0x20).map(|byte: u8| byte ^ 0x55));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    /// A number as wide as an address of the file's class.
    fn word(&self, value: u64) -> Vec<u8> {
        let width = if self.class == 1 { 4 } else { 8 };
        value.to_le_bytes()[..width].to_vec()
    }

    /// A program header.
    fn segment(&self, kind: u32, offset: u64, in_file: u64) -> Vec<u8> {
        const FLAGS: u32 = 7;
        let alignment = if kind == PT_NOTE { 4 } else { 0x1000 };
        let place = [offset, self.address, self.address, in_file, self.in_memory];
        let place = place.map(|word| self.word(word)).concat();
        let kind = kind.to_le_bytes().to_vec();
        let flags = FLAGS.to_le_bytes().to_vec();
        let alignment = self.word(alignment);
        if self.class == 1 {
            [kind, place, flags, alignment].concat()
        } else {
            [kind, flags, place, alignment].concat()
        }
    }

    fn note_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, owner, contents) in self.notes {
            for length in [owner.len() + 1, contents.len()] {
                bytes.extend(u32::try_from(length).unwrap().to_le_bytes());
            }
            bytes.extend(kind.to_le_bytes());
            for part in [owner.as_bytes(), b"\0"] {
                bytes.extend(part);
            }
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend(*contents);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn open(&self) -> Result<ElfKernel, KernelError> {
        let file = self.write();
        ElfKernel::new(file.path(), file.reopen().unwrap())
    }
}

#[test]
fn a_good_image_is_moved_as_a_whole() {
    let mut kernel = GOOD.open().unwrap();
    assert_eq!(kernel.demand().len, 2 << 20);
    let at = GuestAddress(0x1_4000_0000);
    let memory = GuestMemoryMmap::from_ranges(&[(at, 4 << 20)]).unwrap();
    let entry = kernel.load(&memory, Gpa(at.0)).unwrap();
    assert_eq!(entry, Gpa(at.0 + 0x10));
    let found: u64 = memory.read_obj(GuestAddress(entry.0)).unwrap();
    assert_eq!(found.to_le_bytes()[0], 0x10 ^ 0x55);
}

#[test]
fn segments_keep_their_distance_from_a_whole_step() {
    let image = Image {
        address: 0x23_4000,
        entry: 0x23_4000,
        ..GOOD
    };
    let mut kernel = image.open().unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 8 << 20)]).unwrap();
    assert_eq!(kernel.load(&memory, Gpa(4 << 20)).unwrap(), Gpa(0x43_4000));
}

#[test]
fn unsound_images_are_refused() {
    type Change = fn(&mut Image);
    let faults: [(Change, &str); 10] = [
        (|image| image.class = 3, "ELF headers"),
        (|image| image.machine = 62 + 1, "64-bit"),
        (|image| image.kind = 1, "executable"),
        (|image| image.in_memory = 0, "nothing to load"),
        (|image| image.in_file = 0x21, "segment"),
        (|image| image.offset = u64::MAX - 4, "segment"),
        (|image| image.in_memory = 0x1f, "segment"),
        (|image| image.in_memory = u64::MAX, "segment"),
        (|image| image.in_memory = (16 << 30) + 1, "16 GiB"),
        (|image| image.entry = 0x1000, "entry"),
    ];
    for (change, word) in faults {
        let mut image = GOOD;
        change(&mut image);
        let Err(KernelError::Unsupported { reason, .. }) = image.open() else {
            panic!("{word} was not missed");
        };
        assert!(reason.contains(word), "{reason} is not about {word}");
    }
}

/// A file with these program headers: type, offset, address, bytes in the file and in memory.
fn with_segments(segments: &[(u32, [u64; 4])], length: u64) -> Result<ElfKernel, KernelError> {
    let image = GOOD.write();
    let file = image.as_file();
    let mut table = Vec::new();
    for (kind, [offset, address, in_file, in_memory]) in segments {
        let one = Image {
            address: *address,
            in_memory: *in_memory,
            ..GOOD
        };
        table.extend(one.segment(*kind, *offset, *in_file));
    }
    file.set_len(length).unwrap();
    file.write_all_at(&table, 0x1_0000).unwrap();
    file.write_all_at(&0x1_0000_u64.to_le_bytes(), 0x20)
        .unwrap();
    let count = u16::try_from(segments.len()).unwrap();
    file.write_all_at(&count.to_le_bytes(), 0x38).unwrap();
    ElfKernel::new(image.path(), image.reopen().unwrap())
}

#[test]
fn files_that_would_take_any_time_or_memory_are_refused() {
    const GIB: u64 = 1 << 30;
    let load = (PT_LOAD, [0x1000, 0x100_0000, 0x20, 0x3000]);
    let began = std::time::Instant::now();
    for (segments, word) in [
        // Notes of a GiB, sparse, and many of a little less than a MiB.
        (vec![load, (PT_NOTE, [0x2_0000, 0, GIB, GIB])], "notes"),
        (
            [
                vec![load],
                vec![(PT_NOTE, [0x2_0000, 0, 1_000_000, 0]); 200],
            ]
            .concat(),
            "notes",
        ),
        (vec![load; 65_534], "segments"),
        // Encodes more than can be counted.
        (vec![load; 65_535], "segments"),
        (
            vec![(PT_LOAD, [0x1000, 0x100_0000, GIB, GIB]); 200],
            "overlap",
        ),
        (
            vec![load, (PT_LOAD, [0x1000, 0x100_001f, 0x20, 0x20])],
            "overlap",
        ),
    ] {
        let Err(KernelError::Unsupported { reason, .. }) = with_segments(&segments, 4 * GIB) else {
            panic!("{word} was not missed");
        };
        assert!(reason.contains(word), "{reason} is not about {word}");
    }
    // What the files ask for would take hours, on an idle machine.
    assert!(began.elapsed() < std::time::Duration::from_secs(120));
    // What the file does not fill may be filled by another segment.
    let beside = (PT_LOAD, [0x1000, 0x100_0020, 0x20, 0x20]);
    assert!(with_segments(&[load, beside], 0x4_0000).is_ok());
}

const PVH: NoteOf = (18, "Xen", &[0x20, 0, 0, 1, 0, 0, 0, 0]);
const MAY_MOVE: NoteOf = (19, "Xen", &[0, 0, 0x40, 0, 0, 0, 0x80, 0]);
const LINUX: NoteOf = (0x101, "Linux", &[0; 4]);

fn is_pvh(kernel: &ElfKernel) -> bool {
    matches!(kernel.protocol(), Protocol::Pvh)
}

#[test]
fn pvh_is_for_what_is_not_a_64_bit_linux() {
    let old = |notes| Image {
        class: 1,
        machine: EM_386,
        notes,
        ..GOOD
    };
    for (image, expected) in [
        (
            Image {
                notes: &[LINUX, PVH],
                ..GOOD
            },
            false,
        ),
        (
            Image {
                notes: &[LINUX],
                ..GOOD
            },
            false,
        ),
        (
            Image {
                notes: &[PVH],
                ..GOOD
            },
            true,
        ),
        (old(&[PVH]), true),
        (old(&[LINUX, PVH]), true),
    ] {
        assert_eq!(
            is_pvh(&image.open().unwrap()),
            expected,
            "{:x?}",
            image.notes
        );
    }
}

#[test]
fn a_pvh_kernel_stays_where_it_is_linked() {
    let image = Image {
        notes: &[PVH],
        ..GOOD
    };
    let mut kernel = image.open().unwrap();
    let demand = kernel.demand();
    assert_eq!(
        (demand.lowest, demand.below),
        (Gpa(0x100_0000), Gpa(0x100_3000))
    );
    assert_eq!((demand.len, demand.alignment), (0x3000, PAGE));
    assert_eq!(demand.initramfs_below, LIMIT_4G);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 32 << 20)]).unwrap();
    let entry = kernel.load(&memory, Gpa(0x100_0000)).unwrap();
    assert_eq!(entry, Gpa(0x100_0020));
}

#[test]
fn a_relocatable_pvh_kernel_has_its_limits() {
    let image = Image {
        notes: &[PVH, MAY_MOVE],
        ..GOOD
    };
    let mut kernel = image.open().unwrap();
    let demand = kernel.demand();
    assert_eq!((demand.lowest, demand.below), (Gpa(8 << 20), LIMIT_4G));
    assert_eq!(demand.alignment, 4 << 20);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 32 << 20)]).unwrap();
    let entry = kernel.load(&memory, Gpa(12 << 20)).unwrap();
    assert_eq!(entry, Gpa((12 << 20) + 0x20));
}

#[test]
fn a_pvh_kernel_linked_in_the_first_mib_is_reported() {
    const LOW_ENTRY: NoteOf = (18, "Xen", &[0x20, 0, 8, 0]);
    const LOW_ONLY: NoteOf = (19, "Xen", &[0, 0, 1, 0, 0, 0, 8, 0, 0xff, 0xff, 0xf, 0]);
    let reason = |address, notes| {
        let image = Image {
            address,
            notes,
            ..GOOD
        };
        image.open().unwrap().demand().reason
    };
    assert_eq!(reason(0x8_0000, &[LOW_ENTRY]), LINKED_LOW);
    assert_eq!(reason(0x100_0000, &[PVH, LOW_ONLY]), LINKED_LOW);
    assert_eq!(reason(0x100_0000, &[PVH]), NOT_MOVABLE);
    assert_eq!(reason(0x100_0000, &[PVH, MAY_MOVE]), MOVABLE);
}

#[test]
fn the_release_is_that_of_the_banner_in_the_segments() {
    let release = |at: u64| {
        let file = Image {
            in_file: 0x40,
            ..GOOD
        }
        .write();
        file.as_file().set_len(0x2000).unwrap();
        let banner = b"Linux version 5.10.0-32-amd64 (debian";
        file.as_file().write_all_at(banner, at).unwrap();
        let kernel = ElfKernel::new(file.path(), file.reopen().unwrap()).unwrap();
        kernel.release().unwrap()
    };
    let expected = Release {
        major: 5,
        minor: 10,
    };
    assert_eq!(release(0x1004), Some(expected));
    // What is in no segment is not part of the kernel.
    assert_eq!(release(0x1800), None);
}

#[test]
fn unsound_pvh_images_are_refused() {
    const BEYOND: NoteOf = (18, "Xen", &[0x20, 0, 0, 1, 1, 0, 0, 0]);
    const ODD: NoteOf = (19, "Xen", &[0, 0, 0x30, 0]);
    let high = Image {
        address: 0xffff_f000,
        notes: &[(18, "Xen", &[0, 0xf0, 0xff, 0xff])],
        ..GOOD
    };
    let plain = Image {
        class: 1,
        machine: EM_386,
        ..GOOD
    };
    for (image, word) in [
        (plain, "no PVH entry"),
        (
            Image {
                notes: &[BEYOND],
                ..GOOD
            },
            "entry",
        ),
        (
            Image {
                notes: &[PVH, ODD],
                ..GOOD
            },
            "power of two",
        ),
        (high, "above 4 GiB"),
    ] {
        let Err(KernelError::Unsupported { reason, .. }) = image.open() else {
            panic!("{word} was not missed");
        };
        assert!(reason.contains(word), "{reason} is not about {word}");
    }
}
