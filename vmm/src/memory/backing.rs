// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest RAM before it has guest-physical addresses: pinned hugepages and their physical addresses.

mod error;
mod taking;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use address::Iova;
use host::{AutoDma, AvailableMemory, SysRoot, WantedMemory, available_memory};
use iommufd_backend::Error as Backend;
use iommufd_backend::extent::{self, merge};
use iommufd_backend::hugepages::{self, HugepageSize, Pool};
use iommufd_backend::{NoiommuSpace, PinRequest};
use rustix::fs::MemfdFlags;

use crate::bus::synthetic::SyntheticMachine;
use crate::config::{Config, MemoryConfig};
use crate::error::explain::process;
use crate::memory::choice::{self, Choice, PageRequirements};
use crate::memory::plan::Extent;
use crate::memory::pool_lock::Turn;
use crate::memory::progress::Progress;

pub use error::{PinError, of_all};
use taking::{PIECE, Taking};

/// The address of guest RAM in the I/O address space, which matters to pinning alone. Any place
/// would do, since no hardware reads it; below 512 GiB the kernel's table has few levels, and a
/// multiple of 1 GiB keeps its entries large.
const COOKIE: Iova = Iova(1 << 30);

/// What ordinary memory is certain to be made of.
pub const PAGE: u64 = 4096;

/// Memory that is not chosen among is cleared and pinned in steps of this number of bytes, so that progress can be shown.
const STEP: u64 = 256 << 20;

/// Guest RAM as a file and as physical extents.
#[derive(Debug)]
pub struct Backing {
    /// The memory. It may be longer, with holes: only what is in `extents` is guest RAM. `None` if it is taken where it
    /// is mapped, since nothing but this process and KVM needs it.
    pub file: Option<File>,
    /// Bytes in each of its pages: each is in one place.
    pub page_size: u64,
    /// Where it is, in the order of the file.
    pub extents: Vec<Extent>,
    /// The choice of its pages, if there was one.
    pub choice: Option<Choice>,
}

impl Backing {
    /// Takes hugepages from the kernel's pool and pins them in `space`, to which a device is
    /// attached: as many as are wished for; where these are scattered, more are taken, and the
    /// best are kept. No device may have been given an address of the memory yet.
    ///
    /// # Errors
    /// [`PinError::TooFewHugepages`], [`PinError::OutOfReach`], [`PinError::Backend`]
    pub fn hugepages(
        memory: &MemoryConfig,
        space: &mut NoiommuSpace,
        required: &PageRequirements<'_>,
    ) -> Result<Self, PinError> {
        let size = memory.page_size();
        let _turn = turn(size);
        let left = check_pool(memory.size, size)?;
        let spare = left.min(memory.spare_pages());
        // More than that only if the kernel has no place else or memory is in too many pieces,
        // and the options do not forbid it.
        let most = match memory.spare {
            Some(_) => spare,
            None => left,
        };
        let file = hugepages::memfd(size)?;
        let length = memory.size + most * size.bytes();
        file.set_len(length).map_err(process("size guest memory"))?;
        let piece = PIECE.max(size.bytes());
        let mut taking = Taking {
            file,
            size,
            wanted: memory.size / size.bytes(),
            space,
            view: taking::view(piece.max(2 * size.bytes())),
            pages: Vec::new(),
            pieces: Vec::new(),
            descends: false,
        };
        let progress = Progress::new("Pinning guest memory", memory.size);
        // Two pages show in which direction the pool gives them.
        let first = std::iter::once(0..(2 * size.bytes()).min(memory.size));
        for Range { end, .. } in first.chain(steps(memory.size, piece)) {
            let bytes = end.saturating_sub(taking.taken());
            taking
                .more(bytes)
                .map_err(|error| error.of_all(memory.size))?;
            progress.advance(bytes);
        }
        let is_good = choice::is_good(&taking.pages, size.bytes(), required);
        let most = match is_good || spare == 0 {
            true => 0,
            false => most,
        };
        let choice = taking.choose(spare, most, required, &progress);
        check_reached(&choice, required.pages)?;
        let kept = taking.keep(choice, required);
        kept.map_err(|error| error.of_all(memory.size))
    }

    /// Takes memory of any kind and pins it in `space`, to which a device is attached.
    ///
    /// # Errors
    /// [`PinError::TooFewHugepages`], [`PinError::TooLittleMemory`], [`PinError::Backend`], [`PinError::Process`]
    pub fn scattered(memory: &MemoryConfig, space: &mut NoiommuSpace) -> Result<Self, PinError> {
        let file = unpinned(memory)?;
        let size = page_size_of(memory);
        Self::pin(file, size, memory, |request| Ok(space.pin(request)?))
    }

