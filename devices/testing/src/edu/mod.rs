// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory and interrupts to try an engine with, a plain model of it, and a driver of random
//! operations that holds one against the other. For tests and fuzzing.

#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths and offsets are below 2^20, and register values are cut on purpose"
)]

mod model;
pub mod operations;
mod outside;

pub use outside::{Event, Events, PAGE, Ram, TestMemory};
