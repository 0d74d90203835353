// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Judges the CPU.

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::sys_root::SysRoot;

/// [`Id::CpuVirtualisation`]. The kernel does not name EL2 among the CPU's features: it offers KVM if it was started
/// there.
pub(crate) fn check_virtualisation(root: &SysRoot) -> Line {
    let id = Id::CpuVirtualisation;
    if root.exists("dev/kvm") {
        return Line::ok(id, "The CPU offers virtualisation (EL2)");
    }
    Line::fail(
        id,
        "There is no /dev/kvm: the kernel was not started at EL2, or has no KVM",
        "dmesg | grep -i -e kvm -e 'CPU: All CPU(s) started at'",
    )
}

/// [`Id::MemoryEncryption`]
pub(crate) fn check_encryption(_: &SysRoot, _: bool) -> Line {
    Line::ok(Id::MemoryEncryption, "Memory is not encrypted by address")
}
