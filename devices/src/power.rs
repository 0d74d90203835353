// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Power-off and reset by the guest: the sleep and reset registers of hardware-reduced ACPI, and a
//! register beside them in which a guest may store a status for the process that started it.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use vm_device::bus::{MmioAddress, MmioAddressOffset, PioAddress, PioAddressOffset};
use vm_device::{DeviceMmio, DevicePio};

/// What the guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PowerEvent {
    /// Soft off, ACPI state S5.
    PowerOff {
        /// What the guest last wrote to [`STATUS`]; 0 if nothing.
        status: u8,
    },
    /// Restart of the machine.
    Reset,
}

/// Port offset of the FADT's SLEEP_CONTROL_REG, one byte.
pub const SLEEP_CONTROL: u16 = 0;
/// Port offset of the FADT's SLEEP_STATUS_REG, one byte.
pub const SLEEP_STATUS: u16 = 1;
/// Port offset of the FADT's RESET_REG, one byte.
pub const RESET: u16 = 2;
/// Port offset of the status register, one byte, write-only: 0 means success. It is not part of
/// ACPI.
pub const STATUS: u16 = 3;
/// Ports that the device takes.
pub const PORTS: u16 = 4;

/// The FADT's RESET_VALUE.
pub const RESET_VALUE: u8 = 1;
/// SLP_TYP of S5, the first value of the `\_S5` package.
pub const S5_SLEEP_TYPE: u8 = 5;

/// SLP_EN and the place of SLP_TYP (ACPI 6.5, section 4.8.4.2.1).
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;

/// The registers, four bytes. All read as 0: the machine never wakes up from a sleep.
pub struct Power<F> {
    on_event: F,
    status: AtomicU8,
}

impl<F> fmt::Debug for Power<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Power").finish_non_exhaustive()
    }
}

impl<F: Fn(PowerEvent)> Power<F> {
    /// The registers; `on_event` is called on the vCPU's thread when the guest asks for
    /// something, and may be called again.
    pub fn new(on_event: F) -> Self {
        Self {
            on_event,
            status: AtomicU8::new(0),
        }
    }

    fn event(&self, register: u16, value: u8) -> Option<PowerEvent> {
        let sleep = value & SLEEP_ENABLE != 0;
        let sleep_type = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
        match register {
            SLEEP_CONTROL if sleep && sleep_type == S5_SLEEP_TYPE => {
                let status = self.status.load(Ordering::SeqCst);
                Some(PowerEvent::PowerOff { status })
            }
            RESET if value == RESET_VALUE => Some(PowerEvent::Reset),
            _ => None,
        }
    }

    fn write(&self, offset: u16, data: &[u8]) {
        let register = |(distance, value)| (offset.saturating_add(distance), value);
        let registers = || (0..PORTS).zip(data).map(register);
        // A wide store may have the status behind the power-off that it is for.
        if let Some((_, status)) = registers().find(|(register, _)| *register == STATUS) {
            self.status.store(*status, Ordering::SeqCst);
        }
        for (register, value) in registers() {
            if let Some(event) = self.event(register, *value) {
                (self.on_event)(event);
            }
        }
    }
}

impl<F: Fn(PowerEvent)> DevicePio for Power<F> {
    fn pio_read(&self, _: PioAddress, _: PioAddressOffset, data: &mut [u8]) {
        data.fill(0);
    }

    fn pio_write(&self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        self.write(offset, data);
    }
}

/// The same registers in memory, for a machine without I/O ports.
impl<F: Fn(PowerEvent)> DeviceMmio for Power<F> {
    fn mmio_read(&self, _: MmioAddress, _: MmioAddressOffset, data: &mut [u8]) {
        data.fill(0);
    }

    fn mmio_write(&self, _: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        if let Ok(offset) = u16::try_from(offset) {
            self.write(offset, data);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn power_off_reports_the_status_that_was_written_last() {
        let seen = RefCell::new(Vec::new());
        let power = Power::new(|event| seen.borrow_mut().push(event));
        for value in [7, 3] {
            power.pio_write(PioAddress(0x600), STATUS, &[value]);
        }
        power.pio_write(PioAddress(0x600), SLEEP_CONTROL, &[0x34]);
        power.pio_write(PioAddress(0x600), SLEEP_CONTROL, &[0x34, 0, 0, 9]);
        let off = |status| PowerEvent::PowerOff { status };
        assert_eq!(*seen.borrow(), [off(3), off(9)]);
    }

    #[test]
    fn registers_in_memory_are_the_same() {
        let seen = RefCell::new(Vec::new());
        let power = Power::new(|event| seen.borrow_mut().push(event));
        let base = MmioAddress(0x70_0000_0000);
        power.mmio_write(base, STATUS.into(), &[5]);
        power.mmio_write(base, u64::from(u16::MAX) + 1, &[0x34]);
        power.mmio_write(base, SLEEP_CONTROL.into(), &[0x34]);
        assert_eq!(*seen.borrow(), [PowerEvent::PowerOff { status: 5 }]);
    }

    #[test]
    fn only_s5_and_the_reset_value_do_something() {
        for (offset, data, expected) in [
            (
                SLEEP_CONTROL,
                &[0x34_u8][..],
                Some(PowerEvent::PowerOff { status: 0 }),
            ),
            (SLEEP_CONTROL, &[0x14], None),
            (SLEEP_CONTROL, &[0x20], None),
            (SLEEP_CONTROL, &[0x38], None),
            (SLEEP_STATUS, &[0x34], None),
            (RESET, &[1], Some(PowerEvent::Reset)),
            (RESET, &[6], None),
            (SLEEP_STATUS, &[0, 1], Some(PowerEvent::Reset)),
            (3, &[1], None),
            (u16::MAX, &[1, 1], None),
        ] {
            let seen = RefCell::new(Vec::new());
            let power = Power::new(|event| seen.borrow_mut().push(event));
            power.pio_write(PioAddress(0x600), offset, data);
            assert_eq!(
                seen.borrow().first().copied(),
                expected,
                "{offset} {data:?}"
            );
            let mut data = [0xaa; 4];
            power.pio_read(PioAddress(0x600), offset, &mut data);
            assert_eq!(data, [0; 4]);
        }
    }
}
