// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Status of a completion (Base 4.2.3).

use std::fmt;

const DO_NOT_RETRY: u16 = 1 << 14;
const MASK: u16 = (1 << 15) - 1;

/// The status field of a completion without its phase tag: SC in bits 7:0, SCT in 10:8, CRD in 12:11, More in 13, DNR
/// in 14.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

impl Status {
    /// Successful Completion.
    pub const SUCCESS: Self = Self(0);
    /// Invalid Command Opcode.
    pub const INVALID_OPCODE: Self = Self::refusal(0, 0x01);
    /// Invalid Field in Command.
    pub const INVALID_FIELD: Self = Self::refusal(0, 0x02);
    /// Data Transfer Error: an address that is not the guest's memory.
    pub const DATA_TRANSFER_ERROR: Self = Self::refusal(0, 0x04);
    /// Command Aborted due to SQ Deletion. It may be retried.
    pub const SQ_DELETED: Self = Self(0x08);
    /// Invalid Namespace or Format.
    pub const INVALID_NAMESPACE: Self = Self::refusal(0, 0x0b);
    /// Command Sequence Error.
    pub const SEQUENCE_ERROR: Self = Self::refusal(0, 0x0c);
    /// PRP Offset Invalid.
    pub const INVALID_PRP_OFFSET: Self = Self::refusal(0, 0x13);
    /// Completion Queue Invalid.
    pub const INVALID_COMPLETION_QUEUE: Self = Self::refusal(1, 0x00);
    /// Invalid Queue Identifier.
    pub const INVALID_QUEUE_ID: Self = Self::refusal(1, 0x01);
    /// Invalid Queue Size.
    pub const INVALID_QUEUE_SIZE: Self = Self::refusal(1, 0x02);
    /// Asynchronous Event Request Limit Exceeded.
    pub const EVENT_LIMIT: Self = Self::refusal(1, 0x05);
    /// Invalid Interrupt Vector.
    pub const INVALID_VECTOR: Self = Self::refusal(1, 0x08);
    /// Invalid Log Page.
    pub const INVALID_LOG_PAGE: Self = Self::refusal(1, 0x09);
    /// Invalid Queue Deletion.
    pub const INVALID_QUEUE_DELETION: Self = Self::refusal(1, 0x0c);
    /// Feature Identifier Not Saveable.
    pub const NOT_SAVEABLE: Self = Self::refusal(1, 0x0d);

    /// The status `sct`/`sc` with DNR set: a refusal is final.
    const fn refusal(sct: u16, sc: u16) -> Self {
        Self(sct << 8 | sc | DO_NOT_RETRY)
    }

    /// The status of bits 15:1 of a completion's last two bytes; bit 0 is the phase tag.
    #[must_use]
    pub const fn from_field(field: u16) -> Self {
        Self(field >> 1)
    }

    /// Bits 15:1 of a completion's last two bytes, with `phase` as bit 0.
    #[must_use]
    pub const fn field(self, phase: bool) -> u16 {
        (self.0 & MASK) << 1 | phase as u16
    }

    /// Status Code Type and Status Code.
    #[must_use]
    pub const fn code(self) -> (u8, u8) {
        let [sc, high] = self.0.to_le_bytes();
        (high & 7, sc)
    }

    /// Whether the command succeeded.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 & 0x7ff == 0
    }

    /// Whether the host is not to try again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        self.0 & DO_NOT_RETRY != 0
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sct, sc) = self.code();
        let dnr = if self.is_final() { ", DNR" } else { "" };
        write!(f, "Status({sct:x}/{sc:02x}{dnr})")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sct, sc) = self.code();
        write!(f, "status {sct:x}/{sc:02x}")
    }
}
