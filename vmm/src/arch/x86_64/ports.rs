// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Accesses of the guest to I/O ports.

use std::sync::{Mutex, PoisonError};

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
        write_kept(vcpu, bus);
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
            log::trace!("write to port {port:#x}, which has no device: {access:x?}");
        }
    }
}

/// Held while kept writes are done, which all vCPUs of a VM share.
static KEPT: Mutex<()> = Mutex::new(());

/// Does the writes to ports that KVM has kept instead of leaving the guest ([`Vm::keep_writes`](crate::kvm::vm::Vm::keep_writes)),
/// the oldest first.
fn write_kept(vcpu: &mut VcpuFd, bus: &impl PioManager) {
    let _turn = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    while let Ok(Some(write)) = vcpu.coalesced_mmio_read() {
        let len = usize::try_from(write.len).unwrap_or(usize::MAX);
        let port = u16::try_from(write.phys_addr);
        if let (Ok(port), Some(data)) =
            (port, write.data.get(..len).filter(|data| !data.is_empty()))
        {
            write_port(bus, port, len, data);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use address::Gpa;
    use iommufd_backend::{FileRange, Mapping};
    use vm_device::DevicePio;
    use vm_device::bus::{PioAddressOffset, PioRange};

    use super::*;
    use crate::kvm::vm::Vm;

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

    /// Where the host can run a program in real mode.
    #[test]
    fn a_kept_write_is_done_before_the_access_that_it_is_for() {
        // mov dx, 0x310; mov al, 7; out dx, al; inc dx; in al, dx; hlt
        const CODE: [u8; 9] = [0xba, 0x10, 0x03, 0xb0, 7, 0xee, 0x42, 0xec, 0xf4];
        let Ok(vm) = Vm::new() else {
            return;
        };
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x1000).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &CODE, 0).unwrap();
        let mut mapping = Mapping::reserve(0x1000, 0).unwrap();
        mapping
            .place(0, FileRange::first(&file, 0x1000), "code")
            .unwrap();
        let _memory = vm.map(Gpa(0x1000), Arc::new(mapping)).unwrap();
        vm.keep_writes(0x310, 1).unwrap();
        let mut vcpu = vm.create_vcpu(0).unwrap();
        let mut special = vcpu.get_sregs().unwrap();
        (special.cs.base, special.cs.selector) = (0, 0);
        vcpu.set_sregs(&special).unwrap();
        let mut registers = vcpu.get_regs().unwrap();
        (registers.rip, registers.rflags) = (0x1000, 2);
        vcpu.set_regs(&registers).unwrap();
        let port = Arc::new(Latch::default());
        let mut bus = IoManager::new();
        let range = PioRange::new(PioAddress(0x310), 2).unwrap();
        bus.register_pio(range, Arc::clone(&port) as _).unwrap();
        let Ok(exit) = ArchExit::of(vcpu.run().unwrap()) else {
            panic!("not an access to a port");
        };
        exit.serve(&mut vcpu, &bus);
        assert_eq!(*port.0.lock().unwrap(), [(0, 7), (1, 0)]);
    }

    /// Notes accesses: to which of its ports, and what was written.
    #[derive(Default)]
    struct Latch(Mutex<Vec<(u16, u8)>>);

    impl DevicePio for Latch {
        fn pio_read(&self, _: PioAddress, offset: PioAddressOffset, _: &mut [u8]) {
            self.0.lock().unwrap().push((offset, 0));
        }

        fn pio_write(&self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
            self.0.lock().unwrap().push((offset, data[0]));
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
