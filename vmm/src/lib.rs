// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitor as a library. It turns a configuration into a running guest, and releases everything
//! when the guest has ended:
//!
//! 1. [`config::Config::validate`] refuses configurations that no host can run.
//! 2. [`Vmm::start`] binds the devices, pins guest memory, plans its addresses, loads the kernel and
//!    starts the vCPUs (module `stages`).
//! 3. [`Vmm::wait`] returns why the guest ended.
//! 4. [`Vmm::end`] stops the devices and releases everything (module `teardown`).
//!
//! [`plan`] performs the stages up to the plan of the guest's addresses, returns the plan, and releases
//! everything. The library prints nothing; it logs.

mod arch;
mod boot;
mod bus;
pub mod config;
pub mod confine;
mod error;
pub mod handover;

mod kvm;
mod memory;
mod passthrough;
mod run;
mod stages;
mod teardown;

/// Bytes of memory from guest-physical address 0 that are no DMA memory.
pub use arch::low::SIZE as LOW_MEMORY_SIZE;
pub use bus::address_map::AddressMap;
pub use bus::lines::InterruptLines;
pub use bus::synthetic::{SyntheticDevice, SyntheticMachine};
pub use bus::worker::Worker;
pub use error::Error;
pub use error::explain::{ExitCode, FileError, ProcessError, chain, process};
pub use kvm::irq::IrqError;
pub use memory::layout::{Layout, Swapped, Untranslated, WrongOffset};
pub use memory::table::RamTable;
pub use passthrough::assigned::KeepError;
pub use passthrough::dma_path::DmaPath;
pub use passthrough::profile::profile_for;
pub use run::RunError;
pub use run::console;
pub use run::event_loop::{RunLimit, outcome, unblock_signals};
pub use run::exit::ExitReason;
pub use run::heartbeat::Heartbeat;
pub use run::limits;
pub use run::machine_info::MachineInfo;
pub use run::own_file::{FileName, Identity as FileIdentity};
pub use run::power_button::Press;
pub use run::timings::Timings;
pub use run::vmm::{Handle, Remains, Vmm};
pub use stages::{HandedOver, Harness, Prepared, plan, report};

/// The low and the high 32 bits.
fn halves(value: u64) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is intended")]
    let low = value as u32;
    let high = (value >> 32) as u32;
    (low, high)
}
