// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kernel files of x86-64, and what a kernel is given at its entry.

use address::Gpa;

pub mod bzimage;
pub mod elf;
pub mod handover;
pub mod kernel_file;
pub mod linux_options;
pub mod low_memory;
pub mod memory_map;
pub mod params;
mod pvh;
pub mod start_info;

/// What 32 bits do not reach.
const LIMIT_4G: Gpa = Gpa(1 << 32);
