// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Submission queue entries (Base 1.4 §4.2 and §5; NVM Command Set 1.0 §3.2).

use super::prp::Prp;

/// Bytes of a submission queue entry.
pub(super) const SQE_BYTES: usize = 64;

/// The 16 dwords of a submission queue entry.
pub(super) type Sqe = [u32; SQE_BYTES / 4];

/// What an I/O command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// From the namespace to memory.
    Read,
    /// From memory to the namespace.
    Write,
    /// Make what was written durable. Moves no data.
    Flush,
}

impl Op {
    const fn opcode(self) -> u8 {
        match self {
            Self::Flush => 0x00,
            Self::Write => 0x01,
            Self::Read => 0x02,
        }
    }
}

/// An I/O command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// What it does.
    pub op: Op,
    /// The first block. Not checked by the driver: beyond the namespace's end the controller
    /// answers LBA Out of Range.
    pub lba: u64,
    /// How many blocks: 1 to 65,536, 0 for a flush.
    pub blocks: u32,
    /// Where the data is: exactly `blocks` blocks long.
    pub prp: Prp,
}

impl Command {
    /// Reads `blocks` blocks from `lba` on into the memory of `prp`.
    #[must_use]
    pub const fn read(lba: u64, blocks: u32, prp: Prp) -> Self {
        Self {
            op: Op::Read,
            lba,
            blocks,
            prp,
        }
    }

    /// Writes `blocks` blocks from `lba` on out of the memory of `prp`.
    #[must_use]
    pub const fn write(lba: u64, blocks: u32, prp: Prp) -> Self {
        Self {
            op: Op::Write,
            lba,
            blocks,
            prp,
        }
    }

    /// Flushes the namespace.
    #[must_use]
    pub const fn flush() -> Self {
        Self {
            op: Op::Flush,
            lba: 0,
            blocks: 0,
            prp: Prp::NONE,
        }
    }

    /// The entry, without its command identifier (NVM Command Set 1.0 §3.2.3, §3.2.4, §3.2.6).
    pub(super) fn entry(&self, nsid: u32) -> Sqe {
        let mut entry = entry(self.op.opcode(), nsid, self.prp);
        if self.op != Op::Flush {
            (entry[10], entry[11]) = halves(self.lba);
            entry[12] = self.blocks.wrapping_sub(1) & 0xffff; // NLB, 0's based
        }
        entry
    }
}

/// Which command a completion is for. No two commands in flight have the same; values come
/// back after a long while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u16);

/// An entry with opcode, namespace and data pointer; the rest is zero (no fused operation,
/// PRPs). The identifier, bits 31:16 of dword 0, is the queue's to set.
pub(super) fn entry(opcode: u8, nsid: u32, prp: Prp) -> Sqe {
    let mut entry: Sqe = [0; SQE_BYTES / 4];
    entry[0] = u32::from(opcode);
    entry[1] = nsid;
    (entry[6], entry[7]) = halves(prp.prp1());
    (entry[8], entry[9]) = halves(prp.prp2());
    entry
}

/// Low and high half.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves of the value are what is asked for"
)]
pub(super) const fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}
