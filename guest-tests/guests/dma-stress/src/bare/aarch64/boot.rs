// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the machine is, as the device tree tells.

use core::ptr;
use core::slice;

use address::Gpa;

pub use super::device_tree::Lines;
use super::device_tree::{self, Tree};
use super::paging::{self, Kind};
use super::smp::{Cpu, Starter};
use super::{controller, entry, ports, power, serial};
use crate::bare::machine::Booted;

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
    let tree = read(Gpa(device_tree))?;
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
        others: Ok((Starter, others)),
        ecam: tree.ecam,
        lines: tree.lines,
    })
}

/// Reads the tree at `at`.
fn read(at: Gpa) -> Result<Tree, &'static str> {
    let start = at.align_down(PAGE);
    paging::map(&(start..start + 2 * PAGE), Kind::Ram);
    let bytes = ptr::with_exposed_provenance::<u8>(at.0 as usize);
    // SAFETY: the loader guarantees the tree, and its header was just mapped. A tree is aligned to 8 bytes.
    let size = unsafe { bytes.add(TOTAL_SIZE).cast::<u32>().read_volatile() };
    let size = u64::from(u32::from_be(size));
    let end = (at + size).align_up(PAGE).ok_or("no device tree")?;
    paging::map(&(start..end), Kind::Ram);
    // SAFETY: all of it is mapped, and nothing writes to it before buffers are taken from RAM.
    let bytes = unsafe { slice::from_raw_parts(bytes, size as usize) };
    device_tree::read(bytes)
}

/// Maps memory and the machine's own devices.
fn map(tree: &Tree) {
    for range in &tree.memory {
        paging::map(range, Kind::Ram);
    }
    let devices = [Some(&tree.serial), tree.power.as_ref(), tree.ports.as_ref()];
    for range in devices.into_iter().flatten().chain(&tree.controller) {
        let end = range.end.align_up(PAGE).unwrap_or(range.end);
        paging::map(&(range.start.align_down(PAGE)..end), Kind::Device);
    }
    // SAFETY: the tree has them, and they were just mapped.
    unsafe {
        serial::found(tree.serial.start);
        if let Some(power) = &tree.power {
            power::found(power.start);
        }
        if let Some(ports) = &tree.ports {
            ports::found(ports.start);
        }
    }
}
