//! A user-space driver for a Linux guest whose devices are passed through with `dma=translate`: moves data from a
//! hugepage to an `edu` device and back, with addresses from the DMA window. `docs/translate.md` goes through it.
//!
//! Run it as root, with a hugepage of 2 MiB reserved.

mod edu;
mod mapping;
mod memory;
mod pci;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use dma_window::{Bars, DmaWindow};

use edu::{Direction, Edu};
use mapping::Mapping;
use memory::Buffer;
use pci::Function;

/// Pieces that are moved, each as large as the device's buffer.
const PIECES: u64 = 8;
/// From the begin of one piece to that of the next. Pieces straddle a page boundary, so that they are in two runs
/// unless the host's pages happen to follow one another.
const STRIDE: u64 = 0x1_0000;
const FIRST: u64 = 0x800;
/// Where the pieces come back to: the buffer's second half.
const BACK: u64 = memory::BYTES / 2;
/// What is there before.
const POISON: u64 = 0xa5a5_a5a5_a5a5_a5a5;

/// The window's BARs, mapped.
#[derive(Debug)]
struct WindowBars {
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

fn main() -> ExitCode {
    match run(Path::new("/sys/bus/pci/devices")) {
        Ok(()) => {
            println!("all bytes are right");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("window-example: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(devices: &Path) -> Result<()> {
    let mut window = open_window(devices)?;

    let function = Function::find(devices, edu::VENDOR, edu::DEVICE)?;
    println!("edu: {}", function.bdf);
    function.enable_memory()?;
    let edu = Edu::open(function.map_bar(0, true)?)?;

    let buffer = Buffer::new()?;
    let moved = start(&mut window, &function).and_then(|()| move_data(&window, &edu, &buffer));
    // Whatever went wrong, nothing may be written to the buffer once it is given back.
    let stopped = stop(&mut window, &function);
    moved.and(stopped)
}

/// Lets the device be a bus master: this program gives it no address but the window's.
fn start(window: &mut DmaWindow<WindowBars>, function: &Function) -> Result<()> {
    window.enable(function.bdf)?;
    // What was said at the window counts from this access to config space on.
    function.set_bus_master(true)
}

/// Stops the device, and makes it as safe for the next driver as it was before.
fn stop(window: &mut DmaWindow<WindowBars>, function: &Function) -> Result<()> {
    function.set_bus_master(false)?;
    window.disable(function.bdf)?;
    function.command().map(drop)
}

/// Finds the window and makes its BARs accessible.
fn open_window(devices: &Path) -> Result<DmaWindow<WindowBars>> {
    let function = Function::find(devices, dma_window::VENDOR, dma_window::DEVICE)
        .context("no DMA window; is a device passed through with dma=translate?")?;
    let location = dma_window::locate(|offset| function.config32(offset));
    let location =
        location.with_context(|| format!("{} has other BARs than a DMA window", function.bdf))?;
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

/// Moves pieces of the buffer's first half to the device and from there to its second half, and compares.
fn move_data(window: &DmaWindow<WindowBars>, edu: &Edu, buffer: &Buffer) -> Result<()> {
    let memory = buffer.memory();
    println!(
        "buffer: virtual {:#x}, guest-physical {}, in {} runs",
        memory.address(),
        buffer.gpa(0),
        runs(window, buffer)?
    );
    for offset in (0..BACK).step_by(8) {
        memory.write64(offset, pattern(offset));
        memory.write64(BACK + offset, POISON);
    }
    for piece in 0..PIECES {
        let offset = FIRST + piece * STRIDE;
        transfer(window, edu, buffer, (Direction::ToDevice, offset))?;
        transfer(window, edu, buffer, (Direction::ToMemory, BACK + offset))?;
    }
    for offset in (0..BACK).step_by(8) {
        let is_moved =
            offset / STRIDE < PIECES && (FIRST..FIRST + edu::BUFFER).contains(&(offset % STRIDE));
        let back = if is_moved { pattern(offset) } else { POISON };
        for (at, expected) in [(offset, pattern(offset)), (BACK + offset, back)] {
            let found = memory.read64(at);
            ensure!(
                found == expected,
                "{found:#x} at {at:#x} of the buffer, not {expected:#x}"
            );
        }
    }
    Ok(())
}

/// Moves all of the device's buffer from or to the place at `offset` of ours: one transfer for each run of memory
/// that the host has in one piece.
fn transfer(
    window: &DmaWindow<WindowBars>,
    edu: &Edu,
    buffer: &Buffer,
    (direction, offset): (Direction, u64),
) -> Result<()> {
    let mut done = 0;
    while done < edu::BUFFER {
        let gpa = buffer.gpa(offset + done);
        let run = window.translate(gpa, edu::BUFFER - done)?;
        edu.transfer(direction, done, run)?;
        println!(
            "{direction:?}: {} bytes, virtual {:#x}, guest-physical {gpa}, host-physical {}",
            run.len,
            u64::try_from(buffer.memory().address())? + offset + done,
            run.hpa
        );
        done += run.len;
    }
    Ok(())
}

/// In how many runs the host has the buffer.
fn runs(window: &DmaWindow<WindowBars>, buffer: &Buffer) -> Result<u64> {
    let (mut done, mut count) = (0, 0);
    while done < memory::BYTES {
        done += window
            .translate(buffer.gpa(done), memory::BYTES - done)?
            .len;
        count += 1;
    }
    Ok(count)
}

/// A word that is another at each place.
fn pattern(offset: u64) -> u64 {
    offset.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
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

    /// The window of the example in `docs/dma-window.md`, as files, with COMMAND.
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
        let window = open_window(devices.path()).unwrap();
        let run = window.translate(Gpa(0x4123_4567), 0x10).unwrap();
        assert_eq!((run.hpa.0, run.len), (0x3_c123_4567, 0x10));
        assert!(window.translate(Gpa(0x10_0000), 1).is_err());
        let enable = devices.path().join("0000:00:03.0/enable");
        assert_eq!(fs::read(enable).unwrap(), b"1");
    }

    #[test]
    fn devices_that_do_not_answer_or_are_taken_are_errors() {
        assert!(open_window(files(0).path()).is_err());
        let devices = files(2);
        fs::create_dir(devices.path().join("0000:00:03.0/driver")).unwrap();
        assert!(open_window(devices.path()).is_err());
        assert!(Function::find(devices.path(), edu::VENDOR, edu::DEVICE).is_err());
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
