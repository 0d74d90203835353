// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory that others read and write, too: registers, and buffers of a device. All `unsafe` is here.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};

use rustix::mm::{self, MapFlags, ProtFlags};

/// A mapping of whole pages, accessed in naturally aligned, little-endian words. As on a bus, words that are not
/// in it read as all-ones, and writes of them are lost.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
    is_writable: bool,
}

impl Mapping {
    /// All of a function's `resourceN` file.
    pub fn of_file(file: &File, is_writable: bool) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let len = NonZeroUsize::new(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        let protection = if is_writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: no address is asked for, so the kernel takes a free one and nothing else is replaced.
        let start = unsafe {
            mm::mmap(
                ptr::null_mut(),
                len.get(),
                protection,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        Self::new(start, len, is_writable)
    }

    /// One hugepage of `len` bytes, zeroed and locked.
    pub fn hugepage(len: NonZeroUsize, size: MapFlags) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | size | MapFlags::POPULATE;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: as above.
        let start = unsafe { mm::mmap_anonymous(ptr::null_mut(), len.get(), protection, flags) }?;
        let mapping = Self::new(start, len, true)?;
        // SAFETY: these are the pages of the mapping just made.
        unsafe { mm::mlock(start, len.get()) }?;
        Ok(mapping)
    }

    fn new(
        start: *mut core::ffi::c_void,
        len: NonZeroUsize,
        is_writable: bool,
    ) -> io::Result<Self> {
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self {
            start,
            len: len.get(),
            is_writable,
        })
    }

    /// Virtual address of the first byte.
    pub fn address(&self) -> usize {
        self.start.addr().get()
    }

    pub fn read32(&self, offset: u64) -> u32 {
        self.read(offset).map_or(u32::MAX, u32::from_le)
    }

    pub fn read64(&self, offset: u64) -> u64 {
        self.read(offset).map_or(u64::MAX, u64::from_le)
    }

    pub fn write32(&self, offset: u64, value: u32) {
        self.write(offset, value.to_le());
    }

    pub fn write64(&self, offset: u64, value: u64) {
        self.write(offset, value.to_le());
    }

    fn read<T: Word>(&self, offset: u64) -> Option<T> {
        let at = self.at(offset)?;
        // SAFETY: `at` is an aligned word of the mapping, which lives as long as `self`. All its values are valid.
        Some(unsafe { at.read_volatile() })
    }

    fn write<T: Word>(&self, offset: u64, value: T) {
        if let Some(at) = self.at(offset).filter(|_| self.is_writable) {
            // SAFETY: as for reading, and the mapping is writable. No reference into it exists.
            unsafe { at.write_volatile(value) };
        }
    }

    /// Where a word is, if all of it is in the mapping and it is aligned. (A mapping begins with a page.)
    fn at<T: Word>(&self, offset: u64) -> Option<NonNull<T>> {
        let (offset, size) = (usize::try_from(offset).ok()?, size_of::<T>());
        let is_inside = offset.checked_add(size)? <= self.len && offset.is_multiple_of(size);
        // SAFETY: the offset is within the mapping.
        is_inside.then(|| unsafe { self.start.byte_add(offset) }.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the pages are those of the mapping, and no reference into them was given away.
        // It can fail only for other pages.
        let _ = unsafe { mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Words of which any bits are a value, aligned to their size.
trait Word: Copy {}
impl Word for u32 {}
impl Word for u64 {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_outside_of_the_mapping_are_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let mapping = Mapping::of_file(&file, true).unwrap();
        mapping.write64(4088, 0x0102_0304_0506_0708);
        mapping.write64(4092, 0);
        mapping.write32(4096, 0);
        mapping.write32(u64::MAX - 3, 0);
        assert_eq!(mapping.read32(4092), 0x0102_0304);
        assert_eq!(mapping.read64(4092), u64::MAX);
        assert_eq!(mapping.read32(4096), u32::MAX);
        assert_eq!(mapping.read32(4090), u32::MAX);
        let read_only = Mapping::of_file(&file, false).unwrap();
        read_only.write32(4088, 0);
        assert_eq!(read_only.read32(4088), 0x0506_0708);
    }

    #[test]
    fn empty_files_are_errors() {
        assert!(Mapping::of_file(&tempfile::tempfile().unwrap(), true).is_err());
    }
}
