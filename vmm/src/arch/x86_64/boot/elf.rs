// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A kernel as an ELF file: Linux's vmlinux, or a bare-metal program. Its segments are moved
//! together, the first of them to the place that was found for it, and it is entered at
//! `e_entry` in 64-bit mode. It applies its own relocations, as vmlinux does and static
//! position-independent executables do.
//!
//! A file with a PVH entry point is entered there instead, unless it is a 64-bit Linux, which has
//! both: by its 64-bit entry point it can be anywhere, by PVH only below 4 GiB, and only where it
//! is linked unless it is marked as relocatable.

mod headers;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use address::Gpa;
use elf::abi::{EM_386, EM_X86_64, ET_DYN, ET_EXEC, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader};
use elf::segment::ProgramHeader;
use linux_loader::loader::bootparam::setup_header;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::LIMIT_4G;
use super::kernel_file::Protocol;
use super::pvh::{Notes, Relocation};
use crate::arch::x86_64::e820::SAFE_EXTENTS;
use crate::arch::x86_64::low;
use crate::boot::kernel::{Demand, Kernel, KernelError};
use crate::boot::release::Release;

pub(super) use headers::Headers;

/// The first bytes of the file.
pub const MAGIC: &[u8] = b"\x7fELF";
/// Steps in which vmlinux can be moved (arch/x86/kernel/head_64.S checks it), and what the boot
/// page tables map.
const ALIGNMENT: u64 = 2 << 20;
/// Steps in which everything else is given memory.
const PAGE: u64 = 4096;
/// More than the tables at [`low::PAGE_TABLES`] map.
const MAX_MEMORY: u64 = 16 << 30;
/// Why a PVH kernel is where it is.
const NOT_MOVABLE: &str = "it is entered by PVH and is not relocatable";
const MOVABLE: &str = "it is entered by PVH, in 32-bit mode";
const LINKED_LOW: &str = "it is linked in the first MiB, which holds boot data and which devices \
                          cannot access";
/// What the boot protocol has in these fields (Documentation/arch/x86/boot.rst); an ELF file has no
/// header to copy.
const BOOT_FLAG: u16 = 0xaa55;
const HEADER: u32 = 0x5372_6448;
const PROTOCOL: u16 = 0x020f;
/// Longest command line of Linux on x86 (COMMAND_LINE_SIZE), without its end mark.
const MAX_COMMAND_LINE: u32 = 2047;

/// An ELF file that has passed all checks which do not depend on where it is loaded.
#[derive(Debug)]
pub struct ElfKernel {
    path: PathBuf,
    file: File,
    entered: Entered,
    segments: Vec<Segment>,
    /// From the start of the first segment to the entry point.
    entry: u64,
    len: u64,
}

/// How it is entered, and what that takes.
#[derive(Debug)]
enum Entered {
    /// By Linux's protocol, with this setup header.
    Linux64(Box<setup_header>),
    /// By PVH, which asks this of its place.
    Pvh(Demand),
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
    pub fn new(path: &Path, file: File) -> Result<Self, KernelError> {
        let unsupported = |reason: &str| KernelError::Unsupported {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let headers = Headers::read(&file).map_err(|error| unsupported(&error.to_string()))?;
        let notes =
            Notes::read(&headers, &file).map_err(|error| unsupported(&error.to_string()))?;
        let header = headers.file;
        let is_64_bit = is_64_bit(&header, notes.entry.is_some()).map_err(unsupported)?;
        let mut loaded = headers.segments;
        loaded.retain(|segment| segment.p_type == PT_LOAD && segment.p_memsz > 0);
        let file_length = file
            .metadata()
            .map_err(|source| KernelError::Read {
                path: path.to_owned(),
                source,
            })?
            .len();
        let pvh = notes.entry.filter(|_| !(is_64_bit && notes.is_linux));
        let step = if pvh.is_some() { PAGE } else { ALIGNMENT };
        let base = base(&loaded, step).ok_or_else(|| unsupported("it has nothing to load"))?;
        let (segments, len) = place(&loaded, base, step, file_length)
            .ok_or_else(|| unsupported("a segment does not fit its file or memory"))?;
        if len > MAX_MEMORY {
            return Err(unsupported("it requires more than 16 GiB of memory"));
        }
        if overlap(&segments) {
            return Err(unsupported("two of its segments overlap"));
        }
        let entry = pvh
            .unwrap_or(header.e_entry)
            .checked_sub(base)
            .filter(|entry| *entry < len)
            .ok_or_else(|| unsupported("its entry point is in no segment"))?;
        let entered = match pvh {
            None => Entered::Linux64(Box::new(setup_header {
                boot_flag: BOOT_FLAG,
                header: HEADER,
                version: PROTOCOL,
                cmdline_size: MAX_COMMAND_LINE,
                ..Default::default()
            })),
            Some(_) => {
                let demand = pvh_demand(base, len, notes.relocation);
                Entered::Pvh(demand.map_err(unsupported)?)
            }
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            entered,
            segments,
            entry,
            len,
        })
    }
}

