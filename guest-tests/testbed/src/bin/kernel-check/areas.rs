// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `IOMMU_IOAS_NOIOMMU_GET_PA` inside a page, at the end of an area beside another one, and while memory
//! is unmapped: from the address space, in part and as a whole, and from this process.

use std::fs::File;

use address::{Bdf, Hpa};
use iommufd_backend::FileRange;
use iommufd_backend::{Mapping, Pagemap};

use crate::raw::{self, PAGE, Request, answer, attach, call, map_file, name, unmap};
use crate::refusals::{expect, question};
use crate::{Outcome, pagemap};

const FIRST: u64 = 1 << 30;
/// Of each of two areas, one beside the other in the address space and in their file.
const LENGTH: u64 = 8 * PAGE;
const SECOND: u64 = FIRST + LENGTH;
/// Memory that is mapped by its address in this process.
const BY_ADDRESS: u64 = 1 << 31;
const MAP: u8 = 0x85;

pub fn run(bdf: Bdf) -> Outcome {
    let iommufd = raw::iommufd()?;
    let (device, _) = raw::bound(bdf, &iommufd)?;
    let ioas = raw::ioas(&iommufd)?;
    attach(&device, ioas)?;
    let memory = Memory::new()?;
    for (iova, offset) in [(FIRST, 0), (SECOND, LENGTH)] {
        map_file(&iommufd, ioas, iova, memory.area(offset))?;
    }
    let offsets = inside_a_page(&iommufd, ioas, &memory)?;
    let pages = at_the_end(&iommufd, ioas, &memory)?;
    unmapped(&iommufd, ioas, &memory)?;
    unmapped_here(&iommufd, ioas, memory)?;
    drop(device);
    Ok(format!(
        "{offsets} offsets inside of pages, {pages} pages of two areas side by side, of which one goes, and \
         memory that this process no longer has"
    ))
}

/// A file, and where it is in this process.
struct Memory {
    file: File,
    mapping: Mapping,
}

impl Memory {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = File::from(rustix::fs::memfd_create("areas", flags)?);
        file.set_len(2 * LENGTH)?;
        let mut mapping = Mapping::reserve(2 * LENGTH, 0)?;
        mapping.place(0, FileRange::first(&file, 2 * LENGTH), "memory to look up")?;
        Ok(Self { file, mapping })
    }

    /// The area of the file at `offset`.
    fn area(&self, offset: u64) -> FileRange<'_> {
        FileRange::new(&self.file, &(offset..offset + LENGTH))
    }

    /// Where pagemap has the byte at `offset` of the file is.
    fn hpa(&self, offset: u64) -> Result<Hpa, Box<dyn std::error::Error>> {
        pagemap::touch(&self.mapping, [offset / PAGE]);
        pagemap::hpa(&Pagemap::open()?, self.mapping.start() + offset)
    }
}

fn differs(what: &str, found: impl std::fmt::Debug, wanted: impl std::fmt::Debug) -> String {
    format!("{what}: {found:x?} instead of {wanted:x?}")
}

/// The address is that of the byte asked for, and the length ends with the page if no more is asked for.
fn inside_a_page(
    iommufd: &File,
    ioas: u32,
    memory: &Memory,
) -> Result<usize, Box<dyn std::error::Error>> {
    let offsets = [0, 1, 7, 8, 511, 2048, 4094, 4095, PAGE + 1, 3 * PAGE + 4095];
    for offset in offsets {
        let rest = PAGE - offset % PAGE;
        for length in [1, rest] {
            let found = answer(iommufd, ioas, FIRST + offset, length)?;
            let wanted = (memory.hpa(offset)?.0, length);
            if found != wanted {
                return Err(differs(&format!("offset {offset}"), found, wanted).into());
            }
        }
    }
    Ok(offsets.len())
}

/// An answer ends with its area, even if the next one continues at the next address. Both have
/// their own pages.
fn at_the_end(
    iommufd: &File,
    ioas: u32,
    memory: &Memory,
) -> Result<u64, Box<dyn std::error::Error>> {
    for page in 0..2 * LENGTH / PAGE {
        let offset = page * PAGE;
        let (hpa, length) = answer(iommufd, ioas, FIRST + offset, 2 * LENGTH)?;
        let wanted = memory.hpa(offset)?;
        let rest = LENGTH - offset % LENGTH;
        if hpa != wanted.0 || length == 0 || length > rest {
            let text = format!("page {page}, {rest:#x} bytes before the end of its area");
            return Err(differs(&text, (hpa, length), (wanted, rest)).into());
        }
    }
    let (_, length) = answer(iommufd, ioas, SECOND - 1, PAGE)?;
    match length {
        1 => Ok(2 * LENGTH / PAGE),
        _ => Err(differs("the last byte of the first area", length, 1).into()),
    }
}

/// A part of an area cannot be unmapped, and is still there; the whole is gone, and the area beside it is not.
fn unmapped(iommufd: &File, ioas: u32, memory: &Memory) -> Result<(), Box<dyn std::error::Error>> {
    let part = unmap(iommufd, ioas, FIRST + PAGE, PAGE);
    if part != libc::ENOENT {
        return Err(differs("unmap of a part", name(part), "ENOENT").into());
    }
    expect(
        iommufd,
        "an area of which a part was to go",
        question(ioas, FIRST + PAGE),
        0,
    )?;
    match unmap(iommufd, ioas, FIRST, LENGTH) {
        0 => {}
        errno => return Err(differs("unmap", name(errno), "success").into()),
    }
    for gone in [FIRST, FIRST + 1, SECOND - 1] {
        expect(
            iommufd,
            "an area that was unmapped",
            question(ioas, gone),
            libc::ENOENT,
        )?;
    }
    let beside = answer(iommufd, ioas, SECOND, PAGE)?.0;
    let wanted = memory.hpa(LENGTH)?;
    if beside != wanted.0 {
        return Err(differs("the area beside", beside, wanted).into());
    }
    map_file(iommufd, ioas, FIRST, memory.area(0))?;
    expect(
        iommufd,
        "an area that was mapped again",
        question(ioas, FIRST),
        0,
    )
}

/// Memory that was mapped by its address stays pinned where it is when this process unmaps it.
fn unmapped_here(
    iommufd: &File,
    ioas: u32,
    memory: Memory,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut map = Request::new(40)
        .word(4, 7)
        .word(8, ioas)
        .long(16, memory.mapping.start().0)
        .long(24, LENGTH)
        .long(32, BY_ADDRESS);
    match call(iommufd, MAP, &mut map) {
        0 => {}
        errno => return Err(differs("map by address", name(errno), "success").into()),
    }
    let before = answer(iommufd, ioas, BY_ADDRESS + 5, 1)?;
    let wanted = (memory.hpa(5)?.0, 1);
    if before != wanted {
        return Err(differs("memory mapped by its address", before, wanted).into());
    }
    drop(memory);
    let after = answer(iommufd, ioas, BY_ADDRESS + 5, 1)?;
    match after == before {
        true => Ok(()),
        false => Err(differs("memory that this process unmapped", after, before).into()),
    }
}
