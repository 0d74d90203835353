// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Any text as a profile of a mediated device, and any access to what it describes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    devices_testing::mediate::profiles::run(bytes);
});
