// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Linux's asynchronous reads (`io_submit(2)`), which need no thread for each.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes of a page: each read is of one or more.
pub const BLOCK: usize = 4096;

/// `IOCB_CMD_PREAD` (Linux include/uapi/linux/aio_abi.h).
const PREAD: u16 = 0;

/// `struct iocb`, little-endian.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Event {
    data: u64,
    block: u64,
    result: i64,
    result2: i64,
}

const _: () = assert!(size_of::<ControlBlock>() == 64 && size_of::<Event>() == 32);

/// A page of where a read goes, as direct I/O wants it.
#[repr(C, align(4096))]
#[derive(Clone, Copy, Debug)]
struct Block([u8; BLOCK]);

/// Reads under way, each in its slot.
#[derive(Debug)]
pub struct Queue {
    file: File,
    /// Bytes of each read, a multiple of [`BLOCK`].
    bytes: usize,
    context: libc::c_ulong,
    /// Nothing here refers to them once reads are under way: the kernel writes to them.
    buffers: Vec<Block>,
    blocks: Vec<ControlBlock>,
    events: Vec<Event>,
}

impl Queue {
    /// A queue of `depth` slots for reads of `disk`, past the page cache, of `pages` pages each.
    ///
    /// # Errors
    /// As of `open(2)` and `io_setup(2)`.
    pub fn open(disk: &Path, depth: usize, pages: usize) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(disk)?;
        let mut queue = Self {
            file,
            bytes: pages * BLOCK,
            context: 0,
            buffers: vec![Block([0; BLOCK]); depth * pages],
            blocks: vec![ControlBlock::default(); depth],
            events: vec![Event::default(); depth],
        };
        queue.set_up()?;
        Ok(queue)
    }

    /// The disk.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    #[expect(unsafe_code, reason = "a system call")]
    fn set_up(&mut self) -> io::Result<()> {
        // SAFETY: `context` is 0, as io_setup(2) requires, and is written to during the call alone.
        let result =
            unsafe { libc::syscall(libc::SYS_io_setup, self.blocks.len(), &raw mut self.context) };
        checked(result).map(drop)
    }

    /// Begins a read for each of `reads`: a free slot, and where on the disk.
    ///
    /// # Errors
    /// As of `io_submit(2)`.
    #[expect(unsafe_code, reason = "a system call")]
    pub fn submit(&mut self, reads: &[(usize, u64)]) -> io::Result<()> {
        let pages = self.bytes / BLOCK;
        for (slot, offset) in reads {
            let buffer = self.buffers[slot * pages..][..pages].as_mut_ptr();
            self.blocks[*slot] = ControlBlock {
                data: *slot as u64,
                opcode: PREAD,
                file: self.file.as_raw_fd().cast_unsigned(),
                buffer: buffer.expose_provenance() as u64,
                bytes: self.bytes as u64,
                offset: offset.cast_signed(),
                ..ControlBlock::default()
            };
        }
        let mut blocks: Vec<*mut ControlBlock> = reads
            .iter()
            .map(|(slot, _)| &raw mut self.blocks[*slot])
            .collect();
        let mut begun = 0;
        while begun < blocks.len() {
            let left = &mut blocks[begun..];
            // SAFETY: each pointer is to a block of `self`, and each block names a buffer of `self` and its length.
            // Both stay in place until `drop` has waited for what is under way.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_io_submit,
                    self.context,
                    left.len(),
                    left.as_mut_ptr(),
                )
            };
            begun += checked(result)?;
        }
        Ok(())
    }

    /// Waits until `least` reads have ended, and returns the slots of all that have.
    ///
    /// # Errors
    /// As of `io_getevents(2)`, or of the first read that failed.
    #[expect(unsafe_code, reason = "a system call")]
    pub fn wait(&mut self, least: usize) -> io::Result<impl Iterator<Item = usize>> {
        // SAFETY: the kernel writes at most as many events as there is room for, during the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                least,
                self.events.len(),
                self.events.as_mut_ptr(),
                std::ptr::null::<libc::timespec>(),
            )
        };
        let done = &self.events[..checked(result)?];
        for event in done {
            match event.result {
                0.. if event.result.cast_unsigned() == self.bytes as u64 => {}
                0.. => return Err(io::ErrorKind::UnexpectedEof.into()),
                error => {
                    let errno = i32::try_from(-error).unwrap_or(libc::EIO);
                    return Err(io::Error::from_raw_os_error(errno));
                }
            }
        }
        // What was submitted is a slot of this queue.
        Ok(done
            .iter()
            .filter_map(|event| usize::try_from(event.data).ok()))
    }
}

impl Drop for Queue {
    #[expect(unsafe_code, reason = "a system call")]
    fn drop(&mut self) {
        if self.context == 0 {
            return;
        }
        // SAFETY: the context is this queue's own. The call waits for all that is under way.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

fn checked(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
