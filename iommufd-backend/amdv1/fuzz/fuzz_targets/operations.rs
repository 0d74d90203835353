// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sequences of operations on a table and on a plain model of it.
#![no_main]

#[path = "../../tests/bodies/operations.rs"]
mod operations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| operations::operations(data));
