// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guarded NVMe controller as the guest's bus sees it.
//!
//! The crate `guarded-nvme` checks and translates commands on a thread of its own. Here is what vCPU threads reach: config
//! space, BAR0, the MSI-X table, and the words that both sides share ([`Shared`]).
//!
//! ```text
//!  guest's bus ─► GuardedNvme ─► Shared ◄─ the device's thread with its `Controller`
//!                 config space    registers, doorbells, MSI-X table
//! ```
//!
//! Everything of BAR0 is emulated, and no other BAR, no INTx, no MSI and no other capability is shown. The guest's bus
//! mastering bit has no effect: the real device's is the monitor's.

mod function;
mod shared;
mod translate;

pub use function::{GuardedNvme, Options, SetupError};
pub use guarded_nvme::guest::{Access, Translate};
pub use shared::{Outside, Shared, Wanted};
