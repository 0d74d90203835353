// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The code at a BIOS's reset vector.
//!
//! Linux on a machine of hardware-reduced ACPI tries to restart by EFI
//! (drivers/firmware/efi/reboot.c efi_reboot_required), and without EFI jumps to F000:FFF0 in real
//! mode, without trying ACPI's reset register (arch/x86/kernel/reboot.c
//! native_machine_emergency_restart). So the vector writes that register.

use devices::power;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::arch::x86_64::low;

/// Writes the vector, for power registers at I/O port `power`.
///
/// # Errors
/// `GuestMemoryError` if low memory is not there.
pub fn write(memory: &GuestMemoryMmap, power: u16) -> Result<(), GuestMemoryError> {
    let [low, high] = (power + power::RESET).to_le_bytes();
    #[rustfmt::skip]
    let code = [
        0xba, low, high,          // mov dx, port
        0xb0, power::RESET_VALUE, // mov al, value
        0xee,                     // out dx, al
        0xf4,                     // hlt
        0xeb, 0xfd,               // jmp to the hlt
    ];
    memory.write_slice(&code, GuestAddress(low::RESET_VECTOR.0))
}
