//! What tests and fuzzers of `guarded-nvme` use in the place of hardware and guests. Nothing of the product depends on it.
//!
//! [`Physical`] is the memory of a machine: it knows whose each page is, and panics where a device goes where it must not.
//! [`GuestRam`] is a guest's share of it, which may change while it is read.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a broken rule ends a test or a fuzzer"
)]

pub mod core;
mod input;
mod list;
mod memory;
mod ram;

pub use input::Input;
pub use list::VecList;
pub use memory::{ModelBlock, Owner, Physical};
pub use ram::{GuestRam, Trick};
