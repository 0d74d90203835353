//! A guest that does anything with its guarded NVMe controller, whose device does all that hardware may do.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = guarded_nvme_testing::hostile::run(bytes);
});
