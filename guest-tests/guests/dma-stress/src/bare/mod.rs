// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The image: everything that needs the machine itself.

#![expect(
    clippy::cast_possible_truncation,
    reason = "the machine has 64 bits, and fields of registers are cut out by casts"
)]

#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64/mod.rs")]
mod arch;
mod clock;
mod dma_pages;
mod ecam;
mod end;
mod engines;
mod guarded;
mod heap;
mod machine;
mod mmio;
mod peers;
mod physical;
mod run;
mod serial;
mod smp;
mod vectors;
mod window;
mod wiring;
