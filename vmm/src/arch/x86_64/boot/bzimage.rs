// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A Linux kernel as distributions ship it: the bzImage, entered at its 64-bit entry point
//! (Documentation/arch/x86/boot.rst).

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use address::Gpa;
use linux_loader::loader::bootparam::{
    LOADED_HIGH, XLF_CAN_BE_LOADED_ABOVE_4G, XLF_KERNEL_64, setup_header,
};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};

use super::LIMIT_4G;
use super::kernel_file::Protocol;
use crate::arch::x86_64::e820::SAFE_EXTENTS;
use crate::boot::kernel::{Demand, Kernel, KernelError};
use crate::boot::release::Release;

/// Offset of the setup header in the file.
const HEADER: u64 = 0x1f1;
/// Value of `header.boot_flag`.
const BOOT_FLAG: u16 = 0xaa55;
/// Value of `header.header`, the letters `HdrS`.
const MAGIC: u32 = 0x5372_6448;
/// First version of the protocol with everything that is used here (`init_size`, `xloadflags`).
const OLDEST_PROTOCOL: u16 = 0x020c;
/// What `header.kernel_version` counts from.
const VERSION_BASE: u64 = 0x200;
/// Bytes of the version that are looked at: all numbers that matter are among them.
const VERSION_LENGTH: usize = 16;
/// From the start of the loaded part to its 64-bit entry point.
const ENTRY_64: u64 = 0x200;
/// The kernel may only be moved by multiples of this.
const ALIGNMENT: u64 = 2 << 20;
/// Number of 512-byte sectors that 0 in `setup_sects` means.
const DEFAULT_SETUP_SECTORS: u64 = 4;
/// What `header.syssize` counts the loaded part in. Some makers round it up, some down.
const PARAGRAPH: u64 = 16;

/// A bzImage that has passed all checks which do not depend on where it is loaded.
#[derive(Debug)]
pub struct BzImageKernel {
    path: PathBuf,
    file: File,
    header: setup_header,
    /// From the start of the file to the loaded part.
    setup: u64,
    /// Bytes of the loaded part. A signature or padding may follow in the file.
    payload: u64,
}

impl BzImageKernel {
    /// Whether `file` is a bzImage, by its magic numbers.
    ///
    /// # Errors
    /// The errno of reading it.
    pub fn recognises(file: &File) -> io::Result<bool> {
        Ok(read_header(file)?.is_some())
    }

    /// Checks `file`, a bzImage opened from `path`.
    ///
    /// # Errors
    /// [`KernelError`]
    pub fn new(path: &Path, file: File) -> Result<Self, KernelError> {
        let read_error = |source| KernelError::Read {
            path: path.to_owned(),
            source,
        };
        let length = file.metadata().map_err(read_error)?.len();
        let header = read_header(&file).map_err(read_error)?.unwrap_or_default();
        let sectors = match header.setup_sects {
            0 => DEFAULT_SETUP_SECTORS,
            sectors => u64::from(sectors),
        };
        let setup = (sectors + 1) * 512;
        let expected = setup + u64::from(header.syssize) * PARAGRAPH;
        if length + PARAGRAPH <= expected {
            return Err(KernelError::Truncated {
                path: path.to_owned(),
                len: length,
                expected,
            });
        }
        let kernel = Self {
            path: path.to_owned(),
            file,
            header,
            setup,
            payload: length.min(expected + PARAGRAPH - 1).saturating_sub(setup),
        };
        kernel.check()?;
        Ok(kernel)
    }

    fn check(&self) -> Result<(), KernelError> {
        let header = self.header;
        let (version, xloadflags) = (header.version, header.xloadflags);
        let reason = if version < OLDEST_PROTOCOL {
            format!("its boot protocol is {version:#06x}, older than {OLDEST_PROTOCOL:#06x}")
        } else if xloadflags & XLF_KERNEL_64 == 0 {
            "it is not a 64-bit kernel".to_owned()
        } else if header.loadflags & LOADED_HIGH == 0 {
            "it is a zImage, which is loaded below 1 MiB".to_owned()
        } else if header.syssize == 0 {
            "its header lists nothing to load".to_owned()
        } else if header.relocatable_kernel == 0 {
            "it is not relocatable (CONFIG_RELOCATABLE)".to_owned()
        } else if header.init_size == 0 {
            "its header requests no memory".to_owned()
        } else {
            return Ok(());
        };
        Err(KernelError::Unsupported {
            path: self.path.clone(),
            reason,
        })
    }
}

