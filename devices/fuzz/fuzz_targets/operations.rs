// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's accesses to config space and BARs, resets, gate moves and host faults, in any order.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| devices_testing::operations::run(bytes));
