// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The NVM command set: opcodes, and bits of their dwords (NVM Command Set 3.2 and 3.3).

/// Flush.
pub const FLUSH: u8 = 0x00;
/// Write.
pub const WRITE: u8 = 0x01;
/// Read.
pub const READ: u8 = 0x02;
/// Compare.
pub const COMPARE: u8 = 0x05;
/// Write Zeroes.
pub const WRITE_ZEROES: u8 = 0x08;
/// Dataset Management.
pub const DATASET_MANAGEMENT: u8 = 0x09;
/// Verify.
pub const VERIFY: u8 = 0x0c;

/// CDW12 15:0: Number of Logical Blocks, 0's based.
pub const NLB: u32 = 0xffff;
/// CDW12 25 of Write Zeroes: Deallocate.
pub const DEAC: u32 = 1 << 25;
/// CDW12 30: Force Unit Access.
pub const FUA: u32 = 1 << 30;
/// CDW12 31: Limited Retry.
pub const LR: u32 = 1 << 31;
/// CDW13 7:0 of Read and Write: Dataset Management hints.
pub const HINTS: u32 = 0xff;
/// CDW10 7:0 of Dataset Management: Number of Ranges, 0's based.
pub const NR: u32 = 0xff;
/// CDW11 2:0 of Dataset Management: attributes.
pub const ATTRIBUTES: u32 = 7;
/// Bytes of a range of Dataset Management.
pub const RANGE_BYTES: u32 = 16;