impl Kernel for BzImageKernel {
    fn path(&self) -> &Path {
        &self.path
    }

    fn demand(&self) -> Demand {
        let header = self.header;
        let anywhere = header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G != 0;
        Demand {
            len: u64::from(header.init_size).max(self.payload),
            alignment: ALIGNMENT.max(u64::from(header.kernel_alignment).next_power_of_two()),
            lowest: Gpa(header.pref_address),
            below: if anywhere { Demand::NO_LIMIT } else { LIMIT_4G },
            reason: "it is not built to be loaded above 4 GiB (CONFIG_RELOCATABLE)",
            initramfs_below: Demand::NO_LIMIT,
            pieces: SAFE_EXTENTS,
        }
    }

    fn protocol(&self) -> Protocol<'_> {
        Protocol::Linux64(&self.header)
    }

    fn release(&self) -> Result<Option<Release>, KernelError> {
        let offset = u64::from(self.header.kernel_version);
        if offset == 0 {
            return Ok(None);
        }
        let mut text = [0; VERSION_LENGTH];
        // The setup sectors and the payload follow: a file that ends before has no version.
        match self.file.read_exact_at(&mut text, VERSION_BASE + offset) {
            Ok(()) => Ok(Release::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(KernelError::Read {
                path: self.path.clone(),
                source,
            }),
        }
    }

    fn load(&mut self, memory: &GuestMemoryMmap, at: Gpa) -> Result<Gpa, KernelError> {
        let count = usize::try_from(self.payload).unwrap_or(usize::MAX);
        let file = &mut self.file;
        file.seek(SeekFrom::Start(self.setup))
            .and_then(|_| {
                memory
                    .read_exact_volatile_from(GuestAddress(at.0), file, count)
                    .map_err(io::Error::other)
            })
            .map_err(|source| KernelError::Load {
                path: self.path.clone(),
                at,
                source: source.into(),
            })?;
        Ok(at + ENTRY_64)
    }
}

