// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A test machine with an NVMe disk, and what the guest on it boots.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::error::{AtPath, Result};
use crate::machine::Machine;
use crate::setup::{self, Arch};
use crate::trace::NVME_EVENTS;
use crate::{guest, image};

/// The disk in MiB.
pub const DISK_MIB: usize = 64;

/// A machine that is silent for so long is taken to hang, however busy the build machine is.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(240);

/// The arguments of `pinvisor run` for the device and files of a [`Rig`], all but the memory.
pub const ARGUMENTS: &str = "--noiommu --device $TESTBED_BDF_0 --kernel /testbed/kernel \
                             --initramfs /testbed/initramfs --cmdline 'console=ttyS0 quiet'";

/// Disk image and initramfs, removed in the end.
#[derive(Debug)]
pub struct Rig {
    arch: Arch,
    folder: TempDir,
    /// What is on the disk at first.
    pub contents: Vec<u8>,
}

impl Rig {
    /// A disk image from a seed, and an initramfs that runs `guest`.
    pub fn new(seed: u64, guest: &str) -> Result<Self> {
        Self::on(Arch::X86_64, seed, &["nvme"], guest)
    }

    /// The same for a machine of `arch`, with these modules of its guest's kernel.
    pub fn on(arch: Arch, seed: u64, modules: &[&str], guest: &str) -> Result<Self> {
        let kernel = setup::guest_kernel_of(arch)?;
        Self::of_arch(arch, seed, |path| {
            guest::write_initramfs_of(&kernel, path, modules, guest)
        })
    }

    /// A disk image from a seed, and an initramfs that `write` writes, for a PC.
    pub fn with_initramfs(seed: u64, write: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        Self::of_arch(Arch::X86_64, seed, write)
    }

    /// The same for a machine of `arch`.
    pub fn of_arch(arch: Arch, seed: u64, write: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let folder = tempfile::tempdir().at("create", "a temporary folder")?;
        let rig = Self {
            arch,
            folder,
            contents: image::bytes(DISK_MIB, seed),
        };
        image::write(&rig.disk(), &rig.contents)?;
        write(&rig.path("initramfs"))?;
        Ok(rig)
    }

    /// The disk image.
    pub fn disk(&self) -> PathBuf {
        self.path("disk")
    }

    /// A machine with the disk, the kernel as `/testbed/kernel` and the initramfs, and the traces on.
    pub fn machine(&self, kernel: PathBuf) -> Machine {
        let machine = NVME_EVENTS
            .iter()
            .fold(Machine::builder(), |machine, event| machine.trace(event));
        machine
            .arch(self.arch)
            .writable_disk("disk", self.disk())
            .device("nvme,drive=disk,serial=testbed")
            .file("kernel", kernel)
            .file("initramfs", self.path("initramfs"))
            .trace("pci_cfg_write")
            .patience(SILENCE_TIMEOUT)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