/// Whether a program with this header is for 64-bit mode, or why it cannot be used. A 32-bit one has to
/// have a PVH entry point.
fn is_64_bit(header: &FileHeader<LittleEndian>, has_pvh: bool) -> Result<bool, &'static str> {
    if ![ET_EXEC, ET_DYN].contains(&header.e_type) {
        return Err("it is not an executable");
    }
    match (header.class, header.e_machine) {
        (Class::ELF64, EM_X86_64) => Ok(true),
        (Class::ELF32, EM_386 | EM_X86_64) if has_pvh => Ok(false),
        (Class::ELF32, EM_386) => Err("it is for 32-bit x86 and has no PVH entry point"),
        _ => Err("it is not for 64-bit x86"),
    }
}

/// What a PVH kernel of `len` bytes that is linked at `base` asks of its place, or why there
/// cannot be any.
fn pvh_demand(base: u64, len: u64, relocation: Option<Relocation>) -> Result<Demand, &'static str> {
    let end = Gpa(base.saturating_add(len));
    if end > LIMIT_4G {
        return Err("it is entered by PVH, in 32-bit mode, but linked above 4 GiB");
    }
    let (alignment, lowest, below, reason) = match relocation {
        None => (PAGE, Gpa(base), end, NOT_MOVABLE),
        Some(Relocation {
            alignment,
            lowest,
            last,
        }) => {
            let alignment = u64::from(alignment).max(PAGE);
            let below = Gpa(u64::from(last) + 1);
            (alignment, Gpa(lowest.into()), below, MOVABLE)
        }
    };
    if !alignment.is_power_of_two() {
        return Err("its PVH note has an alignment that is not a power of two");
    }
    let reason = if below.0.saturating_sub(len) < low::SIZE {
        LINKED_LOW
    } else {
        reason
    };
    Ok(Demand {
        len,
        alignment,
        lowest,
        below,
        reason,
        // Linux takes the low half of its address (arch/x86/platform/pvh/enlighten.c).
        initramfs_below: LIMIT_4G,
        pieces: SAFE_EXTENTS,
    })
}

/// Where the file's own addresses begin, in steps of `step` bytes.
fn base(loaded: &[ProgramHeader], step: u64) -> Option<u64> {
    let lowest = loaded.iter().map(|segment| segment.p_paddr).min()?;
    Some(lowest - lowest % step)
}

/// The segments from `base` on, and the length of all of them in whole steps; `None` if one is
/// not sound.
fn place(
    loaded: &[ProgramHeader],
    base: u64,
    step: u64,
    file_length: u64,
) -> Option<(Vec<Segment>, u64)> {
    let mut len = 0;
    let mut segments = Vec::with_capacity(loaded.len());
    for segment in loaded {
        let place = segment.p_paddr.checked_sub(base)?;
        let file_end = segment.p_offset.checked_add(segment.p_filesz)?;
        if file_end > file_length || segment.p_filesz > segment.p_memsz {
            return None;
        }
        len = len.max(place.checked_add(segment.p_memsz)?);
        segments.push(Segment {
            place,
            file_offset: segment.p_offset,
            file_length: segment.p_filesz,
        });
    }
    Some((segments, len.checked_next_multiple_of(step)?))
}

/// Whether bytes of the file go where others of it do: no linker does that, and loading them all could
/// take any time.
fn overlap(segments: &[Segment]) -> bool {
    let mut loaded: Vec<_> = segments
        .iter()
        .map(|segment| (segment.place, segment.place + segment.file_length))
        .filter(|(start, end)| start < end)
        .collect();
    loaded.sort_unstable();
    loaded.windows(2).any(|pair| pair[0].1 > pair[1].0)
}

impl Kernel for ElfKernel {
    fn path(&self) -> &Path {
        &self.path
    }

    fn demand(&self) -> Demand {
        match &self.entered {
            Entered::Pvh(demand) => *demand,
            Entered::Linux64(_) => Demand {
                len: self.len,
                alignment: ALIGNMENT,
                lowest: Gpa(0),
                below: Demand::NO_LIMIT,
                reason: "addresses end there",
                initramfs_below: Demand::NO_LIMIT,
                pieces: SAFE_EXTENTS,
            },
        }
    }

    fn protocol(&self) -> Protocol<'_> {
        match &self.entered {
            Entered::Pvh(_) => Protocol::Pvh,
            Entered::Linux64(header) => Protocol::Linux64(header),
        }
    }

    fn release(&self) -> Result<Option<Release>, KernelError> {
        let segments = self.segments.iter();
        let parts: Vec<_> = segments
            .map(|segment| segment.file_offset..segment.file_offset + segment.file_length)
            .collect();
        Release::find(&self.file, &parts).map_err(|source| KernelError::Read {
            path: self.path.clone(),
            source,
        })
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
mod tests;
