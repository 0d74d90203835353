// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The first serial port: a 16550, on ports 0x3f8 to 0x3ff where there are ports, else in memory.

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use vm_device::bus::{MmioAddress, MmioAddressOffset, PioAddress, PioAddressOffset};
use vm_device::{DeviceMmio, DevicePio};
use vm_superio::serial::{NoEvents, SerialEvents};
use vm_superio::{Serial, Trigger};

/// First port of COM1.
pub const BASE_PORT: u16 = 0x3f8;
/// Registers, of a byte each: ports or bytes that the device takes.
pub const PORTS: u16 = 8;
/// Interrupt line of COM1.
pub const IRQ: u32 = 4;

/// Input that could not be handed to the guest.
#[derive(Debug, Error)]
#[error("cannot pass input to the guest's serial port: {0}")]
pub struct InputError(String);

/// A serial port: `T` raises its interrupt, `W` takes the guest's output, `E` hears of what the
/// guest does with its input.
pub struct SerialPort<T: Trigger, W: Write, E: SerialEvents = NoEvents> {
    state: Mutex<State<T, W, E>>,
}

struct State<T: Trigger, W: Write, E: SerialEvents> {
    serial: Serial<T, E, W>,
    /// The last write failed; further failures are not logged.
    failing: bool,
}

impl<T: Trigger, W: Write, E: SerialEvents> fmt::Debug for SerialPort<T, W, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SerialPort").finish_non_exhaustive()
    }
}

impl<T: Trigger, W: Write> SerialPort<T, W> {
    /// A port that writes the guest's output to `out`, byte by byte and flushed.
    pub fn new(interrupt: T, out: W) -> Self {
        Self::with_events(interrupt, out, NoEvents)
    }
}

impl<T: Trigger, W: Write, E: SerialEvents> SerialPort<T, W, E> {
    /// As [`new`](SerialPort::new), with `events` called when the guest has read input, so that
    /// more can follow. It is called with the port locked and must not call back.
    pub fn with_events(interrupt: T, out: W, events: E) -> Self {
        Self {
            state: Mutex::new(State {
                serial: Serial::with_events(interrupt, events, out),
                failing: false,
            }),
        }
    }

    /// Hands `input` to the guest and returns how many bytes the port took: as many as it has room for;
    /// 0 also while the guest has the port in loopback.
    ///
    /// # Errors
    ///
    /// If the interrupt cannot be raised.
    pub fn enqueue(&self, input: &[u8]) -> Result<usize, InputError> {
        let mut state = self.lock();
        let room = state.serial.fifo_capacity().min(input.len());
        if room == 0 {
            return Ok(0);
        }
        let taken = state.serial.enqueue_raw_bytes(&input[..room]);
        taken.map_err(|error| InputError(format!("{error:?}")))
    }

    /// Reads the register `offset`. The registers are bytes; a wider access sees the first one.
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let (Ok(offset), Some(first)) = (u8::try_from(offset), data.first_mut()) {
            *first = self.lock().serial.read(offset);
        }
    }

    /// Writes the register `offset`.
    fn write(&self, offset: u64, data: &[u8]) {
        let (Ok(offset), Some(&value)) = (u8::try_from(offset), data.first()) else {
            return;
        };
        let mut state = self.lock();
        let result = state.serial.write(offset, value);
        if let (Err(error), false) = (&result, state.failing) {
            log::warn!("serial port: the guest's output is lost: {error:?}");
        }
        state.failing = result.is_err();
    }

    fn lock(&self) -> MutexGuard<'_, State<T, W, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Trigger, W: Write, E: SerialEvents> DevicePio for SerialPort<T, W, E> {
    fn pio_read(&self, _: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        self.read(offset.into(), data);
    }

    fn pio_write(&self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        self.write(offset.into(), data);
    }
}

impl<T: Trigger, W: Write, E: SerialEvents> DeviceMmio for SerialPort<T, W, E> {
    fn mmio_read(&self, _: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        self.read(offset, data);
    }

    fn mmio_write(&self, _: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        self.write(offset, data);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use devices_testing::Count;

    use super::*;

    fn read(port: &impl DevicePio, offset: u16) -> u8 {
        let mut data = [0];
        port.pio_read(PioAddress(BASE_PORT), offset, &mut data);
        data[0]
    }

    #[test]
    fn output_goes_out_and_input_raises_the_interrupt() {
        let raised = Cell::new(0);
        let mut out = Vec::new();
        let port = SerialPort::new(Count(&raised), &mut out);
        let write = |offset, data: &[u8]| port.pio_write(PioAddress(BASE_PORT), offset, data);
        write(0, b"o");
        write(0, b"k");
        write(1, &[1]);
        assert_eq!(port.enqueue(b"xy").unwrap(), 2);
        assert!(raised.get() > 0);
        assert_eq!(read(&port, 5) & 1, 1, "data ready");
        assert_eq!([read(&port, 0), read(&port, 0)], *b"xy");
        assert_eq!(read(&port, 5) & 1, 0);
        drop(port);
        assert_eq!(out, b"ok");
    }

    #[test]
    fn it_is_the_same_port_in_memory() {
        let raised = Cell::new(0);
        let mut out = Vec::new();
        let port = SerialPort::new(Count(&raised), &mut out);
        port.mmio_write(MmioAddress(0), 0, b"o");
        port.mmio_write(MmioAddress(0), 1 << 8, b"x");
        port.enqueue(b"y").unwrap();
        let mut data = [0; 2];
        port.mmio_read(MmioAddress(0), 0, &mut data);
        assert_eq!(data, [b'y', 0xff]);
        port.mmio_read(MmioAddress(0), 1 << 8, &mut data);
        assert_eq!(data, [0xff; 2]);
        drop(port);
        assert_eq!(out, b"o");
    }

    #[test]
    fn input_is_taken_as_far_as_there_is_room() {
        let raised = Cell::new(0);
        let port = SerialPort::new(Count(&raised), io::sink());
        let room = port.lock().serial.fifo_capacity();
        assert_eq!(port.enqueue(&vec![b'a'; room + 5]).unwrap(), room);
        assert_eq!(port.enqueue(b"b").unwrap(), 0);
        read(&port, 0);
        assert_eq!(port.enqueue(b"bc").unwrap(), 1);
    }

    #[test]
    fn odd_accesses_and_a_broken_output_do_no_harm() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let raised = Cell::new(0);
        let port = SerialPort::new(Count(&raised), Broken);
        port.pio_write(PioAddress(BASE_PORT), 0, b"a");
        port.pio_write(PioAddress(BASE_PORT), 0, b"bc");
        port.pio_write(PioAddress(BASE_PORT), 0, b"");
        port.pio_write(PioAddress(BASE_PORT), 9, b"d");
        let mut data = [0; 4];
        port.pio_read(PioAddress(BASE_PORT), 5, &mut data);
        assert_eq!(data[1..], [0xff; 3]);
    }
}
