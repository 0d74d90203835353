//! A kernel to boot, whatever kind of file it comes in.

use std::fmt::Debug;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use address::Gpa;
use linux_loader::loader::bootparam::setup_header;
use vm_memory::GuestMemoryMmap;

use super::bzimage::BzImageKernel;
use super::elf::{self, ElfKernel};
use super::foreign::Foreign;
use super::release::Release;
use crate::files;

/// A kernel that has passed all checks which do not depend on where it is loaded.
pub trait Kernel: Debug {
    /// The file that it came from.
    fn path(&self) -> &Path;

    /// What it asks of its place.
    fn demand(&self) -> Demand;

    /// How it is entered.
    fn protocol(&self) -> Protocol<'_>;

    /// Which release of Linux it is; `None` if it does not say so.
    ///
    /// # Errors
    /// [`KernelError::Read`]
    fn release(&self) -> Result<Option<Release>, KernelError>;

    /// Loads it at `at`, which satisfies its [`demand`](Self::demand). Returns the address of its
    /// entry point.
    ///
    /// # Errors
    /// [`KernelError`]
    fn load(&mut self, memory: &GuestMemoryMmap, at: Gpa) -> Result<Gpa, KernelError>;
}

/// How a kernel is entered, and by what it is told about its machine.
#[derive(Clone, Copy, Debug)]
pub enum Protocol<'a> {
    /// Linux's, in 64-bit mode, with the zero page's address in RSI. The setup header in it is
    /// this one.
    Linux64(&'a setup_header),
    /// Xen's PVH, in 32-bit mode without paging, with the address of `hvm_start_info` in EBX.
    Pvh,
}

impl Protocol<'_> {
    /// Bytes of the longest command line.
    #[must_use]
    pub fn longest_command_line(&self) -> usize {
        match self {
            Self::Linux64(header) => usize::try_from(header.cmdline_size).unwrap_or(usize::MAX),
            Self::Pvh => usize::MAX,
        }
    }
}

/// What a kernel asks of the place where it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Bytes of contiguous RAM from the load address on.
    pub length: u64,
    /// The load address is a multiple of this.
    pub alignment: u64,
    /// Lowest load address: loaded below, a bzImage moves itself up to here without asking
    /// whether there is memory (arch/x86/boot/compressed/head_64.S, LOAD_PHYSICAL_ADDR).
    pub lowest: Gpa,
    /// All of it is below this.
    pub below: Gpa,
    /// Why it must be [`below`](Self::below), for the error.
    pub reason: &'static str,
    /// All of the initramfs is below this.
    pub initramfs_below: Gpa,
}

impl Demand {
    /// Where all addresses are below: the most bits of one that a CPU has (Intel SDM, volume 3,
    /// section 4.1.4).
    pub const NO_LIMIT: Gpa = Gpa(1 << 52);
    /// What 32 bits do not reach.
    pub const LIMIT_4G: Gpa = Gpa(1 << 32);
}

/// Why a kernel cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file cannot be read.
    #[error("Cannot read kernel {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is neither a bzImage nor an ELF kernel but {found}", path.display())]
    NotKernel {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: &'static str,
        /// The command that gets a kernel out of it, where that is known.
        unpack: Option<String>,
    },
    /// The file is shorter than its header says.
    #[error("Kernel {} is truncated: {length} of {expected} bytes", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// The least that it should be.
        expected: u64,
    },
    /// The kernel does not support what is needed of it.
    #[error("Kernel {} cannot be used: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
    /// Memory at the chosen place did not take the kernel.
    #[error("Cannot load kernel {} at {at}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// The place.
        at: Gpa,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Opens and checks the kernel at `path`.
///
/// # Errors
/// [`KernelError`]
pub fn open(path: &Path) -> Result<Box<dyn Kernel>, KernelError> {
    let read_error = |source| KernelError::Read {
        path: path.to_owned(),
        source,
    };
    let file = files::open(path).map_err(read_error)?;
    let mut magic = [0; 4];
    let start: &[u8] = match file.read_exact_at(&mut magic, 0) {
        Ok(()) => &magic,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => &[],
        Err(error) => return Err(read_error(error)),
    };
    // A bzImage may begin with the magic number of another format, that of EFI programs.
    if BzImageKernel::recognises(&file).map_err(read_error)? {
        return Ok(Box::new(BzImageKernel::new(path, file)?));
    }
    if start == elf::MAGIC {
        return Ok(Box::new(ElfKernel::new(path, file)?));
    }
    let Foreign { found, unpack } = Foreign::recognise(path, &file).map_err(read_error)?;
    Err(KernelError::NotKernel {
        path: path.to_owned(),
        found,
        unpack,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn missing_and_foreign_files_are_told_apart() {
        assert!(matches!(
            open(Path::new("/nonexistent")),
            Err(KernelError::Read { .. })
        ));
        assert!(matches!(
            open(Path::new("/")),
            Err(KernelError::Read { .. })
        ));
        for (bytes, what) in [
            (&b"\x1f\x8b\x08\x00"[..], "a gzip file"),
            (&b"hello, world"[..], "an unknown kind of file"),
            (&b""[..], "too short for one"),
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(bytes).unwrap();
            let Err(KernelError::NotKernel { found, unpack, .. }) = open(file.path()) else {
                panic!("{what} was taken");
            };
            assert_eq!(found, what);
            assert_eq!(unpack.is_some(), what == "a gzip file");
        }
    }
}
