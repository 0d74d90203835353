// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can fail, and how each error explains itself.

mod all;
pub(crate) mod explain;

pub use all::Error;
