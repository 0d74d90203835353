// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's accesses to the software DMA engine, in any order, against a plain model of it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    devices_testing::edu::operations::run(bytes);
});
