// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Accesses of the guest to I/O ports.

use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_device::bus::PioAddress;
use vm_device::device_manager::{IoManager, PioManager};

/// What KVM_RUN ended with, of what only this architecture has: an access to a port, with the data in the page that KVM
/// shares with the vCPU.
#[derive(Debug)]
pub enum ArchExit {
    /// A read.
    In(u16, *mut [u8]),
    /// A write.
    Out(u16, *const [u8]),
}

impl ArchExit {
    /// `exit`, if it is one of these; otherwise gives it back.
    ///
    /// # Errors
    /// The exit.
    pub fn of(exit: VcpuExit<'_>) -> Result<Self, VcpuExit<'_>> {
        match exit {
            VcpuExit::IoIn(port, data) => Ok(Self::In(port, data)),
            VcpuExit::IoOut(port, data) => Ok(Self::Out(port, data)),
            other => Err(other),
        }
    }

    /// Serves it from `bus`. `vcpu` is the one that it was made by and has not been entered since.
    pub fn serve(self, vcpu: &mut VcpuFd, bus: &IoManager) {
        let width = port_width(vcpu);
        match self {
            Self::In(port, data) => {
                // SAFETY: `data` is in the run page, which is mapped as long as `vcpu` exists, and nothing else refers
                // to it: the borrow it came from has ended, and `port_width` returned a number.
                let data = unsafe { &mut *data };
                read_port(bus, port, width, data);
            }
            Self::Out(port, data) => {
                // SAFETY: as for `In`.
                let data = unsafe { &*data };
                write_port(bus, port, width, data);
            }
        }
    }
}

/// Bytes of each access of the port I/O exit that KVM_RUN has just ended with: 1, 2 or 4. A string instruction makes
/// several accesses in one exit, all to the same port.
fn port_width(vcpu: &mut VcpuFd) -> usize {
    // SAFETY: KVM fills this variant of the union in for KVM_EXIT_IO, which the caller has seen; every bit pattern of
    // it is valid.
    let io = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.io };
    usize::from(io.size).max(1)
}

/// Reads `port` once for every `width` bytes of `data`, as `rep ins` does. A port where nothing is reads as all-ones.
fn read_port(bus: &impl PioManager, port: u16, width: usize, data: &mut [u8]) {
    for access in data.chunks_mut(width) {
        if bus.pio_read(PioAddress(port), access).is_err() {
            access.fill(0xff);
        }
    }
}

/// Writes every `width` bytes of `data` to `port`, as `rep outs` does. A port where nothing is swallows them.
fn write_port(bus: &impl PioManager, port: u16, width: usize, data: &[u8]) {
    for access in data.chunks(width) {
        if bus.pio_write(PioAddress(port), access).is_err() {
            log::trace!("write to port {port:#x}, where nothing is: {access:x?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use vm_device::DevicePio;
    use vm_device::bus::{PioAddressOffset, PioRange};

    use super::*;

    /// A data port: reads count up, writes are kept.
    #[derive(Default)]
    struct Port(Mutex<Vec<Vec<u8>>>);

    impl DevicePio for Port {
        fn pio_read(&self, _: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
            let mut seen = self.0.lock().unwrap();
            assert_eq!(offset, 0);
            data.fill(u8::try_from(seen.len()).unwrap());
            seen.push(Vec::new());
        }

        fn pio_write(&self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
            assert_eq!(offset, 0);
            self.0.lock().unwrap().push(data.to_vec());
        }
    }

    #[test]
    fn a_string_instruction_accesses_one_port_many_times() {
        let port = Arc::new(Port::default());
        let mut bus = IoManager::new();
        let range = PioRange::new(PioAddress(0x310), 4).unwrap();
        bus.register_pio(range, Arc::clone(&port) as _).unwrap();
        let mut data = [0xee; 6];
        read_port(&bus, 0x310, 2, &mut data);
        assert_eq!(data, [0, 0, 1, 1, 2, 2]);
        port.0.lock().unwrap().clear();
        write_port(&bus, 0x310, 2, &[1, 2, 3, 4]);
        assert_eq!(*port.0.lock().unwrap(), [[1, 2], [3, 4]]);
        read_port(&bus, 0x400, 2, &mut data);
        assert_eq!(data, [0xff; 6]);
    }
}
