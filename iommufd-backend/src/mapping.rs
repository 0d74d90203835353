// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Address space of this process, released when dropped.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use address::Hva;

use crate::error::Error;
use crate::file_range::FileRange;
use crate::page_size::{host_page_size, large_sizes};

/// A reserved range of host virtual addresses into which files are mapped, or which is memory itself.
///
/// It does not dereference anything: a caller that passes the address to KVM or makes a reference
/// of it must keep the `Mapping` alive that long.
#[derive(Debug)]
pub struct Mapping {
    start: Hva,
    len: u64,
}

#[expect(
    clippy::len_without_is_empty,
    reason = "no mapping of no bytes can be reserved"
)]
impl Mapping {
    /// Reserves `len` bytes, a multiple of the host's pages and not 0, with nothing behind them.
    ///
    /// The start is congruent to `physical` modulo the largest page size that fits: what is
    /// mapped there with the same alignment can be mapped by large entries, by the kernel
    /// (vfio_pci_mmap_huge_fault) and by KVM.
    ///
    /// # Errors
    /// [`Error::Map`], with `EINVAL` if `physical` or `len` is no multiple of the host's pages.
    pub fn reserve(len: u64, physical: u64) -> Result<Self, Error> {
        Self::reserve_in_pages(len, physical, host_page_size())
    }

    /// The same, where pages have `page` bytes, a multiple of those of the host's.
    fn reserve_in_pages(len: u64, physical: u64, page: u64) -> Result<Self, Error> {
        let failed = |source| Error::Map {
            len,
            what: "address space",
            source,
        };
        if !len.is_multiple_of(page) || !physical.is_multiple_of(page) {
            return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let mut large = large_sizes(page).iter().copied();
        let modulus = large.find(|size| *size <= len).unwrap_or(page);
        let slack = modulus - host_page_size();
        let total = len
            .checked_add(slack)
            .and_then(|total| usize::try_from(total).ok())
            .ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that
        // exists. No access is possible through PROT_NONE.
        let pointer = unsafe {
            libc::mmap(
                ptr::null_mut(),
                total,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if pointer == libc::MAP_FAILED {
            return Err(failed(io::Error::last_os_error()));
        }
        let whole = Hva(pointer.expose_provenance() as u64);
        let ahead = (physical % modulus).wrapping_sub(whole.0) & (modulus - 1);
        let start = whole + ahead;
        unmap(whole, ahead);
        unmap(start + len, slack - ahead);
        Ok(Self { start, len })
    }

    /// Puts memory of this process alone into the whole range, cleared and taken as it is used, in large pages as far
    /// as the system gives them for the asking (Documentation/admin-guide/mm/transhuge.rst).
    ///
    /// # Errors
    /// [`Error::Map`], naming `what`.
    pub fn allocate(&mut self, what: &'static str) -> Result<(), Error> {
        let len = self.len;
        let failed = |source| Error::Map { len, what, source };
        let bytes =
            usize::try_from(len).map_err(|_| failed(io::Error::from_raw_os_error(libc::EINVAL)))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range is this object's, which has lent out no reference into it.
        if unsafe { libc::mprotect(pointer(self.start), bytes, protection) } != 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: as above; the advice changes no contents.
        if unsafe { libc::madvise(pointer(self.start), bytes, libc::MADV_HUGEPAGE) } != 0 {
            let error = io::Error::last_os_error();
            log::debug!("No large pages for {what}: {error}");
        }
        Ok(())
    }

    /// Maps `part` of a file at `at` bytes from the start, shared and for reading and writing, in
    /// place of what was there.
    ///
    /// # Errors
    /// [`Error::Map`], naming `what`; `EINVAL` if the range is not within the reservation.
    pub fn place(&mut self, at: u64, part: FileRange<'_>, what: &'static str) -> Result<(), Error> {
        let len = part.len;
        let failed = |source| Error::Map { len, what, source };
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        let (true, Ok(bytes), Ok(offset)) =
            (inside, usize::try_from(len), i64::try_from(part.offset))
        else {
            return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
        };
        // SAFETY: the range is inside the reservation, which this object owns, so MAP_FIXED
        // replaces no other mapping.
        let pointer = unsafe {
            libc::mmap(
                pointer(self.start + at),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                part.file.as_raw_fd(),
                offset,
            )
        };
        if pointer == libc::MAP_FAILED {
            return Err(failed(io::Error::last_os_error()));
        }
        Ok(())
    }

    /// Enters all pages of what is mapped into this process's page tables, as reading each of them
    /// would: `/proc/self/pagemap` covers these only.
    ///
    /// # Errors
    /// [`Error::Map`], with `EFAULT` where a page cannot be allocated; those before it are entered.
    pub fn populate(&self) -> Result<(), Error> {
        self.populate_first(self.len)
    }

    /// The same for the first `len` bytes.
    ///
    /// # Errors
    /// Those of [`populate`](Self::populate); `EINVAL` if there are fewer.
    pub(crate) fn populate_first(&self, len: u64) -> Result<(), Error> {
        let failed = |source| Error::Map {
            len,
            what: "memory that was mapped before",
            source,
        };
        let inside = Some(len).filter(|len| *len <= self.len);
        let len = inside
            .and_then(|len| usize::try_from(len).ok())
            .ok_or_else(|| failed(io::Error::from_raw_os_error(libc::EINVAL)))?;
        // SAFETY: the advice (Linux 5.14, mm/madvise.c madvise_populate) changes page tables and
        // the contents of no page; the range is this object's.
        let result = unsafe { libc::madvise(pointer(self.start), len, libc::MADV_POPULATE_READ) };
        match result {
            0 => Ok(()),
            _ => Err(failed(io::Error::last_os_error())),
        }
    }

    /// Where the range begins.
    #[must_use]
    pub fn start(&self) -> Hva {
        self.start
    }

    /// Bytes in the range.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.start, self.len);
    }
}

pub(crate) fn pointer(address: Hva) -> *mut libc::c_void {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an address of this process"
    )]
    let address = address.0 as usize;
    ptr::with_exposed_provenance_mut(address)
}

