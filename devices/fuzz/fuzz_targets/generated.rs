// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A mediated device and its profile, made up from the bytes, and a guest's accesses to it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    devices_testing::mediate::generated::run(bytes);
});
