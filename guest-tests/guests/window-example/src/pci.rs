// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! PCI functions as Linux shows them below `/sys/bus/pci/devices`
//! (Linux Documentation/PCI/sysfs-pci.rst).

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use address::Bdf;
use anyhow::{Context, Result, bail, ensure};
use pci_config::regs::{COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY, VENDOR};

use crate::mapping::Mapping;

/// A function, its config space and the folder with its BARs.
#[derive(Debug)]
pub struct Function {
    pub bdf: Bdf,
    folder: PathBuf,
    config: File,
}

impl Function {
    /// The first function with these IDs that no driver of the kernel has.
    pub fn find(devices: &Path, vendor: u16, device: u16) -> Result<Self> {
        let wanted = u32::from(device) << 16 | u32::from(vendor);
        let entries = fs::read_dir(devices).with_context(|| devices.display().to_string())?;
        for entry in entries {
            let function = Self::open(&entry?.path())?;
            if function.config32(VENDOR) == wanted && !function.folder.join("driver").exists() {
                return Ok(function);
            }
        }
        bail!(
            "no free PCI device {vendor:04x}:{device:04x} in {}",
            devices.display()
        );
    }

    fn open(folder: &Path) -> Result<Self> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let bdf = name
            .parse()
            .ok()
            .with_context(|| format!("{name} is not a PCI function"))?;
        let path = folder.join("config");
        let config = File::options().read(true).write(true).open(&path);
        Ok(Self {
            bdf,
            folder: folder.to_owned(),
            config: config.with_context(|| path.display().to_string())?,
        })
    }

    /// 32 bits of config space; all-ones if no device answers.
    pub fn config32(&self, offset: u16) -> u32 {
        let mut bytes = [0xff; 4];
        let read = self.config.read_exact_at(&mut bytes, offset.into());
        read.map_or(u32::MAX, |()| u32::from_le_bytes(bytes))
    }

    /// Makes the BARs answer.
    pub fn enable_memory(&self) -> Result<()> {
        let path = self.folder.join("enable");
        // Counts users; the kernel turns memory decode on, and interrupts and power where that is needed.
        fs::write(&path, "1").with_context(|| path.display().to_string())?;
        let command = self.command()?;
        let is_on = command & COMMAND_MEMORY != 0;
        ensure!(
            is_on,
            "{} has no memory decode after it was enabled",
            self.bdf
        );
        Ok(())
    }

    /// Sets or clears Bus Master in COMMAND.
    pub fn set_bus_master(&self, on: bool) -> Result<()> {
        let others = self.command()? & !COMMAND_BUS_MASTER;
        let command = if on {
            others | COMMAND_BUS_MASTER
        } else {
            others
        };
        let write = self
            .config
            .write_all_at(&command.to_le_bytes(), COMMAND.into());
        write.with_context(|| format!("COMMAND of {}", self.bdf))?;
        let found = self.command()?;
        ensure!(
            found == command,
            "{} has COMMAND {found:#x}, not {command:#x}",
            self.bdf
        );
        Ok(())
    }

    /// Maps a BAR. Needs [`enable_memory`](Self::enable_memory).
    pub fn map_bar(&self, number: u8, is_writable: bool) -> Result<Mapping> {
        let path = self.folder.join(format!("resource{number}"));
        let file = File::options().read(true).write(is_writable).open(&path);
        let mapping = file.and_then(|file| Mapping::of_file(&file, is_writable));
        mapping.with_context(|| path.display().to_string())
    }

    /// Reads COMMAND.
    pub fn command(&self) -> Result<u16> {
        let mut bytes = [0; 2];
        let read = self.config.read_exact_at(&mut bytes, COMMAND.into());
        read.with_context(|| format!("COMMAND of {}", self.bdf))?;
        Ok(u16::from_le_bytes(bytes))
    }
}
