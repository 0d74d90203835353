// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The headers of an ELF file, limited to what a kernel can need: files and their contents are not
//! trusted.

use std::fs::File;
use std::os::unix::fs::FileExt;

use elf::ParseError;
use elf::abi::EI_NIDENT;
use elf::endian::LittleEndian;
use elf::file::{Class, ELF32_EHDR_TAILSIZE, ELF64_EHDR_TAILSIZE, FileHeader, parse_ident};
use elf::parse::ParseAt;
use elf::segment::{ProgramHeader, SegmentTable};

/// More segments than any kernel has: Linux has a dozen.
const MAX_SEGMENTS: usize = 256;

/// Why the headers cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeadersError {
    /// They are not headers.
    #[error("its ELF headers are invalid: {0}")]
    Broken(#[from] ParseError),
    /// There are too many.
    #[error("it has {0} segments, more than {MAX_SEGMENTS}")]
    TooMany(usize),
}

/// The headers of an ELF file.
#[derive(Debug)]
pub struct Headers {
    /// Kind, machine, entry point.
    pub file: FileHeader<LittleEndian>,
    /// Its segments, of all types.
    pub segments: Vec<ProgramHeader>,
}

impl Headers {
    pub(super) fn read(file: &File) -> Result<Self, HeadersError> {
        let mut start = [0; EI_NIDENT + ELF64_EHDR_TAILSIZE];
        let ident = &mut start[..EI_NIDENT];
        file.read_exact_at(ident, 0).map_err(ParseError::from)?;
        let ident = parse_ident(ident)?;
        let tail = match ident.1 {
            Class::ELF32 => &mut start[..ELF32_EHDR_TAILSIZE],
            Class::ELF64 => &mut start[..ELF64_EHDR_TAILSIZE],
        };
        file.read_exact_at(tail, EI_NIDENT as u64)
            .map_err(ParseError::from)?;
        let header = FileHeader::parse_tail(ident, tail)?;
        let count = usize::from(header.e_phnum);
        if count > MAX_SEGMENTS {
            return Err(HeadersError::TooMany(count));
        }
        let size = ProgramHeader::validate_entsize(header.class, header.e_phentsize.into());
        // A file without segments need not specify their size.
        let size = if count == 0 { 0 } else { size? };
        let mut table = vec![0; count * size];
        file.read_exact_at(&mut table, header.e_phoff)
            .map_err(ParseError::from)?;
        let table = SegmentTable::new(header.endianness, header.class, &table);
        Ok(Self {
            segments: table.iter().collect(),
            file: header,
        })
    }
}
