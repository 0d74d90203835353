// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The NVMe command that gives virtual functions their queues and brings them online.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::error::{AtPath, Result};

/// `NVME_IOCTL_ADMIN_CMD` of include/uapi/linux/nvme_ioctl.h: `_IOWR('N', 0x41, struct nvme_admin_cmd)`.
const ADMIN_COMMAND: libc::Ioctl = 0xc048_4e41_u32 as libc::Ioctl;

/// Opcode of Virtualization Management (NVM Express 1.3, section 5.22).
const VIRTUALIZATION_MANAGEMENT: u8 = 0x1c;

/// `struct nvme_admin_cmd`.
#[repr(C)]
#[derive(Default)]
struct AdminCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    dwords2: [u32; 2],
    metadata: u64,
    address: u64,
    metadata_length: u32,
    data_length: u32,
    dwords10: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

/// Sends the command with command dwords 10 (controller, resource and action) and 11 (number of resources) to the
/// controller whose character device is `node`.
///
/// # Errors
/// [`Error::File`](crate::Error::File): the node cannot be opened, or the controller refuses.
pub fn run(node: &Path, dword10: u32, dword11: u32) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(node);
    let file = file.at("open", node)?;
    let mut command = AdminCommand {
        opcode: VIRTUALIZATION_MANAGEMENT,
        dwords10: [dword10, dword11, 0, 0, 0, 0],
        ..AdminCommand::default()
    };
    // SAFETY: `command` has the layout of `struct nvme_admin_cmd` and lives until the call returns; it names no
    // buffers, and the kernel writes to nothing but its `result`.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), ADMIN_COMMAND, &raw mut command) };
    let done = match status {
        0 => Ok(()),
        // The status field of the controller's completion.
        1.. => Err(io::Error::other(format!("NVMe status {status:#x}"))),
        _ => Err(io::Error::last_os_error()),
    };
    done.at("manage", node)
}
