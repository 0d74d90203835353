// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A kernel to boot, from any supported kind of file.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use address::Gpa;
use vm_memory::GuestMemoryMmap;

use super::release::Release;
use crate::arch::{KERNEL_FORMATS, Protocol};

/// A kernel that has passed all checks which do not depend on where it is loaded.
pub trait Kernel: Debug {
    /// The file that it came from.
    fn path(&self) -> &Path;

    /// What it asks of its place.
    fn demand(&self) -> Demand;

    /// How it is entered.
    fn protocol(&self) -> Protocol<'_>;

    /// Its release of Linux; `None` if unknown.
    ///
    /// # Errors
    /// [`KernelError::Read`]
    fn release(&self) -> Result<Option<Release>, KernelError>;

    /// Loads it at `at`, which satisfies its [`demand`](Self::demand). Returns the address of its
    /// entry point.
    ///
    /// # Errors
    /// [`KernelError`]
    fn load(&mut self, memory: &GuestMemoryMmap, at: Gpa) -> Result<Gpa, KernelError>;
}

/// What a kernel asks of the place where it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Bytes of contiguous RAM from the load address on.
    pub len: u64,
    /// The load address is a multiple of this.
    pub alignment: u64,
    /// Lowest load address: loaded below, a kernel may move itself up to here without asking
    /// whether there is memory.
    pub lowest: Gpa,
    /// All of it is below this.
    pub below: Gpa,
    /// Why it must be [`below`](Self::below), for the error.
    pub reason: &'static str,
    /// All of the initramfs is below this.
    pub initramfs_below: Gpa,
}

impl Demand {
    /// Where all addresses are below: the most bits of one that a CPU has, on x86-64 (Intel SDM, volume 3, section
    /// 4.1.4) as on arm64.
    pub const NO_LIMIT: Gpa = Gpa(1 << 52);
    /// What 32 bits do not reach.
    pub const LIMIT_4G: Gpa = Gpa(1 << 32);
}

/// Why a kernel cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file cannot be read.
    #[error("Cannot read kernel {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is not {KERNEL_FORMATS}: it is {found}", path.display())]
    NotKernel {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: &'static str,
        /// The command that gets a kernel out of it, where that is known.
        unpack: Option<String>,
    },
    /// The file is shorter than its header requires.
    #[error("Kernel {} is truncated: it has {len} bytes, and its header requires {expected}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The least that it should be.
        expected: u64,
    },
    /// The kernel does not support what is needed of it.
    #[error("Kernel {} cannot be used: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
    /// Memory at the chosen place did not take the kernel.
    #[error("Cannot load kernel {} at GPA {at}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// The place.
        at: Gpa,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
