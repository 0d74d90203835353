// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where the monitor takes the status of a run from.

#[cfg(target_arch = "aarch64")]
pub use memory::write;
#[cfg(target_arch = "x86_64")]
pub use port::write;

#[cfg(target_arch = "x86_64")]
mod port {
    use std::fs::OpenOptions;
    use std::io;
    use std::os::unix::fs::FileExt;

    /// The I/O port that takes it.
    const PORT: u64 = 0x603;

    /// Leaves `status` for the monitor.
    ///
    /// # Errors
    /// The system's.
    pub fn write(status: u8) -> io::Result<()> {
        let ports = OpenOptions::new().write(true).open("/dev/port")?;
        ports.write_all_at(&[status], PORT)
    }
}

#[cfg(target_arch = "aarch64")]
mod memory {
    use std::fs::{self, OpenOptions};
    use std::io;
    use std::os::unix::fs::OpenOptionsExt;
    use std::ptr;

    use rustix::mm::{MapFlags, ProtFlags, mmap};

    /// What the device tree calls the registers.
    const KIND: &[u8] = b"pinvisor,power\0";
    /// What of the first register powers off: SLP_EN, and SLP_TYP 5 (ACPI 6.5, section 4.8.4.2.1).
    const SOFT_OFF: u32 = 1 << 5 | 5 << 2;
    /// What of the same word takes the status.
    const STATUS_SHIFT: u32 = 24;
    /// No kernel has larger pages.
    const PAGE: u64 = 1 << 16;

    /// Powers off with `status` for the monitor: a power-off by the kernel's own means has none.
    ///
    /// # Errors
    /// The system's; `NotFound` if the machine has no such register.
    #[expect(unsafe_code, reason = "a register in memory")]
    pub fn write(status: u8) -> io::Result<()> {
        let address = find()?;
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_SYNC)
            .open("/dev/mem")?;
        let offset = usize::try_from(address % PAGE).map_err(io::Error::other)?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the mapping is new, and no reference points into it.
        let mapped = unsafe {
            mmap(
                ptr::null_mut(),
                offset + size_of::<u32>(),
                protection,
                flags,
                &memory,
                address - address % PAGE,
            )
        }?;
        let word = SOFT_OFF | u32::from(status) << STATUS_SHIFT;
        let register = mapped.wrapping_byte_add(offset).cast::<u32>();
        // SAFETY: the register is in the mapping, which lasts as long as this process. It is one instruction that KVM can
        // emulate, as a store to memory might not be.
        unsafe {
            core::arch::asm!("str {:w}, [{}]", in(reg) word, in(reg) register, options(nostack));
        };
        Ok(())
    }

    /// The address of the registers.
    fn find() -> io::Result<u64> {
        for node in fs::read_dir("/proc/device-tree")? {
            let path = node?.path();
            let is_power = fs::read(path.join("compatible")).is_ok_and(|kind| kind == KIND);
            if is_power && let Some(address) = fs::read(path.join("reg"))?.first_chunk() {
                return Ok(u64::from_be_bytes(*address));
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}
