// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory of this process and where it lies.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};

use crate::error::{AtPath, Error, Result};

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// Bits 0-54 of an entry of pagemap: the page's frame number, if bit 63 marks it as present (Linux
/// Documentation/admin-guide/mm/pagemap.rst).
const FRAME: u64 = (1 << 55) - 1;
const PRESENT: u64 = 1 << 63;

/// Pages that others have mapped, too (Linux include/uapi/linux/mempolicy.h).
const MPOL_MF_MOVE_ALL: i32 = 1 << 2;

/// A populated and locked mapping.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<u64>,
    len: usize,
}

/// How a mapping is backed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// A transparent hugepage if there is one.
    Transparent,
    /// A hugepage of 2 MiB from the pool.
    Hugepage,
    /// Pages of 4 KiB only.
    Small,
}

impl Mapping {
    /// Maps `len` bytes of private memory, and makes all of them present.
    ///
    /// # Errors
    /// The errno of `mmap`, `madvise` or `mlock`: no memory.
    pub fn new(len: usize, backing: Backing) -> io::Result<Self> {
        let huge = if backing == Backing::Hugepage {
            libc::MAP_HUGETLB | libc::MAP_HUGE_2MB
        } else {
            0
        };
        let mapping = Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | huge, -1, 0)?;
        let advice = match backing {
            Backing::Transparent => Some(libc::MADV_HUGEPAGE),
            Backing::Small => Some(libc::MADV_NOHUGEPAGE),
            Backing::Hugepage => None,
        };
        if let Some(advice) = advice {
            mapping.advise(advice);
        }
        let mapping = mapping.lock()?;
        if backing == Backing::Transparent {
            // What is in small pages stays where it is: khugepaged would move locked pages as well.
            mapping.advise(libc::MADV_NOHUGEPAGE);
        }
        Ok(mapping)
    }

    fn advise(&self, advice: i32) {
        // SAFETY: the range is the mapping's own; no advice of this file changes contents.
        unsafe { libc::madvise(self.address.as_ptr().cast(), self.len, advice) };
    }

    /// Maps `len` bytes of a file of shared memory, and makes all of them present.
    ///
    /// # Errors
    /// The errno of `mmap` or `mlock`: no memory.
    pub fn of_file(file: &File, offset: usize, len: usize) -> io::Result<Self> {
        Self::map_file(file, offset, len)?.lock()
    }

    /// The same, where memory that is not there yet is taken from NUMA node `node`; see mbind(2).
    ///
    /// # Errors
    /// The errno of `mmap`, `mbind` or `mlock`. The process is killed if the node has too little.
    pub fn on_node(file: &File, offset: usize, len: usize, node: u32) -> io::Result<Self> {
        let mapping = Self::map_file(file, offset, len)?;
        let nodes = 1_u64 << node;
        // SAFETY: the range is the mapping's own; the set of 64 nodes is read during the call only.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                mapping.address.as_ptr(),
                len,
                libc::MPOL_BIND,
                &raw const nodes,
                64_usize,
                0,
            )
        };
        match result {
            0 => mapping.lock(),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn map_file(file: &File, offset: usize, len: usize) -> io::Result<Self> {
        let offset = i64::try_from(offset).map_err(io::Error::other)?;
        Self::map(len, libc::MAP_SHARED, file.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: i32, file: i32, offset: i64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a mapping at an address of the kernel's choice touches no existing memory.
        let address = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, file, offset) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { address, len })
    }

    fn lock(self) -> io::Result<Self> {
        // SAFETY: the range is the mapping's own; locking faults it in and changes no contents.
        match unsafe { libc::mlock(self.address.as_ptr().cast(), self.len) } {
            0 => Ok(self),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Moves its first page to NUMA node `node`, even if other processes have it mapped; see move_pages(2).
    ///
    /// # Errors
    /// The call's errno, or the page's: `EBUSY`.
    pub fn migrate(&self, node: i32) -> io::Result<()> {
        let page = self.address.as_ptr();
        let mut status = 0_i32;
        // SAFETY: one page, one node and one status are read or written during the call only; a move keeps contents.
        let result = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                1_usize,
                &raw const page,
                &raw const node,
                &raw mut status,
                MPOL_MF_MOVE_ALL,
            )
        };
        match (result, status) {
            (0, 0..) => Ok(()),
            (0, _) => Err(io::Error::from_raw_os_error(-status)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Takes its memory out of use, and gives it other memory with the same contents; see madvise(2).
    ///
    /// # Errors
    /// `EBUSY`; `EINVAL` without CONFIG_MEMORY_FAILURE.
    pub fn soft_offline(&self) -> io::Result<()> {
        let address = self.address.as_ptr().cast();
        // SAFETY: the range is the mapping's own; the advice changes no contents.
        match unsafe { libc::madvise(address, self.len, libc::MADV_SOFT_OFFLINE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Gives its page number `page` back to the kernel; read again, it is zero. See madvise(2).
    ///
    /// # Errors
    /// The call's errno: `EINVAL` before Linux 5.18, or beyond its end.
    pub fn free_page(&self, page: usize) -> io::Result<()> {
        let offset = page.saturating_mul(PAGE);
        if offset >= self.len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let address = self.address.as_ptr().wrapping_byte_add(offset).cast();
        // SAFETY: the page is the mapping's own, and no reference into it exists: `words` borrows exclusively.
        match unsafe { libc::madvise(address, PAGE, libc::MADV_DONTNEED_LOCKED) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Its contents.
    pub fn words(&mut self) -> &mut [u64] {
        // SAFETY: the mapping is readable, writable, aligned to a page, lives as long as `self`, which is
        // borrowed exclusively, and any bits are a u64.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.len / 8) }
    }

    /// The frame numbers of its pages; `None` for one that is not present.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Usage`] if the kernel hides frame numbers (no CAP_SYS_ADMIN).
    pub fn frames(&self, pagemap: &File) -> Result<Vec<Option<u64>>> {
        let first = self.address.as_ptr().addr() / PAGE;
        let mut bytes = vec![0; self.len / PAGE * 8];
        let offset = u64::try_from(first * 8).unwrap_or(u64::MAX);
        pagemap
            .read_exact_at(&mut bytes, offset)
            .at("read", "/proc/self/pagemap")?;
        let entries = bytes
            .as_chunks()
            .0
            .iter()
            .map(|entry| u64::from_le_bytes(*entry));
        let frames: Vec<Option<u64>> = entries
            .map(|entry| (entry & PRESENT != 0).then_some(entry & FRAME))
            .collect();
        if frames.contains(&Some(0)) {
            return Err(Error::Usage(
                "The kernel hides frame numbers; run as root".into(),
            ));
        }
        Ok(frames)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping's own, and nothing borrows from a value being dropped.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.len) };
    }
}

/// Opens this process's pagemap.
///
/// # Errors
/// [`Error::File`].
pub fn pagemap() -> Result<File> {
    File::open("/proc/self/pagemap").at("open", "/proc/self/pagemap")
}

/// MiB of this machine's memory that are free.
///
/// # Errors
/// [`Error::File`], [`Error::Malformed`].
pub fn free_mib() -> Result<usize> {
    let path = "/proc/meminfo";
    let text = fs::read_to_string(path).at("read", path)?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemFree:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<usize>().ok())
        .map(|kib| kib >> 10)
        .ok_or_else(|| Error::Malformed {
            path: path.into(),
            reason: "no MemFree".into(),
        })
}