    /// Takes any memory and pins it in the physical memory of `machine`: in large pages if that is
    /// for devices' own use.
    ///
    /// # Errors
    /// [`PinError::TooFewHugepages`], [`PinError::Backend`], [`PinError::Software`], [`PinError::Process`]
    pub fn synthetic(
        memory: &MemoryConfig,
        machine: &mut dyn SyntheticMachine,
        uses_physical: bool,
    ) -> Result<Self, PinError> {
        let page_size = match memory.hugepage_size {
            Some(size) => size.bytes(),
            None if uses_physical => HugepageSize::Mib2.bytes(),
            None => PAGE,
        };
        let file = file_of(memory)?;
        Self::pin(file, page_size, memory, |request| {
            machine.pin(request).map_err(PinError::Software)
        })
    }

    /// Memory of a guest without devices.
    ///
    /// # Errors
    /// [`PinError::TooFewHugepages`], [`PinError::Backend`], [`PinError::Process`]
    pub fn plain(memory: &MemoryConfig) -> Result<Self, PinError> {
        if memory.hugepage_size.is_some() {
            return Self::unpinned(memory);
        }
        Ok(Self {
            file: None,
            page_size: PAGE,
            extents: Vec::new(),
            choice: None,
        })
    }

    /// Takes memory that is not pinned here: an IOMMU will translate for all devices.
    ///
    /// # Errors
    /// [`PinError::TooFewHugepages`], [`PinError::Backend`], [`PinError::Process`]
    pub fn unpinned(memory: &MemoryConfig) -> Result<Self, PinError> {
        Ok(Self {
            file: Some(unpinned(memory)?),
            page_size: page_size_of(memory),
            extents: Vec::new(),
            choice: None,
        })
    }

