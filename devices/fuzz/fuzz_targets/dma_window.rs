// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's accesses to the DMA window, in any order, against a plain model of it; its memory
//! is made up as well.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    devices_testing::dma_window::operations::run(bytes);
});
