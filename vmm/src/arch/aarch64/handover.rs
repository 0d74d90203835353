// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a kernel is given at its entry, besides its own image: the device tree.

use std::fs::File;
use std::io::Read;
use std::ops::Range;

use address::Gpa;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::device_tree::{self, Boot, Platform, SEED};
use super::error::DeviceTreeError;
use super::image::ALIGNMENT;
use super::kernel_file::Protocol;
use super::memory_map::LowMemoryUse;
use crate::arch::ArchError;
use crate::boot::place::Placement;
use crate::memory::plan::MemoryPlan;

/// A guest whose kernel is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Handover<'a> {
    /// Its memory.
    pub memory: &'a GuestMemoryMmap,
    /// Where RAM is in it.
    pub plan: &'a MemoryPlan,
    /// What low memory is called.
    pub low: LowMemoryUse,
    /// Its CPUs and buses.
    pub platform: &'a Platform,
    /// The kernel's command line.
    pub command_line: &'a str,
}

/// What a CPU needs to know to start the kernel.
#[derive(Clone, Debug)]
pub struct Start {
    /// Where the kernel begins.
    pub entry: Gpa,
    /// Where the device tree is.
    pub device_tree: Gpa,
    /// The kernel's own memory, and the device tree's.
    pub image: Range<Gpa>,
}

impl Handover<'_> {
    /// Writes what the kernel at `placement` is given, which is entered at `at`.
    ///
    /// # Errors
    /// [`ArchError::DeviceTree`]
    pub fn write(self, placement: Placement, at: Gpa, _: Protocol<'_>) -> Result<Start, ArchError> {
        // The kernel's place ends with a block for the tree (`Header::room`).
        let device_tree = Gpa(placement.kernel.end.0.saturating_sub(ALIGNMENT));
        self.write_tree(&placement, device_tree)?;
        Ok(Start {
            entry: at,
            device_tree,
            image: placement.kernel,
        })
    }

    fn write_tree(&self, placement: &Placement, at: Gpa) -> Result<(), DeviceTreeError> {
        let mut seed = [0; SEED];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut seed))
            .map_err(DeviceTreeError::Random)?;
        let boot = Boot {
            memory: &self.plan.ranges(),
            command_line: self.low.command_line(self.command_line),
            on_bus: self.plan.on_bus(),
            initramfs: placement.initramfs.as_ref(),
            seed: &seed,
        };
        let tree = device_tree::write(self.platform, &boot)?;
        if tree.len() as u64 > ALIGNMENT {
            return Err(DeviceTreeError::TooLong {
                need: tree.len() as u64,
                room: ALIGNMENT,
            });
        }
        Ok(self.memory.write_slice(&tree, GuestAddress(at.0))?)
    }
}
