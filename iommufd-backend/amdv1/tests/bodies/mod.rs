// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the property tests, the fuzz targets and the replay of their corpus run on a string of
//! bytes. Both bodies panic on a wrong result.

mod operations;
mod scribble;

pub use operations::operations;
pub use scribble::scribble;
