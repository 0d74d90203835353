// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The image that boots.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod bare;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!(
        "dma-stress runs on bare metal: build it for x86_64-unknown-none or aarch64-unknown-none-softfloat"
    );
}
