// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the machine is, as the device tree tells.

use core::ops::Range;
use core::ptr;
use core::slice;

use address::Gpa;

pub use super::device_tree::Lines;
use super::device_tree::{self, Console, Tree};
use super::paging::{self, Kind};
use super::serial::Port;
use super::smp::{Cpu, Starter};
use super::{controller, entry, ports, power};
use crate::bare::machine::Booted;
use crate::bare::serial;

const PAGE: u64 = 4096;
/// The image is in one block, which the first tables map.
const BLOCK: u64 = 2 << 20;
/// Where the header of a device tree has its bytes.
const TOTAL_SIZE: usize = 4;

/// Maps the machine, whose device tree is given.
///
/// # Errors
/// What it lacks.
pub fn take_over(device_tree: u64) -> Result<Booted, &'static str> {
    let image = Gpa(entry::image().start);
    paging::init();
    paging::map(&(image..image + BLOCK), Kind::Ram);
    // SAFETY: the image is mapped.
    unsafe { paging::load() };
    let bytes = map_tree(Gpa(device_tree))?;
    let fdt = device_tree::parse(bytes)?;
    find_console(&device_tree::console(fdt));
    let tree = device_tree::read(fdt)?;
    map(&tree);
    let [distributor, redistributors, its] = &tree.controller;
    let processors = tree.processors.len();
    // SAFETY: the tree has them, and they were just mapped.
    unsafe { controller::init(distributor, redistributors, its, processors)? };
    let own = controller::affinity();
    let others: alloc::vec::Vec<Cpu> = tree
        .processors
        .into_iter()
        .filter(|id| *id != own)
        .collect();
    Ok(Booted {
        command_line: tree.command_line,
        memory: tree.memory,
        others: Ok((Starter::default(), others)),
        ecam: tree.ecam,
        lines: tree.lines,
    })
}

/// Maps the tree at `at`, and returns its bytes.
fn map_tree(at: Gpa) -> Result<&'static [u8], &'static str> {
    let start = at.align_down(PAGE);
    paging::map(&(start..start + 2 * PAGE), Kind::Ram);
    let bytes = ptr::with_exposed_provenance::<u8>(at.0 as usize);
    // SAFETY: the loader guarantees the tree, and its header was just mapped. A tree is aligned to 8 bytes.
    let size = unsafe { bytes.add(TOTAL_SIZE).cast::<u32>().read_volatile() };
    let size = u64::from(u32::from_be(size));
    let end = (at + size).align_up(PAGE).ok_or("no device tree")?;
    paging::map(&(start..end), Kind::Ram);
    // SAFETY: all of it is mapped, and nothing writes to it before buffers are taken from RAM.
    Ok(unsafe { slice::from_raw_parts(bytes, size as usize) })
}

/// Maps what is needed to report and to end.
fn find_console(console: &Console) {
    if let Some(range) = &console.serial {
        map_device(range);
        // SAFETY: the tree has it, and it was just mapped.
        let port = unsafe { Port::new(range.clone()) };
        serial::init(Some(port));
    }
    if let Some(power) = &console.power {
        map_device(power);
        // SAFETY: as above.
        unsafe { power::found(power.start) };
    }
}

fn map_device(range: &Range<Gpa>) {
    let end = range.end.align_up(PAGE).unwrap_or(range.end);
    paging::map(&(range.start.align_down(PAGE)..end), Kind::Device);
}

/// Maps memory and the machine's own devices.
fn map(tree: &Tree) {
    for range in &tree.memory {
        paging::map(range, Kind::Ram);
    }
    for range in tree.controller.iter().chain([&tree.ports]) {
        map_device(range);
    }
    // SAFETY: the tree has them, and they were just mapped.
    unsafe { ports::found(tree.ports.start) };
}
