// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! All errors, and how each explains itself.

mod all;
pub(crate) mod explain;

pub use all::Error;
