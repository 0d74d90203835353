// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The same mappings in the kernel and in an AMDv1 table as a run has it, and the same questions to
//! both and to `/proc/self/pagemap`.

use std::fs::File;
use std::sync::Arc;

use address::{Bdf, Gpa, Hpa, Iova};
use devices::guest_table::{GuestTable, Piece, Pieces};
use iommufd_backend::FileRange;
use iommufd_backend::PinRequest;
use iommufd_backend::extent::Extent;
use iommufd_backend::hugepages::{self, HugepageSize, Pool};
use iommufd_backend::{
    Cdev, Iommufd, Mapping, NoiommuSpace, Pagemap, PciSysfs, TablePages, VfioDevice,
};

use crate::{Outcome, close, pagemap};

const SMALL: u64 = 4096;
const MIB: u64 = 1 << 20;
/// Questions of up to [`SHORT`] bytes, and longer ones.
const QUESTIONS: u64 = 110_000;
const LONG_QUESTIONS: u64 = 100;
const SHORT: u64 = 64 * 1024;
const LONG: u64 = 8 * MIB;
/// One in so many questions is about a place where nothing is mapped.
const MISSES: u64 = 50;

/// An area: part of a file at an IOVA.
struct Area {
    memory: usize,
    iova: Iova,
    offset: u64,
    len: u64,
}

/// A file of memory and the mapping through which pagemap shows it.
struct Memory {
    file: File,
    mapping: Mapping,
    page_size: u64,
}

pub fn run(bdf: Bdf) -> Outcome {
    let iommufd = Arc::new(Iommufd::open()?);
    let device = VfioDevice::bind(Cdev::open(&PciSysfs::default(), bdf)?, Arc::clone(&iommufd))?;
    let mut space = NoiommuSpace::new(iommufd)?;
    space.attach(&device)?;
    let memories = memories()?;
    let mut areas = areas(&memories);
    let mut extents = Vec::new();
    for area in &areas {
        extents.push(pin(&mut space, &memories, area)?);
    }
    // Holes: areas that were there and are gone.
    for gone in [1, 3] {
        let area = areas.remove(gone);
        extents.remove(gone);
        space.unpin(area.iova, area.len)?;
    }
    let table = table(extents.iter().flatten())?;

    let mut comparison = Comparison {
        space: &space,
        table: &table,
        memories: &memories,
        areas: &areas,
        pagemap: Pagemap::open()?,
        hits: 0,
        misses: 0,
        longer: 0,
    };
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..QUESTIONS {
        comparison.ask(
            &mut random,
            1 + random_below(number, SHORT),
            number % MISSES == 0,
        )?;
    }
    for number in 0..LONG_QUESTIONS {
        comparison.ask(&mut random, SHORT + random_below(number, LONG), false)?;
    }
    let Comparison {
        hits,
        misses,
        longer,
        ..
    } = comparison;
    let extents = extents.iter().flatten().count();
    space.release(&close(device)?)?;
    Ok(format!(
        "{hits} addresses in {} areas and {extents} extents agree with GET_PA and pagemap, {misses} \
         misses are misses in both, {longer} runs went on into the next area; 0 disagreements",
        areas.len()
    ))
}

/// A length that depends on the question's number only, spread evenly.
fn random_below(number: u64, limit: u64) -> u64 {
    fastrand::Rng::with_seed(number).u64(0..limit)
}

fn memories() -> Result<Vec<Memory>, Box<dyn std::error::Error>> {
    let mut memories = vec![memory(
        huge(HugepageSize::Mib2, 64 * MIB)?,
        64 * MIB,
        2 * MIB,
    )?];
    let small = File::from(rustix::fs::memfd_create(
        "small",
        rustix::fs::MemfdFlags::CLOEXEC,
    )?);
    small.set_len(96 * MIB)?;
    memories.push(memory(small, 96 * MIB, SMALL)?);
    if Pool::read("/sys".as_ref(), HugepageSize::Gib1)?.available() > 0 {
        memories.push(memory(
            huge(HugepageSize::Gib1, 1 << 30)?,
            1 << 30,
            1 << 30,
        )?);
    }
    Ok(memories)
}

fn huge(size: HugepageSize, length: u64) -> Result<File, Box<dyn std::error::Error>> {
    let file = hugepages::memfd(size)?;
    file.set_len(length)?;
    hugepages::populate(&file, 0, length)?;
    Ok(file)
}

fn memory(file: File, length: u64, page_size: u64) -> Result<Memory, Box<dyn std::error::Error>> {
    let mut mapping = Mapping::reserve(length, 0)?;
    mapping.place(0, FileRange::first(&file, length), "memory to look up")?;
    Ok(Memory {
        file,
        mapping,
        page_size,
    })
}

