// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The files that a guest boots from, and their places in its memory. The architecture defines how
//! a kernel is entered ([`arch`](crate::arch)).

pub(crate) mod command_line;
mod error;
pub(crate) mod files;
pub(crate) mod foreign;
pub mod kernel;
pub mod place;
pub mod release;

pub use error::{BootError, LoadError};
