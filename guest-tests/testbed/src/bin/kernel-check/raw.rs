// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `/dev/iommu` and a VFIO device without the backend's care, to ask what it never would.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use address::Bdf;
use iommufd_backend::FileRange;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Bytes of the longest structure that is tried.
const MAX_LEN: usize = 64;

/// A structure as 32-bit words, the first of which is its size in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    words: [u32; MAX_LEN / 4],
    length: u32,
}

impl Request {
    /// A structure of `length` bytes, all 0 but its size.
    pub fn new(length: u32) -> Self {
        let mut words = [0; MAX_LEN / 4];
        words[0] = length;
        Self { words, length }
    }

    /// With `value` as the word at byte `offset`.
    pub fn word(mut self, offset: usize, value: u32) -> Self {
        self.words[offset / 4] = value;
        self
    }

    /// With `value` as the two words at byte `offset`.
    pub fn long(self, offset: usize, value: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        self.word(offset, u32::from_le_bytes([a, b, c, d]))
            .word(offset + 4, u32::from_le_bytes([e, f, g, h]))
    }

    /// The word at byte `offset`.
    pub fn get(&self, offset: usize) -> u32 {
        self.words[offset / 4]
    }

    /// The two words at byte `offset`.
    pub fn long_at(&self, offset: usize) -> u64 {
        u64::from(self.get(offset + 4)) << 32 | u64::from(self.get(offset))
    }
}

fn command(number: u8) -> libc::Ioctl {
    libc::Ioctl::from(b';') << 8 | libc::Ioctl::from(number)
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(-1)
}

/// Issues command `number` of type `;` with a plain value: what it returned, or the errno.
pub fn call_value(file: &File, number: u8, value: u64) -> Result<i32, i32> {
    // SAFETY: the commands that are tried this way take a value and no pointer.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), command(number), value) };
    if result < 0 { Err(errno()) } else { Ok(result) }
}

/// Issues command `number` of type `;`: what it returned, or the errno.
pub fn call_result(file: &File, number: u8, request: &mut Request) -> Result<i32, i32> {
    debug_assert!(request.length as usize <= MAX_LEN);
    // SAFETY: the buffer is longer than any structure that is tried, and the kernel writes at most
    // as many bytes as its first word specifies. Pointers inside are 0 or given by the caller to
    // live buffers; the kernel refuses bad ones.
    let result = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            command(number),
            request.words.as_mut_ptr(),
        )
    };
    if result < 0 { Err(errno()) } else { Ok(result) }
}

/// Issues command `number` of type `;` and returns the errno, 0 for success.
pub fn call(file: &File, number: u8, request: &mut Request) -> i32 {
    call_result(file, number, request).err().unwrap_or(0)
}

/// Opens `/dev/iommu`.
pub fn iommufd() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/iommu")
}

/// Opens the noiommu device of `bdf`, binds it to `iommufd` and returns it with its number there.
pub fn bound(bdf: Bdf, iommufd: &File) -> Result<(File, u32), Box<dyn std::error::Error>> {
    const BIND: u8 = 118;
    let name = fs::read_dir(format!("/sys/bus/pci/devices/{bdf}/vfio-dev"))?
        .flatten()
        .find_map(|entry| entry.file_name().into_string().ok())
        .ok_or("the device has no character device")?;
    let path = format!("/dev/vfio/devices/{name}");
    let device = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bind = Request::new(24).word(8, iommufd.as_raw_fd().cast_unsigned());
    match call(&device, BIND, &mut bind) {
        0 => Ok((device, bind.get(12))),
        errno => Err(io::Error::from_raw_os_error(errno).into()),
    }
}

/// Makes an IOAS.
pub fn ioas(iommufd: &File) -> Result<u32, Box<dyn std::error::Error>> {
    let mut alloc = Request::new(12);
    match call(iommufd, 0x81, &mut alloc) {
        0 => Ok(alloc.get(8)),
        errno => Err(io::Error::from_raw_os_error(errno).into()),
    }
}

/// Attaches a bound device to an IOAS.
pub fn attach(device: &File, ioas: u32) -> Result<(), String> {
    const ATTACH: u8 = 119;
    done(
        "attach",
        call(device, ATTACH, &mut Request::new(12).word(8, ioas)),
    )
}

/// Takes it out again.
pub fn detach(device: &File) -> Result<(), String> {
    const DETACH: u8 = 120;
    done("detach", call(device, DETACH, &mut Request::new(8)))
}

/// Maps `part` of a file, for reading and writing, at `iova`.
pub fn map_file(iommufd: &File, ioas: u32, iova: u64, part: FileRange<'_>) -> Result<(), String> {
    const MAP_FILE: u8 = 0x8f;
    let mut request = Request::new(40)
        .word(4, 7)
        .word(8, ioas)
        .word(12, part.file.as_raw_fd().cast_unsigned())
        .long(16, part.offset)
        .long(24, part.len)
        .long(32, iova);
    done("map a file", call(iommufd, MAP_FILE, &mut request))
}

/// Unmaps `length` bytes at `iova` and returns the errno, 0 for success.
pub fn unmap(iommufd: &File, ioas: u32, iova: u64, length: u64) -> i32 {
    const UNMAP: u8 = 0x86;
    let mut request = Request::new(24)
        .word(4, ioas)
        .long(8, iova)
        .long(16, length);
    call(iommufd, UNMAP, &mut request)
}

/// The kernel's address for `iova`, and the number of `length` bytes for which it holds.
pub fn answer(
    iommufd: &File,
    ioas: u32,
    iova: u64,
    length: u64,
) -> Result<(u64, u64), Box<dyn std::error::Error>> {
    const GET_PA: u8 = 0x95;
    let mut request = Request::new(40)
        .word(8, ioas)
        .long(16, iova)
        .long(24, length);
    done(
        &format!("ask about {iova:#x}"),
        call(iommufd, GET_PA, &mut request),
    )?;
    Ok((request.long_at(32), request.long_at(24)))
}

fn done(what: &str, errno: i32) -> Result<(), String> {
    match errno {
        0 => Ok(()),
        errno => Err(format!("cannot {what}: {}", name(errno))),
    }
}

/// The name of an errno that the checks use, for messages.
pub fn name(errno: i32) -> String {
    let names = [
        (0, "success"),
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::E2BIG, "E2BIG"),
        (libc::EBUSY, "EBUSY"),
        (libc::ENODEV, "ENODEV"),
        (libc::EINVAL, "EINVAL"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::EOVERFLOW, "EOVERFLOW"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    ];
    names
        .iter()
        .find(|(number, _)| *number == errno)
        .map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).to_owned())
}
