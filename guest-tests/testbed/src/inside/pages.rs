// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory of this process and where it lies.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};

use crate::error::{AtPath, Error, Result};

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// Bits 0-54 of an entry of pagemap: the page's frame number, if bit 63 marks it as present (Linux
/// Documentation/admin-guide/mm/pagemap.rst).
const FRAME: u64 = (1 << 55) - 1;
const PRESENT: u64 = 1 << 63;

/// An anonymous, private, populated and locked mapping.
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
}

impl Mapping {
    /// Maps `len` bytes, and makes all of them present.
    ///
    /// # Errors
    /// The errno of `mmap`, `madvise` or `mlock`: no memory.
    pub fn new(len: usize, backing: Backing) -> io::Result<Self> {
        let huge = if backing == Backing::Hugepage {
            libc::MAP_HUGETLB | libc::MAP_HUGE_2MB
        } else {
            0
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | huge;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Self { address, len };
        if backing == Backing::Transparent {
            // SAFETY: the range is the mapping's own; the advice changes no contents.
            unsafe { libc::madvise(mapping.address.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        // SAFETY: the range is the mapping's own; locking faults it in and changes no contents.
        match unsafe { libc::mlock(mapping.address.as_ptr().cast(), len) } {
            0 => Ok(mapping),
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
