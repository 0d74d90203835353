// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a command ended: the status field of a completion (Base 1.4 §4.6.1, 2.0 §3.3.3.2.1).

use core::fmt;

/// The status of a command that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Status code type (SCT), 3 bits: 0 generic, 1 command specific, 2 media and data
    /// integrity, 3 path related, 7 vendor specific.
    pub code_type: u8,
    /// Status code (SC).
    pub code: u8,
    /// Do Not Retry (DNR): the same command would fail again.
    pub do_not_retry: bool,
    /// More (M): there is more about it in the Error Information log page.
    pub more: bool,
}

impl Status {
    /// Reads dword 3 of a completion. `None` is success: type 0, code 0.
    #[must_use]
    pub const fn from_dword3(dword: u32) -> Option<Self> {
        let bytes = (dword >> 17).to_le_bytes();
        let status = Self {
            code_type: bytes[1] & 0b111,
            code: bytes[0],
            do_not_retry: dword >> 31 != 0,
            more: dword >> 30 & 1 != 0,
        };
        if status.code_type == 0 && status.code == 0 {
            None
        } else {
            Some(status)
        }
    }

    /// The specification's name of the common ones (Base 1.4 figures 127 to 131).
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match (self.code_type, self.code) {
            (0, 0x01) => "Invalid Command Opcode",
            (0, 0x02) => "Invalid Field in Command",
            (0, 0x03) => "Command ID Conflict",
            (0, 0x04) => "Data Transfer Error",
            (0, 0x05) => "Commands Aborted due to Power Loss Notification",
            (0, 0x06) => "Internal Error",
            (0, 0x07) => "Command Abort Requested",
            (0, 0x08) => "Command Aborted due to SQ Deletion",
            (0, 0x0b) => "Invalid Namespace or Format",
            (0, 0x0c) => "Command Sequence Error",
            (0, 0x0d) => "Invalid SGL Segment Descriptor",
            (0, 0x12) => "Invalid Use of Controller Memory Buffer",
            (0, 0x13) => "PRP Offset Invalid",
            (0, 0x15) => "Operation Denied",
            (0, 0x1c) => "Sanitize Failed",
            (0, 0x1d) => "Sanitize In Progress",
            (0, 0x20) => "Namespace is Write Protected",
            (0, 0x21) => "Command Interrupted",
            (0, 0x22) => "Transient Transport Error",
            (0, 0x80) => "LBA Out of Range",
            (0, 0x81) => "Capacity Exceeded",
            (0, 0x82) => "Namespace Not Ready",
            (0, 0x83) => "Reservation Conflict",
            (0, 0x84) => "Format In Progress",
            (1, 0x00) => "Completion Queue Invalid",
            (1, 0x01) => "Invalid Queue Identifier",
            (1, 0x02) => "Invalid Queue Size",
            (1, 0x08) => "Invalid Interrupt Vector",
            (1, 0x0a) => "Invalid Format",
            (1, 0x0d) => "Feature Identifier Not Saveable",
            (1, 0x0e) => "Feature Not Changeable",
            (1, 0x80) => "Conflicting Attributes",
            (1, 0x81) => "Invalid Protection Information",
            (1, 0x82) => "Attempted Write to Read Only Range",
            (2, 0x80) => "Write Fault",
            (2, 0x81) => "Unrecovered Read Error",
            (2, 0x82) => "End-to-end Guard Check Error",
            (2, 0x83) => "End-to-end Application Tag Check Error",
            (2, 0x84) => "End-to-end Reference Tag Check Error",
            (2, 0x85) => "Compare Failure",
            (2, 0x86) => "Access Denied",
            (2, 0x87) => "Deallocated or Unwritten Logical Block",
            (3, 0x00) => "Internal Path Error",
            (3, 0x70) => "Host Pathing Error",
            (3, 0x71) => "Command Aborted By Host",
            _ => return None,
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().unwrap_or(match self.code_type {
            7 => "Vendor Specific",
            _ => "unknown status",
        });
        write!(
            f,
            "{name} (SCT {:#x}, SC {:#04x}{})",
            self.code_type,
            self.code,
            if self.do_not_retry { ", DNR" } else { "" }
        )
    }
}
