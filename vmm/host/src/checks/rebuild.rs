// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The hint of checks that miss something in the kernel's configuration.

use crate::arch::KERNEL_TARGET;

/// How to build the kernel with other `options`, as `scripts/config` takes them.
pub(crate) fn rebuild(options: &str) -> String {
    format!(
        "in the host kernel's source: scripts/config {options} && make olddefconfig {KERNEL_TARGET}"
    )
}
