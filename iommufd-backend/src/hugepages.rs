// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kernel's pools of hugepages, and memory from them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, MemfdFlags};

use crate::error::Error;
use crate::page_size::large_sizes;

/// A size of hugepage that guest memory can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HugepageSize {
    /// 2 MiB
    Mib2,
    /// 32 MiB, where the kernel's pages have 16 KiB.
    Mib32,
    /// 512 MiB, where the kernel's pages have 64 KiB.
    Mib512,
    /// 1 GiB
    Gib1,
}

impl HugepageSize {
    /// All sizes, ascending. No kernel has all of them, and each has that of 2 MiB.
    pub const ALL: [Self; 4] = [Self::Mib2, Self::Mib32, Self::Mib512, Self::Gib1];

    /// Those that a kernel offers whose own pages have `page` bytes, ascending.
    pub fn of_pages(page: u64) -> impl Iterator<Item = Self> {
        let sizes = large_sizes(page);
        let is_offered = |size: &Self| sizes.contains(&size.bytes());
        Self::ALL.into_iter().filter(is_offered)
    }

    /// Bytes in a page.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Mib2 => 2 << 20,
            Self::Mib32 => 32 << 20,
            Self::Mib512 => 512 << 20,
            Self::Gib1 => 1 << 30,
        }
    }

    /// Pages that hold `bytes`.
    #[must_use]
    pub const fn pages_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.bytes())
    }

    fn memfd_flag(self) -> MemfdFlags {
        match self {
            Self::Mib2 => MemfdFlags::HUGE_2MB,
            Self::Mib32 => MemfdFlags::HUGE_32MB,
            Self::Mib512 => MemfdFlags::HUGE_512MB,
            Self::Gib1 => MemfdFlags::HUGE_1GB,
        }
    }

    /// The pool's directory below `/sys/kernel/mm/hugepages`.
    #[must_use]
    pub fn pool_name(self) -> String {
        format!("hugepages-{}kB", self.bytes() / 1024)
    }
}

impl std::fmt::Display for HugepageSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mib2 => "2M",
            Self::Mib32 => "32M",
            Self::Mib512 => "512M",
            Self::Gib1 => "1G",
        })
    }
}

/// Pages of one size that the kernel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Pages in the pool.
    pub total: u64,
    /// Pages that are not in use.
    pub free: u64,
    /// Free pages that are promised to mappings that have not touched them.
    pub reserved: u64,
}

impl Pool {
    /// Reads the pool of `size` pages below `sysfs`, normally `/sys`. A machine without that
    /// size has an empty pool.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Parse`]
    pub fn read(sysfs: &Path, size: HugepageSize) -> Result<Self, Error> {
        Self::below(&sysfs.join("kernel/mm/hugepages"), size)
    }

    /// The parts of the pool on each NUMA node, with the node's number. Pages are promised by
    /// the whole pool, so none is reserved on a node.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Parse`]
    pub fn read_nodes(sysfs: &Path, size: HugepageSize) -> Result<Vec<(u32, Self)>, Error> {
        let directory = sysfs.join("devices/system/node");
        let mut nodes: Vec<u32> = fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                name.strip_prefix("node")?.parse().ok()
            })
            .collect();
        nodes.sort_unstable();
        nodes
            .into_iter()
            .map(|node| {
                let place = format!("devices/system/node/node{node}/hugepages");
                Ok((node, Self::below(&sysfs.join(place), size)?))
            })
            .collect()
    }

    fn below(directory: &Path, size: HugepageSize) -> Result<Self, Error> {
        let directory = directory.join(size.pool_name());
        let count = |name| number(directory.join(name));
        Ok(Self {
            total: count("nr_hugepages")?,
            free: count("free_hugepages")?,
            reserved: count("resv_hugepages")?,
        })
    }

    /// Available pages: free and not reserved.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.free.saturating_sub(self.reserved)
    }
}

fn number(path: PathBuf) -> Result<u64, Error> {
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| Error::Parse {
            path,
            found: text.trim().to_owned(),
        }),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// An empty memfd that takes its pages from the pool of `size`.
///
/// # Errors
/// [`Error::Map`], with `ENOSYS` or `EINVAL` where the kernel has no such pages.
pub fn memfd(size: HugepageSize) -> Result<File, Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | size.memfd_flag();
    rustix::fs::memfd_create("guest-memory", flags)
        .map(File::from)
        .map_err(|errno| Error::Map {
            len: 0,
            what: "hugepages",
            source: errno.into(),
        })
}

/// Gives `file` its pages from `offset` on for `len` bytes, cleared. A signal, as of a terminal
/// that is stopped, interrupts the kernel at it: it then continues, and finds the pages that are
/// there.
///
/// # Errors
/// [`Error::Map`], with `ENOSPC` where the pool has too few.
pub fn populate(file: &File, offset: u64, len: u64) -> Result<(), Error> {
    let flags = FallocateFlags::empty();
    populate_by(len, || rustix::fs::fallocate(file, flags, offset, len))
}

fn populate_by(len: u64, allocate: impl FnMut() -> rustix::io::Result<()>) -> Result<(), Error> {
    rustix::io::retry_on_intr(allocate).map_err(|errno| Error::Map {
        len,
        what: "hugepages",
        source: errno.into(),
    })
}

/// Gives the pages of `file` from `offset` on for `len` bytes back to the pool, unless they
/// are still mapped or pinned: then they go when that ends. The file keeps its length; **touching or
/// pinning the range again takes other pages**.
///
/// # Errors
/// [`Error::Map`]
pub fn give_back(file: &File, offset: u64, len: u64) -> Result<(), Error> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, flags, offset, len).map_err(|errno| Error::Map {
        len,
        what: "a hole in hugepages",
        source: errno.into(),
    })
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn signals_interrupt_the_kernel_and_not_the_caller() {
        let mut answers = [Err(Errno::INTR), Err(Errno::INTR), Ok(())].into_iter();
        populate_by(2 << 20, || answers.next().unwrap()).unwrap();
        let error = populate_by(2 << 20, || Err(Errno::NOSPC)).unwrap_err();
        assert!(
            matches!(error, Error::Map { len: 0x20_0000, .. }),
            "{error}"
        );
    }

    #[test]
    fn reserved_pages_are_not_available() {
        let root = tempfile::tempdir().unwrap();
        let pool = root.path().join("kernel/mm/hugepages/hugepages-2048kB");
        fs::create_dir_all(&pool).unwrap();
        for (name, text) in [
            ("nr_hugepages", "400\n"),
            ("free_hugepages", "350\n"),
            ("resv_hugepages", "300\n"),
        ] {
            fs::write(pool.join(name), text).unwrap();
        }
        let read = Pool::read(root.path(), HugepageSize::Mib2).unwrap();
        assert_eq!(read.available(), 50);
        let none = Pool::read(root.path(), HugepageSize::Gib1).unwrap();
        assert_eq!((none.total, none.available()), (0, 0));
        let node = root
            .path()
            .join("devices/system/node/node1/hugepages/hugepages-2048kB");
        fs::create_dir_all(&node).unwrap();
        fs::write(node.join("free_hugepages"), "7\n").unwrap();
        let nodes = Pool::read_nodes(root.path(), HugepageSize::Mib2).unwrap();
        assert_eq!(nodes.len(), 1);
        assert_eq!((nodes[0].0, nodes[0].1.available()), (1, 7));
        fs::write(pool.join("free_hugepages"), "many").unwrap();
        assert!(matches!(
            Pool::read(root.path(), HugepageSize::Mib2),
            Err(Error::Parse { .. })
        ));
    }
}