    /// Pins all of `file` by `pin`, in steps.
    fn pin(
        file: File,
        page_size: u64,
        memory: &MemoryConfig,
        mut pin: impl FnMut(&PinRequest<'_>) -> Result<Vec<extent::Extent>, PinError>,
    ) -> Result<Self, PinError> {
        let progress = Progress::new("Pinning guest memory", memory.size);
        let mut extents = Vec::new();
        for range in steps(memory.size, STEP.max(page_size)) {
            let len = range.end - range.start;
            let pinned = pin(&PinRequest {
                file: &file,
                offset: range.start,
                len,
                page_size,
                iova: COOKIE + range.start,
            });
            let pinned = pinned.map_err(|error| error.of_all(memory.size))?;
            extents.extend(pinned);
            progress.advance(len);
        }
        Ok(Self {
            file: Some(file),
            page_size: page_size_of(memory),
            extents: in_file(extents),
            choice: None,
        })
    }
}

/// `extents`, which ascend from [`COOKIE`] on, as parts of the file that they are pinned from.
fn in_file(extents: impl IntoIterator<Item = extent::Extent>) -> Vec<Extent> {
    let part = |extent: extent::Extent| Extent {
        offset: extent.iova() - COOKIE,
        hpa: extent.hpa(),
        len: extent.len(),
    };
    merge(extents).into_iter().map(part).collect()
}

/// Whether `choice` has all `wanted` pages: those that devices do not reach are left out.
fn check_reached(choice: &Choice, wanted: usize) -> Result<(), PinError> {
    let reached = choice.kept.len();
    match reached < wanted {
        true => Err(PinError::OutOfReach {
            need: wanted,
            reached,
            pinned: choice.pinned,
        }),
        false => Ok(()),
    }
}

/// What guest RAM is made of, unless it is always made of hugepages.
fn page_size_of(memory: &MemoryConfig) -> u64 {
    memory.hugepage_size.map_or(PAGE, HugepageSize::bytes)
}

/// Guest RAM of hugepages, or of ordinary memory, that is not pinned yet but will be. All of it is
/// taken then: more than there is would end the process, or others, without an error.
fn unpinned(memory: &MemoryConfig) -> Result<File, PinError> {
    if memory.hugepage_size.is_none() {
        check_available(memory.size, available_memory(&SysRoot::default()))?;
    }
    file_of(memory)
}

/// Whether `bytes` of ordinary memory are available, as far as the kernel shows what is.
fn check_available(bytes: u64, available: Option<AvailableMemory>) -> Result<(), PinError> {
    match available.filter(|available| available.bytes < bytes) {
        Some(available) => Err(PinError::TooLittleMemory { bytes, available }),
        None => Ok(()),
    }
}

/// Guest RAM as a file: hugepages are taken, ordinary memory is not yet.
fn file_of(memory: &MemoryConfig) -> Result<File, PinError> {
    if let Some(size) = memory.hugepage_size {
        let _turn = turn(size);
        check_pool(memory.size, size)?;
        let file = hugepages::memfd(size)?;
        file.set_len(memory.size)
            .map_err(process("size guest memory"))?;
        let progress = Progress::new("Clearing guest memory", memory.size);
        for range in steps(memory.size, STEP.max(size.bytes())) {
            let wanted = memory.size / size.bytes();
            populate(&file, range.clone(), size, wanted)?;
            progress.advance(range.end - range.start);
        }
        return Ok(file);
    }
    let file = rustix::fs::memfd_create("guest-memory", MemfdFlags::CLOEXEC)
        .map_err(|errno| process("allocate guest memory")(errno.into()))?;
    let file = File::from(file);
    file.set_len(memory.size)
        .map_err(process("size guest memory"))?;
    Ok(file)
}

/// `0..bytes` in steps of `step` bytes.
fn steps(bytes: u64, step: u64) -> impl Iterator<Item = Range<u64>> {
    let count = bytes.div_ceil(step);
    (0..count).map(move |number| number * step..bytes.min((number + 1) * step))
}

/// A turn at the pool of `size`: a run that chooses has more pages for a moment than it keeps, and other
/// runs, which would find too few then, begin after it has given them back.
fn turn(size: HugepageSize) -> Turn {
    let pool = Path::new("/sys/kernel/mm/hugepages").join(size.pool_name());
    Turn::at(&pool, "is allocating hugepages")
}

/// What `dma=auto` is for the devices of a guest that have no IOMMU, by the pool of hugepages as it is while no other run
/// is taking some.
pub fn auto_dma(root: &SysRoot, config: &Config) -> AutoDma {
    let memory = WantedMemory {
        bytes: config.memory.size,
        hugepage_size: config.memory.hugepage_size,
    };
    let devices = config.devices.iter().map(|device| (device.bdf, device.dma));
    let _turn = turn(config.memory.page_size());
    AutoDma::decide(root, devices, Some(&memory))
}

/// Whether the host has the guest's memory, `of_hugepages` or ordinary, as far as can be seen before it is taken.
///
/// # Errors
/// [`PinError::TooFewHugepages`], [`PinError::TooLittleMemory`], [`PinError::Backend`]
pub fn check(memory: &MemoryConfig, of_hugepages: bool) -> Result<(), PinError> {
    if !of_hugepages {
        return check_available(memory.size, available_memory(&SysRoot::default()));
    }
    let size = memory.page_size();
    let _turn = turn(size);
    check_pool(memory.size, size).map(drop)
}

/// Whether this process may pin `bytes`. Memory that others of the same user have pinned counts, too, but is seen
/// only when memory is pinned.
///
/// # Errors
/// [`PinError::LockedMemory`]
pub fn check_locked(bytes: u64, limit: Option<u64>) -> Result<(), PinError> {
    match limit.filter(|limit| *limit < bytes) {
        Some(limit) => Err(PinError::LockedMemory { bytes, limit }),
        None => Ok(()),
    }
}

/// How many hugepages the pool has beyond those for `bytes`.
fn check_pool(bytes: u64, size: HugepageSize) -> Result<u64, PinError> {
    let pool = SysRoot::default().hugepages(size)?;
    let need = size.pages_for(bytes);
    pool.available()
        .checked_sub(need)
        .ok_or_else(|| too_few(size, need, 0, pool))
}

fn too_few(size: HugepageSize, need: u64, got: u64, pool: Pool) -> PinError {
    PinError::TooFewHugepages {
        size,
        need,
        got,
        free: pool.available(),
        total: pool.total,
    }
}

/// Allocates the pages of `file` in `range`, cleared; `wanted` is the final number.
fn populate(
    file: &File,
    range: Range<u64>,
    size: HugepageSize,
    wanted: u64,
) -> Result<(), PinError> {
    let bytes = range.end - range.start;
    // Another process may have taken pages since the pool was read, or this process may have no more of
    // them: a limit of its hugetlb control group, NUMA nodes without any.
    hugepages::populate(file, range.start, bytes).map_err(|error| match error {
        Backend::Map { ref source, .. } if source.raw_os_error() == Some(libc::ENOSPC) => {
            let pool = Pool::read(Path::new("/sys"), size);
            // The kernel may have stopped anywhere in the range (stat(2): blocks of 512 bytes).
            let got = file
                .metadata()
                .map_or(0, |file| file.blocks() * 512 / size.bytes());
            pool.map_or(error.into(), |pool| too_few(size, wanted, got, pool))
        }
        error => error.into(),
    })
}

#[cfg(test)]
mod tests;
