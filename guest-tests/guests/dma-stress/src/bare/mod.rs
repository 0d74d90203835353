// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The image: everything that needs the machine itself.

#![expect(
    clippy::cast_possible_truncation,
    reason = "the machine has 64 bits, and fields of registers are cut out by casts"
)]

mod apic;
mod clock;
mod dma_pages;
mod ecam;
mod engines;
mod entry;
mod firmware;
mod guarded;
mod heap;
mod machine;
mod mmio;
mod paging;
mod peers;
mod physical;
mod ports;
mod power;
mod run;
mod serial;
mod smp;
mod traps;
mod window;
mod wiring;
