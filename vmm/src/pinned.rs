//! Guest RAM before it has guest-physical addresses: hugepages, pinned, and where they are.

use std::fs::File;
use std::path::Path;

use address::Iova;
use iommufd_backend::NoiommuSpace;
use iommufd_backend::backend::{DmaBackend, PinRequest};
use iommufd_backend::extent::Extent;
use iommufd_backend::hugepages::{self, HugepageSize, Pool};
use iommufd_backend::software::SoftwareBackend;
use rustix::fs::MemfdFlags;

use crate::config::MemoryConfig;
use crate::error::{Error, process};

/// Where guest RAM stands in the I/O address space. Any place would do, since no hardware reads
/// it; below 512 GiB the kernel's table has few levels, and a multiple of 1 GiB keeps its
/// entries large.
pub const COOKIE: Iova = Iova(1 << 30);

/// What ordinary memory is certain to be made of.
const PAGE: u64 = 4096;

/// Guest RAM as a file and as physical extents.
#[derive(Debug)]
pub struct PinnedRam {
    /// The memory.
    pub file: File,
    /// Where they are, in the order of the file, which begins at [`COOKIE`].
    pub extents: Vec<Extent>,
}

impl PinnedRam {
    /// Takes hugepages from the kernel's pool and pins them in `space`, to which a device is
    /// attached.
    ///
    /// # Errors
    /// [`Error::TooFewHugepages`], [`Error::Backend`]
    pub fn hugepages(memory: &MemoryConfig, space: &mut NoiommuSpace) -> Result<Self, Error> {
        let size = memory.hugepage_size.unwrap_or(HugepageSize::Mib2);
        let file = take_hugepages(memory.size, size)?;
        Self::pin((file, size.bytes()), memory, space)
    }

    /// Takes memory of any kind and pins it in `space`, to which a device is attached.
    ///
    /// # Errors
    /// [`Error::TooFewHugepages`], [`Error::Backend`], [`Error::Process`]
    pub fn scattered(memory: &MemoryConfig, space: &mut NoiommuSpace) -> Result<Self, Error> {
        let page_size = memory.hugepage_size.map_or(PAGE, HugepageSize::bytes);
        Self::pin((unpinned(memory)?, page_size), memory, space)
    }

    /// Takes any memory and pins it in `space`, whose physical memory is synthetic: in large pages
    /// if it has to stand `at_identity`.
    ///
    /// # Errors
    /// [`Error::TooFewHugepages`], [`Error::Backend`], [`Error::Software`], [`Error::Process`]
    pub fn synthetic(
        memory: &MemoryConfig,
        space: &mut SoftwareBackend,
        at_identity: bool,
    ) -> Result<Self, Error> {
        let page_size = match memory.hugepage_size {
            Some(size) => size.bytes(),
            None if at_identity => HugepageSize::Mib2.bytes(),
            None => PAGE,
        };
        Self::pin((unpinned(memory)?, page_size), memory, space)
    }

    fn pin<B: DmaBackend>(
        (file, page_size): (File, u64),
        memory: &MemoryConfig,
        space: &mut B,
    ) -> Result<Self, Error>
    where
        Error: From<B::Error>,
    {
        let extents = space.pin(&PinRequest {
            file: &file,
            offset: 0,
            len: memory.size,
            page_size,
            iova: COOKIE,
        })?;
        Ok(Self { file, extents })
    }
}

/// Guest RAM of hugepages, or of ordinary memory, that is not pinned yet.
///
/// # Errors
/// [`Error::TooFewHugepages`], [`Error::Backend`], [`Error::Process`]
pub fn unpinned(memory: &MemoryConfig) -> Result<File, Error> {
    if let Some(size) = memory.hugepage_size {
        return take_hugepages(memory.size, size);
    }
    let file = rustix::fs::memfd_create("guest-memory", MemfdFlags::CLOEXEC)
        .map_err(|errno| process("make guest memory")(errno.into()))?;
    let file = File::from(file);
    file.set_len(memory.size)
        .map_err(process("size guest memory"))?;
    Ok(file)
}

/// Takes `bytes` of hugepages from the kernel's pool of `size` and clears them.
fn take_hugepages(bytes: u64, size: HugepageSize) -> Result<File, Error> {
    let need = bytes / size.bytes();
    let pool = Pool::read(Path::new("/sys"), size)?;
    let too_few = |pool: Pool| Error::TooFewHugepages {
        size,
        need,
        available: pool.available(),
        total: pool.total,
    };
    if pool.available() < need {
        return Err(too_few(pool));
    }
    let file = hugepages::memfd(size)?;
    file.set_len(bytes).map_err(process("size guest memory"))?;
    // Somebody else may have taken pages since the pool was read.
    hugepages::populate(&file, 0, bytes).map_err(|error| match error {
        iommufd_backend::Error::Map { ref source, .. }
            if source.raw_os_error() == Some(libc::ENOSPC) =>
        {
            Pool::read(Path::new("/sys"), size).map_or(error.into(), too_few)
        }
        error => error.into(),
    })?;
    Ok(file)
}
