// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What tests and fuzzers of `guarded-nvme` use in the place of hardware and guests. Nothing of the product depends on it.
//!
//! [`Physical`] is the memory of a machine: it knows whose each page is, and panics where a device goes where it must not.
//! [`GuestRam`] is a guest's share of it, which may change while it is read. [`Model`] is the device, and [`Rig`] puts a guest,
//! its controller and the device together. [`Driver`] is a guest's driver of the usual kind.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a broken rule ends a test or a fuzzer"
)]

pub mod core;
mod driver;
pub mod hostile;
mod input;
mod list;
mod machine;
mod memory;
mod model;
mod ram;
mod random;
mod rig;

pub use driver::{Driver, Io};
pub use input::Input;
pub use list::VecList;
pub use machine::GuestMachine;
pub use memory::{ModelBlock, Owner, Physical};
pub use model::{Misbehaviour, Model, ModelDevice, ModelNamespace, Personality};
pub use ram::{GuestRam, Trick};
pub use random::Random;
pub use rig::Rig;