/// Areas at offsets, with holes between them and neighbours without, some above 512 GiB.
fn areas(memories: &[Memory]) -> Vec<Area> {
    let area = |memory, iova, offset, len| Area {
        memory,
        iova: Iova(iova),
        offset,
        len,
    };
    let base = 1 << 30;
    let mut areas = vec![
        area(0, base, 0, 16 * MIB),
        area(0, base + 16 * MIB, 16 * MIB, 8 * MIB),
        area(0, base + 24 * MIB, 24 * MIB, 24 * MIB),
        area(1, base + 64 * MIB, 0, 4 * MIB),
        area(1, base + 68 * MIB, 4 * MIB, 28 * MIB),
        area(
            1,
            base + 128 * MIB + 3 * SMALL,
            40 * MIB + SMALL,
            16 * MIB + 5 * SMALL,
        ),
        area(1, (1 << 40) + 7 * SMALL, 64 * MIB, 32 * MIB),
        area(0, (1 << 41) + 2 * MIB, 48 * MIB, 16 * MIB),
    ];
    if memories.len() > 2 {
        areas.push(area(2, 1 << 34, 0, 1 << 30));
    }
    areas
}

fn pin(
    space: &mut NoiommuSpace,
    memories: &[Memory],
    area: &Area,
) -> Result<Vec<Extent>, Box<dyn std::error::Error>> {
    let memory = &memories[area.memory];
    let extents = space.pin(&PinRequest {
        file: &memory.file,
        offset: area.offset,
        len: area.len,
        page_size: memory.page_size,
        iova: area.iova,
    })?;
    let first = area.offset / SMALL;
    pagemap::touch(&memory.mapping, first..first + area.len.div_ceil(SMALL));
    Ok(extents)
}

/// A run's table of `extents`, with their IOVAs as the guest's addresses.
fn table<'a>(
    extents: impl Iterator<Item = &'a Extent>,
) -> Result<GuestTable<TablePages>, Box<dyn std::error::Error>> {
    let pieces = Pieces::new(extents.map(|extent| Piece {
        gpa: Gpa(extent.iova().0),
        hpa: extent.hpa(),
        len: extent.len(),
    }))?;
    let count = pieces.table_pages();
    let pages = TablePages::new(count, count as u64 * SMALL, 0)?;
    Ok(GuestTable::build(&pieces, Gpa(0), pages)?)
}

struct Comparison<'a> {
    space: &'a NoiommuSpace,
    table: &'a GuestTable<TablePages>,
    memories: &'a [Memory],
    areas: &'a [Area],
    pagemap: Pagemap,
    hits: u64,
    misses: u64,
    longer: u64,
}

impl Comparison<'_> {
    /// One question to all three, at a place drawn from `random`.
    fn ask(
        &mut self,
        random: &mut fastrand::Rng,
        length: u64,
        miss: bool,
    ) -> Result<(), Box<dyn std::error::Error>> {
        if miss {
            return self.ask_outside(random, length);
        }
        let area = &self.areas[random.usize(0..self.areas.len())];
        let at = random.u64(0..area.len);
        let iova = area.iova + at;
        let (hpa, kernel) = self.space.ask_kernel(iova, length)?;
        let ours = self
            .table
            .translate(Gpa(iova.0), length)
            .ok_or_else(|| format!("{iova} is not in the table"))?;
        let memory = &self.memories[area.memory];
        let page: Hpa = pagemap::hpa(&self.pagemap, memory.mapping.start() + (area.offset + at))?;
        if ours.hpa != hpa || page != hpa {
            return Err(format!("{iova}: kernel {hpa}, table {}, pagemap {page}", ours.hpa).into());
        }
        // The kernel stops at the end of an area; this continues as long as memory does.
        let rest = area.iova + area.len - iova;
        if ours.len > kernel && kernel == rest && kernel < length {
            self.longer += 1;
        } else if ours.len != kernel {
            let ours = ours.len;
            return Err(format!("{iova}: {length} bytes: kernel {kernel}, table {ours}").into());
        }
        self.hits += 1;
        Ok(())
    }

    fn ask_outside(
        &mut self,
        random: &mut fastrand::Rng,
        length: u64,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let iova = Iova(random.u64(0..1 << 42));
        if self
            .areas
            .iter()
            .any(|area| iova >= area.iova && iova < area.iova + area.len)
        {
            return Ok(());
        }
        match (
            self.space.ask_kernel(iova, length),
            self.table.translate(Gpa(iova.0), length),
        ) {
            (Err(_), None) => {
                self.misses += 1;
                Ok(())
            }
            (kernel, table) => Err(format!("{iova} is mapped: {kernel:?} {table:?}").into()),
        }
    }
}
