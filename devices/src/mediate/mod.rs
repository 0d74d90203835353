// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mediated DMA: a decorator of [`HostFunction`](crate::vfio_pci::HostFunction) for devices
//! whose DMA addresses are written to registers.
//!
//! A [`Profile`] names those registers. The pages they are in trap. What the guest writes to them
//! stays with the monitor until it writes the *start* bit; then the whole transfer is checked, its
//! addresses in memory are translated, and the device is programmed and started, or not, all within
//! one call, which the bus makes one at a time. An address that was not checked never reaches the
//! device.
//!
//! `docs/reference/mediate.md` describes the format of profiles, and what is isolated and what is not.

mod check;
mod error_reporting;
mod function;
mod profile;
mod program;
mod registers;
mod routes;
mod setup;
mod start;
mod statistics;
mod translate;

pub use check::{Reason, Refusal};
pub use function::{MediatedFunction, Options};
pub use profile::{Direction, Invalid, ON_REQUEST, Profile, ProfileError, SHIPPED};
pub use setup::SetupError;
pub use statistics::{Counters, Statistics};
pub use translate::{Run, Translate};
