// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kernel files of aarch64: an `Image`, as it is or as a gzip file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use address::Gpa;
use flate2::read::MultiGzDecoder;
use linux_loader::loader::KernelLoader;
use linux_loader::loader::pe::PE;
use rustix::fs::MemfdFlags;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::image::{ALIGNMENT, Header, LEN};
use super::layout::COMMAND_LINE_ROOM;
use crate::arch::params::ParamsError;
use crate::boot::foreign::Foreign;
use crate::boot::kernel::{Demand, Kernel, KernelError};
use crate::boot::release::Release;
use crate::config::input_file;

/// The kinds of files that [`open_kernel`] takes, behind "neither".
pub const KERNEL_FORMATS: &str = "an arm64 Image or a gzip file of one";
/// Kernels that run wherever they are loaded.
pub const RELOCATABLE_KERNELS: &str = "an Image of Linux";
/// `Machine` of EFI programs for this architecture (Microsoft, PE Format, "Machine Types").
pub const EFI_MACHINES: &[u16] = &[0xaa64];

/// What a gzip file begins with.
const GZIP: &[u8] = b"\x1f\x8b";
/// More bytes than a kernel unpacks to.
const MAX_UNPACKED: u64 = 512 << 20;

/// How a kernel is entered: there is one way.
#[derive(Clone, Copy, Debug)]
pub struct Protocol<'a>(PhantomData<&'a ()>);

impl Protocol<'_> {
    /// Bytes of the longest command line.
    #[must_use]
    pub fn longest_command_line(&self) -> usize {
        COMMAND_LINE_ROOM
    }
}

/// An `Image` that has passed all checks which do not depend on where it is loaded.
#[derive(Debug)]
struct Image {
    path: PathBuf,
    /// The image, unpacked.
    file: File,
    len: u64,
    header: Header,
    release: Option<Release>,
}

/// Refuses a command line with which Linux would hang before it says why: there is no such option.
///
/// # Errors
/// None.
pub fn check_linux_options(_: &str) -> Result<(), ParamsError> {
    Ok(())
}

/// Opens and checks the kernel at `path`.
///
/// # Errors
/// [`KernelError`]
pub fn open_kernel(path: &Path) -> Result<Box<dyn Kernel>, KernelError> {
    let read_error = |source| KernelError::Read {
        path: path.to_owned(),
        source,
    };
    let packed = input_file::open(path).map_err(read_error)?;
    let unpacked = match start(&packed).map_err(read_error)? {
        Some(start) if start.starts_with(GZIP) => Some(unpack(&packed).map_err(read_error)?),
        _ => None,
    };
    let file = unpacked.as_ref().unwrap_or(&packed);
    let Some(header) = start(file)
        .map_err(read_error)?
        .as_ref()
        .and_then(Header::parse)
    else {
        let Foreign { found, unpack } = Foreign::recognise(path, file).map_err(read_error)?;
        return Err(KernelError::NotKernel {
            path: path.to_owned(),
            found,
            unpack: unpack.filter(|_| unpacked.is_none()),
        });
    };
    header.check().map_err(|reason| KernelError::Unsupported {
        path: path.to_owned(),
        reason: reason.to_owned(),
    })?;
    let file = unpacked.unwrap_or(packed);
    let len = file.metadata().map_err(read_error)?.len();
    let release = Release::find(&file, &[0..len]).map_err(read_error)?;
    Ok(Box::new(Image {
        path: path.to_owned(),
        file,
        len,
        header,
        release,
    }))
}

/// The first bytes of `file`; `None` if it has fewer.
fn start(file: &File) -> io::Result<Option<[u8; LEN]>> {
    let mut start = [0; LEN];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(Some(start)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the gzip file `packed` holds. One that is no kernel, or too large for one, is not unpacked in whole.
fn unpack(packed: &File) -> io::Result<File> {
    let mut reader = packed;
    reader.seek(SeekFrom::Start(0))?;
    let mut decoder = MultiGzDecoder::new(io::BufReader::new(reader)).take(MAX_UNPACKED + 1);
    let mut file = File::from(rustix::fs::memfd_create("kernel", MemfdFlags::CLOEXEC)?);
    let len = io::copy(&mut decoder, &mut file)?;
    if len > MAX_UNPACKED {
        let text = format!("it unpacks to more than {MAX_UNPACKED} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(file)
}

impl Kernel for Image {
    fn path(&self) -> &Path {
        &self.path
    }

    fn demand(&self) -> Demand {
        Demand {
            len: self.header.room(self.len),
            alignment: ALIGNMENT,
            lowest: Gpa(0),
            below: Demand::NO_LIMIT,
            reason: "addresses end there",
            initramfs_below: Demand::NO_LIMIT,
            pieces: self.header.pieces(self.release),
        }
    }

    fn protocol(&self) -> Protocol<'_> {
        Protocol(PhantomData)
    }

    fn release(&self) -> Result<Option<Release>, KernelError> {
        Ok(self.release)
    }

    fn load(&mut self, memory: &GuestMemoryMmap, at: Gpa) -> Result<Gpa, KernelError> {
        let failed = |source| KernelError::Load {
            path: self.path.clone(),
            at,
            source,
        };
        let place = Some(GuestAddress(at.0));
        let loaded = PE::load(memory, place, &mut self.file, None);
        let loaded = loaded.map_err(|error| failed(Box::new(error)))?;
        Ok(Gpa(loaded.kernel_load.0))
    }
}
