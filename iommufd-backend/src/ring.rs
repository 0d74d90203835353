// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A long-term pin by io_uring: the kernel pins what is registered as a buffer (io_uring/rsrc.c io_pin_pages,
//! `FOLL_LONGTERM`) until it is taken out, or the ring is closed.
//!
//! The ring is never enabled (`IORING_SETUP_R_DISABLED`), so that no request can use a buffer.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;

use address::Hva;
use rustix::io_uring::{
    IoringRegisterOp, IoringSetupFlags, io_uring_params, io_uring_ptr, io_uring_register,
    io_uring_rsrc_update2, io_uring_setup, iovec,
};

use crate::mapping::pointer;

/// Buffers of a ring: as many as the hugepages of [`MOST_BYTES`].
const SLOTS: u32 = 512;

/// Most bytes that are pinned by a ring with several buffers, and by a buffer (io_uring/rsrc.c io_buffer_validate:
/// 1 GiB). For each hugepage that is added the kernel looks at all pages of the ring's other buffers
/// (headpage_already_acct), so that one ring for all memory would take a time that grows with the square of it.
pub(crate) const MOST_BYTES: u64 = 1 << 30;

/// A ring with a table of buffers.
#[derive(Debug)]
pub(crate) struct Ring {
    file: OwnedFd,
    /// Bytes of the buffer in each slot; 0 for a free one.
    slots: Vec<u64>,
}

/// The number of a buffer's slot in its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Ring {
    /// A ring without buffers.
    ///
    /// # Errors
    /// `ENOSYS` without CONFIG_IO_URING; `EPERM` if the sysctl `kernel.io_uring_disabled` forbids it
    /// (io_uring/io_uring.c io_uring_allowed), or a filter does; `ENOMEM`; `EINVAL` before Linux 5.13, which has no
    /// table with free slots.
    pub(crate) fn new() -> io::Result<Self> {
        let mut params = io_uring_params::default();
        params.flags = IoringSetupFlags::R_DISABLED;
        // SAFETY: the parameters name no other descriptor (no `ATTACH_WQ`).
        let file = unsafe { io_uring_setup(1, &mut params) }?;
        let free = [iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        }; SLOTS as usize];
        let table = free.as_ptr().cast::<c_void>();
        // SAFETY: the table is `SLOTS` entries long and read during the call only; none of them has memory.
        unsafe { io_uring_register(&file, IoringRegisterOp::RegisterBuffers, table, SLOTS) }?;
        Ok(Self {
            file,
            slots: vec![0; SLOTS as usize],
        })
    }

    /// Whether a buffer of `len` bytes can be added.
    pub(crate) fn has_room(&self, len: u64) -> bool {
        let used: u64 = self.slots.iter().sum();
        let fits = used == 0 || used.saturating_add(len) <= MOST_BYTES;
        fits && self.slots.contains(&0)
    }

    /// Pins `len` bytes, at least one, from `start` on, which are mapped in this process for reading and writing. They
    /// stay pinned when they are unmapped.
    ///
    /// # Errors
    /// `ENOSPC` without a free slot; `ENOMEM` where the limit on locked memory is exceeded, or a page cannot be moved to
    /// where it can stay; `EFAULT` for what is not mapped and for more than [`MOST_BYTES`]; `EOPNOTSUPP` for
    /// files that are not in memory.
    pub(crate) fn add(&mut self, start: Hva, len: u64) -> io::Result<Slot> {
        let free = self.slots.iter().position(|bytes| *bytes == 0);
        let free = free.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))?;
        let slot = Slot(u32::try_from(free).map_err(io::Error::other)?);
        let buffer = iovec {
            iov_base: pointer(start),
            iov_len: usize::try_from(len).map_err(io::Error::other)?,
        };
        self.update(slot, buffer)?;
        self.slots[free] = len;
        Ok(slot)
    }

    /// Unpins the buffer in `slot`.
    ///
    /// # Errors
    /// None that a slot of [`add`](Self::add) causes.
    pub(crate) fn remove(&mut self, slot: Slot) -> io::Result<()> {
        let none = iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        self.update(slot, none)?;
        if let Some(bytes) = self.slots.get_mut(slot.0 as usize) {
            *bytes = 0;
        }
        Ok(())
    }

    /// Puts `buffer` into `slot` in place of what is there (`IORING_REGISTER_BUFFERS_UPDATE`, Linux 5.13).
    fn update(&self, slot: Slot, buffer: iovec) -> io::Result<()> {
        let mut update = io_uring_rsrc_update2::default();
        update.offset = slot.0;
        update.nr = 1;
        update.data = io_uring_ptr::new(ptr::from_ref(&buffer).cast_mut().cast());
        let argument = ptr::from_ref(&update).cast::<c_void>();
        let size = crate::sys::size::<io_uring_rsrc_update2>();
        let operation = IoringRegisterOp::RegisterBuffersUpdate;
        // SAFETY: the structure is as long as the call says and has one buffer behind it, both of which are read
        // during the call only. The kernel pins the buffer's pages, and since the ring is not enabled no request
        // accesses them.
        let done = unsafe { io_uring_register(self.file.as_fd(), operation, argument, size) }?;
        match done {
            1 => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Drop for Ring {
    /// Unpins all buffers before it returns; a close alone leaves that to a worker of the kernel's.
    fn drop(&mut self) {
        let operation = IoringRegisterOp::UnregisterBuffers;
        // SAFETY: the operation takes no argument.
        if let Err(error) = unsafe { io_uring_register(&self.file, operation, ptr::null(), 0) } {
            log::debug!("io_uring: cannot release buffers: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_range::FileRange;
    use crate::mapping::Mapping;

    const PAGE: u64 = 4096;

    fn memory(len: u64) -> Mapping {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = std::fs::File::from(rustix::fs::memfd_create("pages", flags).unwrap());
        file.set_len(len).unwrap();
        let mut mapping = Mapping::reserve(len, 0).unwrap();
        mapping
            .place(0, FileRange::first(&file, len), "a file")
            .unwrap();
        mapping
    }

    #[test]
    fn slots_are_filled_and_used_again() {
        let mapping = memory(4 * PAGE);
        let mut ring = Ring::new().unwrap();
        let first = ring.add(mapping.start(), PAGE).unwrap();
        let second = ring.add(mapping.start() + PAGE, PAGE).unwrap();
        assert_ne!(first, second);
        ring.remove(first).unwrap();
        assert_eq!(ring.add(mapping.start(), 4 * PAGE).unwrap(), first);
        for number in 2..SLOTS {
            assert_eq!(ring.add(mapping.start(), PAGE).unwrap(), Slot(number));
        }
        assert!(!ring.has_room(PAGE));
        let full = ring.add(mapping.start(), PAGE).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    }

    #[test]
    fn a_ring_has_room_for_so_many_bytes_or_for_one_buffer() {
        let mapping = memory(PAGE);
        let mut ring = Ring::new().unwrap();
        assert!(ring.has_room(MOST_BYTES) && ring.has_room(MOST_BYTES + 1));
        ring.add(mapping.start(), PAGE).unwrap();
        assert!(ring.has_room(MOST_BYTES - PAGE));
        assert!(!ring.has_room(MOST_BYTES));
    }

    #[test]
    fn what_is_not_mapped_is_refused_and_takes_no_slot() {
        let mapping = memory(PAGE);
        let nothing = Mapping::reserve(PAGE, 0).unwrap();
        let mut ring = Ring::new().unwrap();
        let error = ring.add(nothing.start(), PAGE).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        assert_eq!(ring.add(mapping.start(), PAGE).unwrap(), Slot(0));
    }
}
