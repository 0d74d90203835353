// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver against a controller in software, on memory whose pages lie anywhere.

#![expect(
    clippy::cast_possible_truncation,
    reason = "the values are small, or halves are wanted"
)]

mod hostile;
mod life;
mod machine;
mod pieces;
mod prp;
mod simulated;
mod transfers;