/// The setup header, if the file has one.
fn read_header(file: &File) -> io::Result<Option<setup_header>> {
    let mut header = setup_header::default();
    match file.read_exact_at(header.as_mut_slice(), HEADER) {
        Ok(()) => {
            let known = header.boot_flag == BOOT_FLAG && header.header == MAGIC;
            Ok(known.then_some(header))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn open(path: &Path) -> Result<BzImageKernel, KernelError> {
        BzImageKernel::new(path, File::open(path).unwrap())
    }

    fn image(change: impl FnOnce(&mut setup_header), length: usize) -> tempfile::NamedTempFile {
        let mut header = setup_header {
            setup_sects: 1,
            syssize: 64,
            boot_flag: BOOT_FLAG,
            header: MAGIC,
            version: 0x020f,
            loadflags: 1,
            relocatable_kernel: 1,
            kernel_alignment: 0x20_0000,
            xloadflags: XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G,
            cmdline_size: 2047,
            pref_address: 0x100_0000,
            init_size: 0x300_0000,
            ..Default::default()
        };
        change(&mut header);
        let mut bytes = vec![0; 0x1f1];
        bytes.extend(header.as_slice());
        bytes.resize(length, 0);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn a_good_image_is_decoded() {
        let file = image(|_| (), 2048);
        let kernel = open(file.path()).unwrap();
        assert_eq!(
            kernel.demand(),
            Demand {
                len: 0x300_0000,
                alignment: 0x20_0000,
                lowest: Gpa(0x100_0000),
                below: Demand::NO_LIMIT,
                reason: "it is not built to be loaded above 4 GiB (CONFIG_RELOCATABLE)",
                initramfs_below: Demand::NO_LIMIT,
                pieces: 127,
            }
        );
    }

    #[test]
    fn the_release_is_read_at_the_headers_offset() {
        let release = |version: &str, offset: u16| {
            let file = image(|header| header.kernel_version = offset, 2048);
            let at = VERSION_BASE + 0x100;
            file.as_file().write_all_at(version.as_bytes(), at).unwrap();
            open(file.path()).unwrap().release().unwrap()
        };
        let expected = Release {
            major: 5,
            minor: 10,
        };
        assert_eq!(release("5.10.0-32-amd64", 0x100), Some(expected));
        assert_eq!(release("5.10.0-32-amd64", 0), None);
        assert_eq!(release("5.10.0-32-amd64", 0x200), None);
        assert_eq!(release("5.10.0-32-amd64", u16::MAX), None);
        assert_eq!(release("Memtest86+ 6.20", 0x100), None);
    }

    #[test]
    fn truncated_files_are_refused_and_foreign_ones_not_recognised() {
        let short = image(|_| (), 2032);
        assert!(BzImageKernel::recognises(short.as_file()).unwrap());
        assert!(matches!(
            open(short.path()),
            Err(KernelError::Truncated {
                len: 2032,
                expected: 2048,
                ..
            })
        ));
        let foreign = image(|header| header.header = 0, 2048);
        assert!(!BzImageKernel::recognises(foreign.as_file()).unwrap());
        let tiny = tempfile::NamedTempFile::new().unwrap();
        assert!(!BzImageKernel::recognises(tiny.as_file()).unwrap());
    }

    #[test]
    fn a_file_may_end_within_its_last_paragraph() {
        for length in 2033..2048 {
            assert!(open(image(|_| (), length).path()).is_ok(), "{length}");
        }
        // The error names what such a file lacks, not that it is short.
        let old = image(|header| header.version = 0x0203, 2033);
        let Err(KernelError::Unsupported { reason, .. }) = open(old.path()) else {
            panic!("an old kernel was taken");
        };
        assert!(reason.contains("0x0203"), "{reason}");
    }

    #[test]
    fn what_follows_the_image_is_neither_loaded_nor_needs_memory() {
        const MEMORY: usize = 0x2000;
        for (length, loaded) in [(2040, 1016), (2048, 1024), (2055, 1031), (0x10_0000, 1039)] {
            let file = image(|header| header.init_size = 1024, length);
            let marks = vec![0xa5; length - 1024];
            file.as_file().write_all_at(&marks, 1024).unwrap();
            // As large as one likes, without taking room on the disk.
            file.as_file().set_len(length.max(2055) as u64).unwrap();
            if length == 0x10_0000 {
                file.as_file().set_len(1 << 40).unwrap();
            }
            let mut kernel = open(file.path()).unwrap();
            assert!(kernel.demand().len < 1040, "{length}");
            let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
            assert_eq!(kernel.load(&memory, Gpa(0x800)).unwrap(), Gpa(0xa00));
            let mut bytes = [0; MEMORY];
            memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
            let count = bytes.iter().filter(|byte| **byte == 0xa5).count();
            assert_eq!(count, loaded, "{length}");
            assert!(
                bytes[0x800..0x800 + loaded]
                    .iter()
                    .all(|byte| *byte == 0xa5)
            );
        }
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        type Change = fn(&mut setup_header);
        let lacks: [(Change, &str); 6] = [
            (|header| header.loadflags = 0, "zImage"),
            (|header| header.syssize = 0, "nothing to load"),
            (|header| header.version = 0x0204, "boot protocol"),
            (|header| header.xloadflags = 0, "64-bit"),
            (|header| header.relocatable_kernel = 0, "CONFIG_RELOCATABLE"),
            (|header| header.init_size = 0, "no memory"),
        ];
        for (change, word) in lacks {
            let Err(KernelError::Unsupported { reason, .. }) = open(image(change, 2048).path())
            else {
                panic!("{word} was not missed");
            };
            assert!(reason.contains(word), "{reason}");
        }
    }
}
