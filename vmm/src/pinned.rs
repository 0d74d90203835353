//! Guest RAM before it has guest-physical addresses: hugepages, pinned, and where they are.

use std::fs::File;
use std::path::Path;

use address::Iova;
use iommufd_backend::NoiommuSpace;
use iommufd_backend::backend::{DmaBackend, PinRequest};
use iommufd_backend::extent::Extent;
use iommufd_backend::hugepages::{self, Pool};

use crate::config::MemoryConfig;
use crate::error::Error;

/// Where guest RAM stands in the I/O address space. Any place would do, since no hardware reads
/// it; below 512 GiB the kernel's table has few levels, and a multiple of 1 GiB keeps its
/// entries large.
pub const COOKIE: Iova = Iova(1 << 30);

/// Guest RAM as a file and as physical extents.
#[derive(Debug)]
pub struct PinnedRam {
    /// The hugepages.
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
    pub fn new(memory: &MemoryConfig, space: &mut NoiommuSpace) -> Result<Self, Error> {
        let size = memory.hugepage_size;
        let need = memory.size / size.bytes();
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
        file.set_len(memory.size).map_err(|source| Error::Process {
            operation: "size guest memory",
            source: source.into(),
        })?;
        // Somebody else may have taken pages since the pool was read.
        hugepages::populate(&file, 0, memory.size).map_err(|error| match error {
            iommufd_backend::Error::Map { ref source, .. }
                if source.raw_os_error() == Some(libc::ENOSPC) =>
            {
                Pool::read(Path::new("/sys"), size).map_or(error.into(), too_few)
            }
            error => error.into(),
        })?;
        let extents = space.pin(&PinRequest {
            file: &file,
            offset: 0,
            len: memory.size,
            page_size: size.bytes(),
            iova: COOKIE,
        })?;
        Ok(Self { file, extents })
    }
}
