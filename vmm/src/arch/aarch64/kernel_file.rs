// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the kernels of aarch64 are called, placed, loaded and entered.

use std::marker::PhantomData;
use std::path::Path;

use address::Gpa;
use linux_loader::loader::KernelLoader;
use linux_loader::loader::pe::PE;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::image::ALIGNMENT;
use super::image_file::ImageFile;
use super::layout::COMMAND_LINE_ROOM;
use crate::arch::params::ParamsError;
use crate::boot::kernel::{Demand, Kernel, KernelError};
use crate::boot::release::Release;

/// The kinds of files that [`open_kernel`] takes, behind "neither".
pub const KERNEL_FORMATS: &str = "an arm64 Image or a gzip file of one";
/// Kernels that run wherever they are loaded.
pub const RELOCATABLE_KERNELS: &str = "an Image of Linux";
/// `Machine` of EFI programs for this architecture (Microsoft, PE Format, "Machine Types").
pub const EFI_MACHINES: &[u16] = &[0xaa64];

/// How a kernel is entered: there is one way.
#[derive(Clone, Copy, Debug)]
pub struct Protocol<'a>(PhantomData<&'a ()>);

impl Protocol<'_> {
    /// Bytes of the longest command line.
    #[must_use]
    pub fn longest_command_line(&self) -> usize {
        COMMAND_LINE_ROOM
    }
}

/// Refuses a command line with which Linux would hang before it says why: there is no such option.
///
/// # Errors
/// None.
pub fn check_linux_options(_: &str) -> Result<(), ParamsError> {
    Ok(())
}

/// Opens and checks the kernel at `path`.
///
/// # Errors
/// [`KernelError`]
pub fn open_kernel(path: &Path) -> Result<Box<dyn Kernel>, KernelError> {
    Ok(Box::new(ImageFile::open(path)?))
}

impl Kernel for ImageFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn demand(&self) -> Demand {
        Demand {
            len: self.header.room(self.len),
            alignment: ALIGNMENT,
            lowest: Gpa(0),
            below: Demand::NO_LIMIT,
            reason: "addresses end there",
            initramfs_below: Demand::NO_LIMIT,
            pieces: self.header.pieces(self.release),
        }
    }

    fn protocol(&self) -> Protocol<'_> {
        Protocol(PhantomData)
    }

    fn release(&self) -> Result<Option<Release>, KernelError> {
        Ok(self.release)
    }

    fn load(&mut self, memory: &GuestMemoryMmap, at: Gpa) -> Result<Gpa, KernelError> {
        let failed = |source| KernelError::Load {
            path: self.path.clone(),
            at,
            source,
        };
        let place = Some(GuestAddress(at.0));
        let loaded = PE::load(memory, place, &mut self.file, None);
        let loaded = loaded.map_err(|error| failed(Box::new(error)))?;
        Ok(Gpa(loaded.kernel_load.0))
    }
}
