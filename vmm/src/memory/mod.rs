// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory: how it is laid out, described to the guest and mapped.

pub(crate) mod backing;
mod candidates;
pub mod choice;
mod error;
pub mod guest;
pub mod layout;
pub mod layouts;
pub mod moved;
pub mod pieces;
pub mod plan;
mod pool_lock;
pub(crate) mod progress;
pub mod table;

pub use error::{FRAGMENTED, LayoutError};
