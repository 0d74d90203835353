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

    /// The register that takes it, among those that the device tree names.
    const STATUS: usize = 3;
    /// A page of any kernel's has as many bytes at most.
    const PAGE: u64 = 1 << 16;

    /// Leaves `status` for the monitor.
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
        let offset = usize::try_from(address % PAGE).map_err(io::Error::other)? + STATUS;
        let length = offset + 1;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the mapping is new, and no reference points into it.
        let mapped = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                protection,
                flags,
                &memory,
                address - address % PAGE,
            )
        }?;
        // SAFETY: the register is in the mapping, which lasts as long as this process.
        unsafe { mapped.cast::<u8>().add(offset).write_volatile(status) };
        Ok(())
    }

    /// The address of the registers.
    fn find() -> io::Result<u64> {
        for node in fs::read_dir("/proc/device-tree")? {
            let node = node?;
            if node.file_name().as_encoded_bytes().starts_with(b"power@") {
                let reg = fs::read(node.path().join("reg"))?;
                if let Some(address) = reg.first_chunk() {
                    return Ok(u64::from_be_bytes(*address));
                }
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}
