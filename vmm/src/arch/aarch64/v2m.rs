// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The frame of GICv2m: a write to its register is a shared interrupt (Server Base System Architecture, appendix E;
//! Linux, drivers/irqchip/irq-gic-v2m.c). KVM emulates none, so routes of messages are made of it beforehand, and what
//! the guest's CPUs access is a device.

use std::fmt;

use vm_device::DeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use super::layout::{MESSAGE_FRAME, MESSAGE_SPIS, PRIVATE_INTERRUPTS, SPIS};

/// Registers: which interrupts there are, and the one that raises them.
const TYPER: u64 = 0x8;
const SETSPI: u64 = 0x40;

/// Where in `TYPER` the first interrupt is.
const TYPER_BASE: u32 = 16;

/// The first interrupt, as the GIC numbers them.
pub const FIRST: u32 = PRIVATE_INTERRUPTS + SPIS;
/// Where devices write their messages, whose data is the number of an interrupt.
pub const DOORBELL: u64 = MESSAGE_FRAME.start.0 + SETSPI;

/// The shared interrupt that the message `data` to `address` raises, from 0 on.
#[must_use]
pub fn pin(address: u64, data: u32) -> Option<u32> {
    let is_inside = (FIRST..FIRST + MESSAGE_SPIS).contains(&data);
    (address == DOORBELL && is_inside).then(|| data - PRIVATE_INTERRUPTS)
}

/// The frame as CPUs access it.
pub struct MessageFrame<F> {
    raise: F,
}

impl<F> fmt::Debug for MessageFrame<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageFrame").finish_non_exhaustive()
    }
}

impl<F: Fn(u32)> MessageFrame<F> {
    /// A frame that has `raise` raise a shared interrupt, which is numbered from 0 on.
    pub fn new(raise: F) -> Self {
        Self { raise }
    }
}

impl<F: Fn(u32)> DeviceMmio for MessageFrame<F> {
    fn mmio_read(&self, _: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        // Among the others is `MSI_IIDR`, the maker: none whose frames behave otherwise.
        let value: u32 = match offset {
            TYPER => FIRST << TYPER_BASE | MESSAGE_SPIS,
            _ => 0,
        };
        data.fill(0);
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
    }

    fn mmio_write(&self, base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        // Of a write of 16 bits the upper ones are 0.
        let value = match *data {
            [a, b] => u32::from_le_bytes([a, b, 0, 0]),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => return,
        };
        if let Some(pin) = pin(base.0.wrapping_add(offset), value) {
            (self.raise)(pin);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const BASE: MmioAddress = MmioAddress(MESSAGE_FRAME.start.0);

    #[test]
    fn the_frame_names_the_interrupts_that_its_register_raises() {
        let raised = Mutex::new(Vec::new());
        let frame = MessageFrame::new(|pin| raised.lock().unwrap().push(pin));
        let mut word = [0xff; 4];
        frame.mmio_read(BASE, TYPER, &mut word);
        let typer = u32::from_le_bytes(word);
        // The driver's own limits (drivers/irqchip/irq-gic-v2m.c, is_msi_spi_valid).
        let (first, count) = (typer >> 16 & 0x3ff, typer & 0x3ff);
        assert!(
            first >= 32 && count > 0 && first + count <= 1019,
            "{first} {count}"
        );
        for number in [first - 1, first, first + count - 1, first + count, u32::MAX] {
            frame.mmio_write(BASE, SETSPI, &number.to_le_bytes());
        }
        frame.mmio_write(BASE, SETSPI, &[65, 0]);
        frame.mmio_write(BASE, SETSPI, &[65]);
        frame.mmio_write(BASE, TYPER, &first.to_le_bytes());
        let last = SPIS + MESSAGE_SPIS - 1;
        assert_eq!(*raised.lock().unwrap(), [SPIS, last, SPIS + 1]);
    }

    #[test]
    fn other_registers_read_as_0() {
        let frame = MessageFrame::new(|_| panic!("nothing is raised"));
        for (offset, len) in [(0xfcc, 4), (0, 4), (SETSPI, 8), (0xfff, 1)] {
            let mut bytes = vec![0xff; len];
            frame.mmio_read(BASE, offset, &mut bytes);
            assert!(bytes.iter().all(|byte| *byte == 0));
        }
        let mut bytes = [0xff; 8];
        frame.mmio_read(BASE, TYPER, &mut bytes);
        assert_eq!(bytes[4..], [0; 4]);
    }
}
