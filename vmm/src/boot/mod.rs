// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which files a guest boots from, and where they go in its memory. How a kernel is entered is the architecture's
//! affair ([`arch`](crate::arch)).

pub(crate) mod command_line;
mod error;
pub(crate) mod files;
pub(crate) mod foreign;
pub mod kernel;
pub mod place;
pub mod release;

pub use error::{BootError, LoadError};
