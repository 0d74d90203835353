// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Links the bare-metal image as the monitor loads it.

fn main() {
    println!("cargo::rerun-if-changed=image.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/image.ld");
        println!("cargo::rustc-link-arg-bins=--script={script}");
        println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
    }
}
