// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Completion queue entries (Base 4.2.1).

use super::Status;
use crate::bits::{high32, join16, join32, low16, upper16};

/// Bytes of a completion queue entry: CC.IOCQES is 4.
pub const COMPLETION_BYTES: u64 = 16;

const PHASE: u64 = 1 << 48;

/// One completion queue entry, without its phase tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// DW0: the command's result.
    pub result: u32,
    /// SQ Head Pointer.
    pub sq_head: u16,
    /// SQ Identifier.
    pub sq: u16,
    /// Command Identifier.
    pub cid: u16,
    /// Status.
    pub status: Status,
}

impl Completion {
    /// The entry's two words as they are in memory; DW1 is reserved and 0.
    #[must_use]
    pub fn words(self, phase: bool) -> [u64; 2] {
        let queue = join16(self.sq_head, self.sq);
        let command = join16(self.cid, self.status.field(phase));
        [u64::from(self.result), join32(queue, command)]
    }

    /// The entry of these words.
    #[must_use]
    pub fn from_words([first, second]: [u64; 2]) -> Self {
        let queue = crate::bits::low32(second);
        let command = high32(second);
        Self {
            result: crate::bits::low32(first),
            sq_head: low16(queue),
            sq: upper16(queue),
            cid: low16(command),
            status: Status::from_field(upper16(command)),
        }
    }

    /// The phase tag of an entry's second word.
    #[must_use]
    pub fn phase(second: u64) -> bool {
        second & PHASE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_the_layout_of_the_specification() {
        let completion = Completion {
            result: 0x1122_3344,
            sq_head: 0x0102,
            sq: 0x0304,
            cid: 0x0506,
            status: Status::INVALID_PRP_OFFSET,
        };
        let words = completion.words(true);
        assert_eq!(words, [0x1122_3344, 0x8027_0506_0304_0102]);
        assert_eq!(Completion::from_words(words), completion);
        assert!(Completion::phase(words[1]));
        assert!(!Completion::phase(completion.words(false)[1]));
    }
}
