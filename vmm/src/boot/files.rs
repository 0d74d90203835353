// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Loads the kernel and its boot data into guest memory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use address::Gpa;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::error::{BootError, LoadError};
use super::kernel::Kernel;
use super::place::{BootRequirements, PlaceError, Placement};
use super::release::Release;
use crate::arch::{self, ArchError, Protocol};
use crate::config::{Config, input_file};
use crate::error::explain::FileError;
use crate::memory::plan::MemoryPlan;
use crate::memory::progress::Progress;

/// The files that the guest boots from, opened before any device is touched.
#[derive(Debug)]
pub(crate) struct BootFiles {
    kernel: Box<dyn Kernel>,
    initramfs: Option<Initramfs>,
}

#[derive(Debug)]
struct Initramfs {
    path: PathBuf,
    file: File,
    len: u64,
}

impl BootFiles {
    pub fn open(config: &Config) -> Result<Self, BootError> {
        let kernel = arch::open_kernel(&config.kernel)?;
        let initramfs = config.initramfs.as_deref().map(|path| {
            Initramfs::open(path).map_err(|source| FileError {
                what: "initramfs",
                path: path.to_owned(),
                source,
            })
        });
        Ok(Self {
            kernel,
            initramfs: initramfs.transpose()?,
        })
    }

    /// The kernel's release of Linux; `None` if unknown.
    pub fn release(&self) -> Result<Option<Release>, BootError> {
        Ok(self.kernel.release()?)
    }

    /// Refuses a command line that the kernel, which may be Linux, does not take or would hang with.
    pub fn check_command_line(&self, line: &str, is_linux: bool) -> Result<(), ArchError> {
        let most = self.kernel.protocol().longest_command_line();
        arch::check_command_line(line, most)?;
        if is_linux {
            arch::check_linux_options(line)?;
        }
        Ok(())
    }

    /// Refuses a kernel and an initramfs that have no place in `size` bytes of RAM, wherever these are.
    pub fn check_room(&self, size: u64) -> Result<(), BootError> {
        let room = self.requirements(size).check_room();
        room.map_err(|source| self.no_place(source))
    }

    /// Where kernel and initramfs go in the memory of `plan`.
    pub fn place(&self, plan: &MemoryPlan) -> Result<Placement, BootError> {
        let placed = self.requirements(plan.size()).place(&plan.ranges());
        placed.map_err(|source| self.no_place(source))
    }

    fn no_place(&self, source: PlaceError) -> BootError {
        BootError::Place {
            kernel: self.kernel.path().to_owned(),
            source,
        }
    }

    /// What kernel and initramfs require of a guest's `size` bytes of RAM.
    pub fn requirements(&self, size: u64) -> BootRequirements {
        BootRequirements {
            kernel: self.kernel.demand(),
            initramfs: self.initramfs.as_ref().map(|initramfs| initramfs.len),
            size,
        }
    }

    /// Loads kernel and initramfs at their places in `memory`. Returns the address of the kernel's entry point.
    ///
    /// # Errors
    /// [`BootError::Kernel`], [`BootError::Load`]
    pub fn load(
        &mut self,
        placement: &Placement,
        memory: &GuestMemoryMmap,
    ) -> Result<Gpa, BootError> {
        let start = placement.kernel.start;
        log::info!("kernel gpa={start}");
        let at = self.kernel.load(memory, start)?;
        if let (Some(initramfs), Some(range)) = (&mut self.initramfs, &placement.initramfs) {
            log::info!("initramfs gpa={}", range.start);
            initramfs.load(memory, range.start)?;
        }
        Ok(at)
    }

    /// How the kernel is entered.
    pub fn protocol(&self) -> Protocol<'_> {
        self.kernel.protocol()
    }
}

/// An initramfs is loaded in steps of this number of bytes, so that progress can be shown.
const STEP: u64 = 16 << 20;

