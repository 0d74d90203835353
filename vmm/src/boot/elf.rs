//! A kernel as an ELF file: Linux's vmlinux, or a bare-metal program. Its segments are moved
//! together, the first of them to the place that was found for it, and it is entered at
//! `e_entry` in 64-bit mode. It applies its own relocations, as vmlinux does and static
//! position-independent executables do.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use address::Gpa;
use elf::ElfStream;
use elf::abi::{EM_X86_64, ET_DYN, ET_EXEC, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::ProgramHeader;
use linux_loader::loader::bootparam::setup_header;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::kernel::{Demand, Kernel, KernelError};

/// The first bytes of the file.
pub const MAGIC: &[u8] = b"\x7fELF";
/// Steps in which vmlinux can be moved (arch/x86/kernel/head_64.S checks it).
const ALIGNMENT: u64 = 2 << 20;
/// What the boot protocol has in these fields (Documentation/arch/x86/boot.rst); an ELF file has
/// no header of its own to copy.
const BOOT_FLAG: u16 = 0xaa55;
const HEADER: u32 = 0x5372_6448;
const PROTOCOL: u16 = 0x020f;
/// Longest command line of Linux on x86 (COMMAND_LINE_SIZE), without its end mark.
const MOST_COMMAND_LINE: u32 = 2047;

/// An ELF file that has passed all checks which do not depend on where it is loaded.
#[derive(Debug)]
pub struct ElfKernel {
    path: PathBuf,
    file: File,
    header: setup_header,
    segments: Vec<Segment>,
    /// From the start of the first segment to the entry point.
    entry: u64,
    length: u64,
}

/// Part of the file that is loaded.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// From the start of the first segment.
    place: u64,
    file_offset: u64,
    file_length: u64,
}

impl ElfKernel {
    /// Checks `file`, opened from `path`.
    ///
    /// # Errors
    /// [`KernelError`]
    pub fn new(path: &Path, mut file: File) -> Result<Self, KernelError> {
        let unsupported = |reason: String| KernelError::Unsupported {
            path: path.to_owned(),
            reason,
        };
        let stream = ElfStream::<LittleEndian, _>::open_stream(&mut file)
            .map_err(|error| unsupported(format!("its ELF headers are broken: {error}")))?;
        let header = stream.ehdr;
        if header.class != Class::ELF64 || header.e_machine != EM_X86_64 {
            return Err(unsupported("it is not for 64-bit x86".to_owned()));
        }
        if ![ET_EXEC, ET_DYN].contains(&header.e_type) {
            return Err(unsupported("it is not an executable".to_owned()));
        }
        let loaded: Vec<ProgramHeader> = stream
            .segments()
            .iter()
            .filter(|segment| segment.p_type == PT_LOAD && segment.p_memsz > 0)
            .copied()
            .collect();
        let file_length = file
            .metadata()
            .map_err(|source| KernelError::Read {
                path: path.to_owned(),
                source,
            })?
            .len();
        let base = base(&loaded).ok_or_else(|| unsupported("it has nothing to load".to_owned()))?;
        let (segments, length) = place(&loaded, base, file_length)
            .ok_or_else(|| unsupported("a segment does not fit its file or memory".to_owned()))?;
        let entry = header
            .e_entry
            .checked_sub(base)
            .filter(|entry| *entry < length)
            .ok_or_else(|| unsupported("its entry point is in no segment".to_owned()))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            header: setup_header {
                boot_flag: BOOT_FLAG,
                header: HEADER,
                version: PROTOCOL,
                cmdline_size: MOST_COMMAND_LINE,
                ..Default::default()
            },
            segments,
            entry,
            length,
        })
    }
}

/// Where the file's own addresses begin, in steps in which it can be moved.
fn base(loaded: &[ProgramHeader]) -> Option<u64> {
    let lowest = loaded.iter().map(|segment| segment.p_paddr).min()?;
    Some(lowest - lowest % ALIGNMENT)
}