/// Unmaps `len` bytes from `start`, which must be part of a reservation that its owner is letting
/// go of.
fn unmap(start: Hva, len: u64) {
    if len == 0 {
        return;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the size of a mapping of ours"
    )]
    let len = len as usize;
    // SAFETY: only called on ranges that `Mapping` reserved and has not released.
    let result = unsafe { libc::munmap(pointer(start), len) };
    if result != 0 {
        log::error!(
            "Cannot unmap {len} bytes at {start}: {}",
            io::Error::last_os_error()
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_start_is_congruent_to_the_physical_address() {
        for (len, physical, modulus) in [
            (0x1000, 0xfe80_1000, 0x1000),
            (2 << 20, 0x1_4020_0000, 2 << 20),
            (64 << 20, 0x1_4030_0000, 2 << 20),
            (1 << 30, 0x1_4020_0000, 1 << 30),
        ] {
            let mapping = Mapping::reserve(len, physical).unwrap();
            assert_eq!(mapping.start().0 % modulus, physical % modulus);
            assert_eq!(mapping.len(), len);
        }
    }

    #[test]
    fn larger_pages_are_kept_together() {
        for (page, len, physical, modulus) in [
            (0x4000, 0x8000, 0x1b_0000_4000, 0x4000),
            (0x4000, 33 << 20, 0x1_4100_4000, 32 << 20),
            (0x4000, 1 << 30, 0x4_3210_0000, 1 << 30),
            (0x1_0000, 0x1_0000, 0xfa01_0000, 0x1_0000),
            (0x1_0000, 600 << 20, 0x2_1234_0000, 512 << 20),
        ] {
            let mapping = Mapping::reserve_in_pages(len, physical, page).unwrap();
            assert_eq!(mapping.start().0 % modulus, physical % modulus);
            assert_eq!(mapping.len(), len);
        }
        for (page, len, physical) in [(0x4000, 0x4000, 0x1000), (0x1_0000, 0x4000, 0)] {
            assert!(Mapping::reserve_in_pages(len, physical, page).is_err());
        }
    }

    #[test]
    fn allocated_memory_can_be_written() {
        let mut mapping = Mapping::reserve(4 << 20, 0).unwrap();
        mapping.allocate("memory").unwrap();
        let last = pointer(mapping.start() + (mapping.len() - 8)).cast::<u64>();
        // SAFETY: the last word of the mapping, into which there is no reference.
        unsafe {
            assert_eq!(last.read_volatile(), 0);
            last.write_volatile(7);
            assert_eq!(last.read_volatile(), 7);
        }
    }

    #[test]
    fn a_file_is_placed_inside_only() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 8192]).unwrap();
        let mut mapping = Mapping::reserve(8192, 0).unwrap();
        let part = FileRange {
            file: file.as_fd(),
            offset: 4096,
            len: 4096,
        };
        mapping.place(4096, part, "a file").unwrap();
        for (at, len) in [(4096, 8192), (u64::MAX, 4096), (8192, 4096)] {
            let part = FileRange {
                offset: 0,
                len,
                ..part
            };
            assert!(mapping.place(at, part, "a file").is_err());
        }
    }
}
