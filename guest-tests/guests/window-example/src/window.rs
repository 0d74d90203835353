// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The DMA window in a Linux guest: its BARs are files.

use std::path::Path;

use anyhow::{Context, Result};
use dma_window::{Bars, DmaWindow};

use crate::mapping::Mapping;
use crate::pci::Function;

/// The window behind its mapped BARs.
pub type Window = DmaWindow<WindowBars>;

/// The window's BARs, mapped.
#[derive(Debug)]
pub struct WindowBars {
    registers: Mapping,
    table: Mapping,
}

impl Bars for WindowBars {
    fn read_register(&self, offset: u64) -> u32 {
        self.registers.read32(offset)
    }

    fn write_register(&self, offset: u64, value: u32) {
        self.registers.write32(offset, value);
    }

    fn read64(&self, offset: u64) -> u64 {
        self.table.read64(offset)
    }
}

/// Finds the window and makes its BARs accessible.
pub fn open(devices: &Path) -> Result<Window> {
    let function = Function::find(devices, dma_window::VENDOR, dma_window::DEVICE)
        .context("no DMA window; is a device passed through with dma=translate?")?;
    let location = dma_window::locate(|offset| function.config32(offset))
        .with_context(|| format!("{} has other BARs than a DMA window", function.bdf))?;
    function.enable_memory()?;
    let bars = WindowBars {
        registers: function.map_bar(0, true)?,
        table: function.map_bar(2, false)?,
    };
    let window = DmaWindow::open(bars, location.table)?;
    println!(
        "DMA window: {}, a table of {} bytes at {}, generation {}",
        function.bdf,
        window.table_bytes(),
        location.table,
        window.generation()
    );
    Ok(window)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use address::Gpa;

    use super::*;

    /// A file of zeros with these 32-bit words, by offset.
    fn words(len: usize, words: &[(usize, u32)]) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (offset, word) in words {
            bytes[*offset..offset + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The window of the example in `docs/reference/dma-window.md`, as files, with COMMAND.
    fn files(command: u32) -> tempfile::TempDir {
        let config = [
            (0, 0x7057_1234),
            (4, command),
            (0x10, 0xfe00_0000),
            (0x18, 0xc),
            (0x1c, 0xc0),
        ];
        let magic = [
            (0, dma_window::MAGIC),
            (4, dma_window::VERSION),
            (8, 7),
            (0xc, 3),
        ];
        let registers = [&magic[..], &[(0x14, 0xc0), (0x18, 0x3000)]].concat();
        let table = [(0x8, 0xc000_0001), (0xc, 0x7000_0003)];
        let devices = tempfile::tempdir().unwrap();
        let folder = devices.path().join("0000:00:03.0");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("config"), words(64, &config)).unwrap();
        fs::write(folder.join("enable"), "0").unwrap();
        fs::write(folder.join("resource0"), words(4096, &registers)).unwrap();
        fs::write(folder.join("resource2"), words(0x4000, &table)).unwrap();
        devices
    }

    #[test]
    fn the_window_is_found_among_the_devices() {
        let devices = files(2);
        let window = open(devices.path()).unwrap();
        let run = window.translate(Gpa(0x4123_4567), 0x10).unwrap();
        assert_eq!((run.hpa.0, run.len), (0x3_c123_4567, 0x10));
        assert!(window.translate(Gpa(0x10_0000), 1).is_err());
        let enable = devices.path().join("0000:00:03.0/enable");
        assert_eq!(fs::read(enable).unwrap(), b"1");
    }

    #[test]
    fn devices_that_do_not_answer_or_are_taken_are_errors() {
        assert!(open(files(0).path()).is_err());
        let devices = files(2);
        fs::create_dir(devices.path().join("0000:00:03.0/driver")).unwrap();
        assert!(open(devices.path()).is_err());
        assert!(Function::find(devices.path(), 0x1234, 0x11e8).is_err());
    }

    #[test]
    fn bus_mastering_leaves_the_rest_of_command() {
        let devices = files(0x0506);
        let find = Function::find(devices.path(), dma_window::VENDOR, dma_window::DEVICE);
        let function = find.unwrap();
        for (on, command) in [(false, 0x0502), (true, 0x0506), (true, 0x0506)] {
            function.set_bus_master(on).unwrap();
            assert_eq!(function.command().unwrap(), command);
        }
    }
}
