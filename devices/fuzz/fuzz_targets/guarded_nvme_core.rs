//! Any NVMe commands, over guest memory that changes while it is read: the core refuses or rebuilds them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = guarded_nvme_testing::core::run(bytes);
});
