// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kinds of kernel files, and how each is entered.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use linux_loader::loader::bootparam::setup_header;

use super::bzimage::BzImageKernel;
use super::elf::{self, ElfKernel};
use crate::boot::foreign::Foreign;
use crate::boot::kernel::{Kernel, KernelError};
use crate::config::input_file;

/// The kinds of files that [`open`] takes, as "… is not" continues.
pub const KERNEL_FORMATS: &str = "a bzImage or an ELF kernel";
/// Kernels that run wherever they are loaded.
pub const RELOCATABLE_KERNELS: &str = "a Linux bzImage or vmlinux";
/// `Machine` of EFI programs for this architecture, 64 and 32 bits (Microsoft, PE Format, "Machine Types").
pub const EFI_MACHINES: &[u16] = &[0x8664, 0x14c];

/// How a kernel is entered, and how its machine is described to it.
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

/// Opens and checks the kernel at `path`.
///
/// # Errors
/// [`KernelError`]
pub fn open(path: &Path) -> Result<Box<dyn Kernel>, KernelError> {
    let read_error = |source| KernelError::Read {
        path: path.to_owned(),
        source,
    };
    let (file, _) = input_file::open(path).map_err(read_error)?;
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
    fn missing_and_foreign_files_are_distinguished() {
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
            (&b"hello, world"[..], "a file of unknown format"),
            (&b""[..], "too short for either"),
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
