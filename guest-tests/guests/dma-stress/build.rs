// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Links the bare-metal image as the monitor loads it.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=image-x86_64.ld");
    println!("cargo::rerun-if-changed=image-aarch64.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let folder = env!("CARGO_MANIFEST_DIR");
    link(&format!("--script={folder}/image-{arch}.ld"));
    link("-zmax-page-size=4096");
    if arch == "aarch64" {
        // The target's code is not made to be moved, but has no absolute addresses except in data, which the image
        // relocates itself.
        link("--pie");
        link("-znotext");
        link("--no-dynamic-linker");
        link("--oformat=binary");
    }
}

fn link(argument: &str) {
    println!("cargo::rustc-link-arg-bins={argument}");
}
