// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Walks through arbitrary tables.
#![no_main]

#[path = "../../tests/bodies/scribble.rs"]
mod scribble;

libfuzzer_sys::fuzz_target!(|data: &[u8]| scribble::scribble(data));