impl Initramfs {
    fn open(path: &Path) -> io::Result<Self> {
        let (file, len) = input_file::open(path)?;
        if len == 0 {
            log::warn!(
                "The initramfs {} is empty, so the guest gets none",
                path.display()
            );
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            len,
        })
    }

    fn load(&mut self, memory: &GuestMemoryMmap, at: Gpa) -> Result<(), LoadError> {
        let progress = Progress::new("Loading the initramfs", self.len);
        let mut done = 0;
        while done < self.len {
            let count = STEP.min(self.len - done);
            let address = GuestAddress(at.0 + done);
            let bytes = usize::try_from(count).unwrap_or(usize::MAX);
            memory
                .read_exact_volatile_from(address, &mut self.file, bytes)
                .map_err(|source| LoadError {
                    what: "initramfs",
                    source: format!("{}: {source}", self.path.display()).into(),
                })?;
            done += count;
            progress.advance(count);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::ops::Range;

    use super::*;
    use crate::boot::kernel::{Demand, KernelError};
    use crate::error::explain::{Explain, chain};

    const MIB: u64 = 1 << 20;
    const MEMORY: Range<Gpa> = Gpa(0)..Gpa(48 * MIB);
    const DEMAND: Demand = Demand {
        len: 2 * MIB,
        alignment: 2 * MIB,
        lowest: Gpa(2 * MIB),
        below: Demand::NO_LIMIT,
        reason: "",
        initramfs_below: Demand::NO_LIMIT,
        pieces: usize::MAX,
    };
    /// A kernel that has a place, and is not loaded.
    #[derive(Debug)]
    struct Small;

    impl Kernel for Small {
        fn path(&self) -> &Path {
            Path::new("small")
        }

        fn demand(&self) -> Demand {
            DEMAND
        }

        fn protocol(&self) -> Protocol<'_> {
            Protocol::Pvh
        }

        fn release(&self) -> Result<Option<Release>, KernelError> {
            Ok(None)
        }

        fn load(&mut self, _: &GuestMemoryMmap, at: Gpa) -> Result<Gpa, KernelError> {
            Ok(at)
        }
    }

    /// What memory has where nothing is loaded.
    const FILLING: u8 = 0xe7;

    fn memory() -> (GuestMemoryMmap, usize) {
        let length = usize::try_from(MEMORY.end.0).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), length)]).unwrap();
        memory
            .write_slice(&vec![FILLING; length], GuestAddress(0))
            .unwrap();
        (memory, length)
    }

    /// Loads `bytes` where there is a place for them, and returns that place.
    fn load(bytes: &[u8], memory: &GuestMemoryMmap) -> Option<Range<Gpa>> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut initramfs = Initramfs::open(file.path()).unwrap();
        let placement = Placement::find(&[MEMORY], &DEMAND, Some(initramfs.len)).unwrap();
        let range = placement.initramfs?;
        initramfs.load(memory, range.start).unwrap();
        Some(range)
    }

    #[test]
    fn an_initramfs_of_any_length_is_in_memory_byte_by_byte() {
        let bytes = |length: usize| -> Vec<u8> { (0..251).cycle().take(length).collect() };
        let archive = [b"070701".to_vec(), bytes(506)].concat();
        let step = usize::try_from(STEP).unwrap();
        let (memory, length) = memory();
        let filling = vec![FILLING; length];
        for image in [
            vec![0x1f],
            bytes(4095),
            bytes(4096),
            bytes(4097),
            // An early archive and another one, and what is behind the last one.
            [archive.clone(), b"\x28\xb5\x2f\xfd".to_vec(), bytes(1001)].concat(),
            [archive, vec![0; 3], b"garbage".to_vec()].concat(),
            bytes(step - 1),
            bytes(step + 1),
        ] {
            let range = load(&image, &memory).unwrap();
            assert_eq!(range.end - range.start, image.len() as u64);
            let mut found = vec![0; length];
            memory.read_slice(&mut found, GuestAddress(0)).unwrap();
            let start = usize::try_from(range.start.0).unwrap();
            let end = start + image.len();
            assert!(found[start..end] == image, "{} bytes", image.len());
            found[start..end].fill(FILLING);
            assert!(found == filling, "{} bytes: others changed", image.len());
            memory
                .write_slice(&vec![FILLING; image.len()], GuestAddress(range.start.0))
                .unwrap();
        }
    }

    #[test]
    fn no_other_pages_are_looked_for_where_none_would_do() {
        let initramfs = tempfile::NamedTempFile::new().unwrap();
        initramfs.as_file().set_len(40 * MIB).unwrap();
        let files = BootFiles {
            kernel: Box::new(Small),
            initramfs: Some(Initramfs::open(initramfs.path()).unwrap()),
        };
        let piece = |at: u64, length: u64| Gpa(at * MIB)..Gpa((at + length) * MIB);
        let fits = |ranges: &[Range<Gpa>], size| files.requirements(size).fits(ranges);
        // Enough in one piece, and enough in pieces, of which others would be better.
        assert!(fits(&[piece(2, 64)], 64 * MIB));
        assert!(!fits(&[piece(2, 32), piece(64, 32)], 64 * MIB));
        // Not enough: all that the guest has, and a part of more.
        assert!(fits(&[piece(2, 16), piece(64, 16)], 32 * MIB));
        assert!(!fits(&[piece(2, 16), piece(64, 16)], 64 * MIB));
    }

    #[test]
    fn what_no_memory_of_that_size_holds_is_refused_before_there_is_any() {
        let initramfs = tempfile::NamedTempFile::new().unwrap();
        initramfs.as_file().set_len(6 * MIB).unwrap();
        let files = BootFiles {
            kernel: Box::new(Small),
            initramfs: Some(Initramfs::open(initramfs.path()).unwrap()),
        };
        assert!(files.check_room(8 * MIB).is_ok());
        for (size, what) in [(7 * MIB, "initramfs needs 6 MiB"), (MIB, "kernel needs 2")] {
            let error = files.check_room(size).unwrap_err();
            assert_eq!(error.id(), "place");
            let text = chain(&error);
            assert!(text.contains(what), "{text}");
        }
    }

    #[test]
    fn a_command_line_is_refused_for_its_length_and_for_linux_only_for_its_words() {
        let files = BootFiles {
            kernel: Box::new(Small),
            initramfs: None,
        };
        let check = |line: &str, is_linux| files.check_command_line(line, is_linux);
        assert!(check("quiet", true).is_ok());
        assert!(check("noapic", false).is_ok());
        for (line, is_linux) in [
            ("noapic", true),
            ("a\0b", false),
            ("x".repeat(0x1_0000).as_str(), false),
        ] {
            assert_eq!(check(line, is_linux).unwrap_err().id(), "params");
        }
    }

    #[test]
    fn an_empty_initramfs_is_none() {
        let (memory, _) = memory();
        assert_eq!(load(b"", &memory), None);
    }

    #[test]
    fn an_initramfs_that_got_shorter_is_an_error() {
        let (memory, _) = memory();
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(5000).unwrap();
        let mut initramfs = Initramfs::open(file.path()).unwrap();
        file.as_file().set_len(4999).unwrap();
        let error = initramfs.load(&memory, Gpa(0)).unwrap_err();
        assert_eq!(error.id(), "load");
    }
}
