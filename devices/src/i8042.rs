// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The keyboard controller, as far as guests use it to restart the machine.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};
use vm_superio::{I8042Device, Trigger};

/// First port.
pub const BASE_PORT: u16 = 0x60;
/// Ports that the device takes: data at 0x60 to command at 0x64.
pub const PORTS: u16 = 5;

/// An i8042 that supports one command: pulse the reset line.
pub struct I8042<T: Trigger>(Mutex<I8042Device<T>>);

impl<T: Trigger> fmt::Debug for I8042<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("I8042").finish_non_exhaustive()
    }
}

impl<T: Trigger> I8042<T> {
    /// A controller that fires `reset` when the guest asks for a restart.
    pub fn new(reset: T) -> Self {
        Self(Mutex::new(I8042Device::new(reset)))
    }
}

impl<T: Trigger> DevicePio for I8042<T> {
    fn pio_read(&self, _: PioAddress, _: PioAddressOffset, data: &mut [u8]) {
        // No key waiting, input buffer empty.
        data.fill(0);
    }

    fn pio_write(&self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        let (Ok(offset), &[value]) = (u8::try_from(offset), data) else {
            return;
        };
        let mut device = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = device.write(offset, value) {
            log::error!("i8042: cannot pass on the guest's reset: {error:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use devices_testing::Count;

    use super::*;

    #[test]
    fn only_the_reset_command_fires() {
        let fired = Cell::new(0);
        let device = I8042::new(Count(&fired));
        let write = |offset, data: &[u8]| device.pio_write(PioAddress(BASE_PORT), offset, data);
        write(0, &[0xfe]);
        write(4, &[0xff]);
        write(4, &[0xfe, 0]);
        write(260, &[0xfe]);
        assert_eq!(fired.get(), 0);
        write(4, &[0xfe]);
        assert_eq!(fired.get(), 1);
        let mut data = [0xff];
        device.pio_read(PioAddress(BASE_PORT), 4, &mut data);
        assert_eq!(data, [0]);
    }
}
