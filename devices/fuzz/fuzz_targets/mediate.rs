// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's accesses to a mediated DMA engine, in any order, against a plain model of it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    devices_testing::mediate::operations::run(bytes);
});
