// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A host PCI function shown to the guest.

mod config_space;
mod function;
mod gate;
mod guest_access;
mod host;
mod in_step;
mod interrupts;
pub(crate) mod layout;
mod messages;
mod policy;
mod registers;
mod report;
mod setup;

pub use function::{Options, PassthroughFunction};
pub use gate::BusMasterGate;
pub use host::{HostError, HostFunction, HostInfo, RegionInfo, Vectors};
pub use report::{DeviceFailure, FailureHook};
pub use setup::SetupError;

pub use crate::pci::{MsiMessage, Region};
pub use pci_config::{InterruptKind, PerKind};