/// The segments from `base` on, and the length of all of them; `None` if one is not sound.
fn place(loaded: &[ProgramHeader], base: u64, file_length: u64) -> Option<(Vec<Segment>, u64)> {
    let mut length = 0;
    let mut segments = Vec::with_capacity(loaded.len());
    for segment in loaded {
        let place = segment.p_paddr.checked_sub(base)?;
        let file_end = segment.p_offset.checked_add(segment.p_filesz)?;
        if file_end > file_length || segment.p_filesz > segment.p_memsz {
            return None;
        }
        length = length.max(place.checked_add(segment.p_memsz)?);
        segments.push(Segment {
            place,
            file_offset: segment.p_offset,
            file_length: segment.p_filesz,
        });
    }
    // Whole pages, which the boot page tables map.
    Some((segments, length.checked_next_multiple_of(ALIGNMENT)?))
}

impl Kernel for ElfKernel {
    fn path(&self) -> &Path {
        &self.path
    }

    fn demand(&self) -> Demand {
        Demand {
            length: self.length,
            alignment: ALIGNMENT,
            lowest: Gpa(0),
            above_4g: true,
        }
    }

    fn header(&self) -> &setup_header {
        &self.header
    }

    fn load(&mut self, memory: &GuestMemoryMmap, at: Gpa) -> Result<Gpa, KernelError> {
        let Self { file, segments, .. } = self;
        let mut load = |segment: &Segment| {
            let count = usize::try_from(segment.file_length).map_err(io::Error::other)?;
            file.seek(SeekFrom::Start(segment.file_offset))?;
            // What the file does not fill is clear, as all guest memory is.
            memory
                .read_exact_volatile_from(GuestAddress(at.0 + segment.place), file, count)
                .map_err(io::Error::other)
        };
        segments
            .iter()
            .try_for_each(&mut load)
            .map_err(|source| KernelError::Load {
                path: self.path.clone(),
                at,
                source: source.into(),
            })?;
        Ok(at + self.entry)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// An ELF file with one segment of `memory` bytes at `address` in memory.
    struct Image {
        class: u8,
        machine: u16,
        kind: u16,
        entry: u64,
        address: u64,
        offset: u64,
        in_file: u64,
        in_memory: u64,
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
    };

    impl Image {
        fn write(&self) -> tempfile::NamedTempFile {
            let mut bytes = vec![0x7f, b'E', b'L', b'F', self.class, 1, 1];
            bytes.resize(16, 0);
            bytes.extend(self.kind.to_le_bytes());
            bytes.extend(self.machine.to_le_bytes());
            bytes.extend(1_u32.to_le_bytes());
            for word in [self.entry, 64, 0] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.extend(0_u32.to_le_bytes());
            for half in [64_u16, 56, 1, 64, 0, 0] {
                bytes.extend(half.to_le_bytes());
            }
            for word in [PT_LOAD, 7] {
                bytes.extend(word.to_le_bytes());
            }
            let (in_file, in_memory) = (self.in_file, self.in_memory);
            for word in [
                self.offset,
                self.address,
                self.address,
                in_file,
                in_memory,
                0x1000,
            ] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.resize(0x1000, 0);
            bytes.extend((0..0x20).map(|byte: u8| byte ^ 0x55));
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&bytes).unwrap();
            file
        }

        fn open(&self) -> Result<ElfKernel, KernelError> {
            let file = self.write();
            ElfKernel::new(file.path(), file.reopen().unwrap())
        }
    }

    #[test]
    fn a_good_image_is_moved_as_a_whole() {
        let mut kernel = GOOD.open().unwrap();
        assert_eq!(kernel.demand().length, 2 << 20);
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
        let faults: [(Change, &str); 9] = [
            (|image| image.class = 1, "ELF headers"),
            (|image| image.machine = 62 + 1, "64-bit"),
            (|image| image.kind = 1, "executable"),
            (|image| image.in_memory = 0, "nothing to load"),
            (|image| image.in_file = 0x21, "segment"),
            (|image| image.offset = u64::MAX - 4, "segment"),
            (|image| image.in_memory = 0x1f, "segment"),
            (|image| image.in_memory = u64::MAX, "segment"),
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
}
