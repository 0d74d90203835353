// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A user-space driver for a Linux guest whose devices are passed through with `dma=translate`: moves data from a
//! hugepage to an `edu` device and back, with addresses from the DMA window. `docs/guide/translate.md` goes through it.
//!
//! Run it as root, with a hugepage of 2 MiB reserved.

mod edu;
mod mapping;
mod memory;
mod pci;
mod round_trip;
mod window;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use edu::Edu;
use memory::Buffer;
use pci::Function;
use round_trip::RoundTrip;
use window::Window;

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
    let mut window = window::open(devices)?;

    let function = Function::find(devices, edu::VENDOR, edu::DEVICE)?;
    println!("edu: {}", function.bdf);
    function.enable_memory()?;
    let edu = Edu::open(function.map_bar(0, true)?)?;

    let buffer = Buffer::new()?;
    let moved =
        start(&mut window, &function).and_then(|()| RoundTrip::new(&window, &edu, &buffer).run());
    // Whatever went wrong, nothing may be written to the buffer once it is released.
    let stopped = stop(&mut window, &function);
    moved.and(stopped)
}

/// Lets the device be a bus master: this program gives it no address but the window's.
fn start(window: &mut Window, function: &Function) -> Result<()> {
    window.enable(function.bdf)?;
    // The window's setting takes effect with this access to config space.
    function.set_bus_master(true)
}

/// Stops the device, and makes it as safe for the next driver as it was before.
fn stop(window: &mut Window, function: &Function) -> Result<()> {
    let cleared = function.set_bus_master(false);
    let disabled = window.disable(function.bdf);
    // It counts from this access on.
    let read = function.command();
    cleared?;
    disabled?;
    read.map(drop)
}
