//! A Linux kernel as distributions ship it: the bzImage, entered at its 64-bit entry point
//! (Documentation/arch/x86/boot.rst).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use address::Gpa;
use linux_loader::loader::bootparam::{XLF_CAN_BE_LOADED_ABOVE_4G, XLF_KERNEL_64, setup_header};
use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::{ByteValued, GuestAddress, GuestMemoryMmap};

/// Offset of the setup header in the file.
const HEADER: u64 = 0x1f1;
/// Value of `header.boot_flag`.
const BOOT_FLAG: u16 = 0xaa55;
/// Value of `header.header`, the letters `HdrS`.
const MAGIC: u32 = 0x5372_6448;
/// First version of the protocol with everything that is used here (`init_size`, `xloadflags`).
const OLDEST_PROTOCOL: u16 = 0x020c;
/// From the start of the loaded part to its 64-bit entry point.
const ENTRY_64: u64 = 0x200;
/// The kernel may only be moved by multiples of this.
const ALIGNMENT: u64 = 2 << 20;
/// Number of 512-byte sectors that 0 in `setup_sects` stands for.
const DEFAULT_SETUP_SECTORS: u64 = 4;

/// A bzImage that has passed all checks which do not depend on where it is loaded.
#[derive(Debug)]
pub struct Kernel {
    path: PathBuf,
    file: File,
    header: setup_header,
    payload: u64,
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
    #[error("{} is not a bzImage but {found}", path.display())]
    NotBzImage {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: &'static str,
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
        source: linux_loader::loader::Error,
    },
}

/// What a kernel asks of the place where it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Bytes of contiguous RAM from the load address on.
    pub length: u64,
    /// The load address is a multiple of this.
    pub alignment: u64,
    /// Lowest load address: loaded below, the kernel moves itself up to here without asking
    /// whether there is memory (arch/x86/boot/compressed/head_64.S, LOAD_PHYSICAL_ADDR).
    pub lowest: Gpa,
    /// Whether the place may be at 4 GiB or above.
    pub above_4g: bool,
}

impl Kernel {
    /// Opens and checks the file at `path`.
    ///
    /// # Errors
    /// [`KernelError`]
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let read_error = |source| KernelError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(read_error)?;
        let length = file.metadata().map_err(read_error)?.len();
        let mut header = setup_header::default();
        match file.read_exact_at(header.as_mut_slice(), HEADER) {
            Ok(()) if header.boot_flag == BOOT_FLAG && header.header == MAGIC => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(read_error(error));
            }
            _ => {
                return Err(KernelError::NotBzImage {
                    path: path.to_owned(),
                    found: kind_of(&file),
                });
            }
        }
        let sectors = match header.setup_sects {
            0 => DEFAULT_SETUP_SECTORS,
            sectors => u64::from(sectors),
        };
        let setup = (sectors + 1) * 512;
        let expected = setup + u64::from(header.syssize) * 16;
        if length < expected {
            return Err(KernelError::Truncated {
                path: path.to_owned(),
                length,
                expected,
            });
        }
        let kernel = Self {
            path: path.to_owned(),
            file,
            header,
            payload: length - setup,
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
        } else if header.relocatable_kernel == 0 {
            "it is not relocatable (CONFIG_RELOCATABLE)".to_owned()
        } else if header.init_size == 0 {
            "its header says that it needs no memory".to_owned()
        } else {
            return Ok(());
        };
        Err(KernelError::Unsupported {
            path: self.path.clone(),
            reason,
        })
    }

    /// What the kernel asks of its place.
    #[must_use]
    pub fn demand(&self) -> Demand {
        let header = self.header;
        Demand {
            length: u64::from(header.init_size).max(self.payload),
            alignment: ALIGNMENT.max(u64::from(header.kernel_alignment).next_power_of_two()),
            lowest: Gpa(header.pref_address),
            above_4g: header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G != 0,
        }
    }

    /// Bytes that a command line may have, its end mark not counted.
    #[must_use]
    pub fn most_command_line(&self) -> usize {
        let header = self.header;
        header.cmdline_size as usize
    }

    /// The file that the kernel came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The setup header, as the file has it.
    #[must_use]
    pub fn header(&self) -> &setup_header {
        &self.header
    }

    /// Loads the kernel at `at`, which satisfies its [`demand`](Self::demand). Returns the
    /// address of its 64-bit entry point.
    ///
    /// # Errors
    /// [`KernelError::Load`]
    pub fn load(&mut self, memory: &GuestMemoryMmap, at: Gpa) -> Result<Gpa, KernelError> {
        BzImage::load(memory, Some(GuestAddress(at.0)), &mut self.file, None).map_err(
            |source| KernelError::Load {
                path: self.path.clone(),
                at,
                source,
            },
        )?;
        Ok(at + ENTRY_64)
    }
}

/// A guess at what a file is that is no bzImage.
fn kind_of(file: &File) -> &'static str {
    let mut magic = [0; 4];
    match file.read_exact_at(&mut magic, 0) {
        Ok(()) if &magic == b"\x7fELF" => "an ELF file, perhaps the vmlinux that belongs to one",
        Ok(()) if magic.starts_with(&[0x1f, 0x8b]) => "a gzip file",
        Ok(()) => "an unknown kind of file",
        Err(_) => "too short for one",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

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
    fn a_good_image_says_what_it_needs() {
        let file = image(|_| (), 2048);
        let kernel = Kernel::open(file.path()).unwrap();
        assert_eq!(
            kernel.demand(),
            Demand {
                length: 0x300_0000,
                alignment: 0x20_0000,
                lowest: Gpa(0x100_0000),
                above_4g: true
            }
        );
        assert_eq!(kernel.most_command_line(), 2047);
    }

    #[test]
    fn missing_truncated_and_foreign_files_are_told_apart() {
        assert!(matches!(
            Kernel::open(Path::new("/nonexistent")),
            Err(KernelError::Read { .. })
        ));
        assert!(matches!(
            Kernel::open(image(|_| (), 2047).path()),
            Err(KernelError::Truncated {
                length: 2047,
                expected: 2048,
                ..
            })
        ));
        for (bytes, what) in [
            (
                &b"\x7fELF and more"[..],
                "an ELF file, perhaps the vmlinux that belongs to one",
            ),
            (&b"\x1f\x8b\x08\x00"[..], "a gzip file"),
            (&b"hello, world"[..], "an unknown kind of file"),
            (&b""[..], "too short for one"),
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(bytes).unwrap();
            let Err(KernelError::NotBzImage { found, .. }) = Kernel::open(file.path()) else {
                panic!("{what} was taken");
            };
            assert_eq!(found, what);
        }
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        type Change = fn(&mut setup_header);
        let lacks: [(Change, &str); 4] = [
            (|header| header.version = 0x0204, "boot protocol"),
            (|header| header.xloadflags = 0, "64-bit"),
            (|header| header.relocatable_kernel = 0, "CONFIG_RELOCATABLE"),
            (|header| header.init_size = 0, "no memory"),
        ];
        for (change, word) in lacks {
            let Err(KernelError::Unsupported { reason, .. }) =
                Kernel::open(image(change, 2048).path())
            else {
                panic!("{word} was not missed");
            };
            assert!(reason.contains(word), "{reason}");
        }
    }
}
