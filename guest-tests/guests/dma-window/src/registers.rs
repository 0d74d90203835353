// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Offsets and values of the registers in BAR 0.

/// What register 0x00 reads as: "PVDW" in ASCII.
pub const MAGIC: u32 = 0x5744_5650;
/// The version of the interface.
pub const VERSION: u32 = 1;

pub(crate) const REG_MAGIC: u64 = 0x00;
pub(crate) const REG_VERSION: u64 = 0x04;
pub(crate) const REG_FEATURES: u64 = 0x08;
pub(crate) const REG_LEVELS: u64 = 0x0c;
pub(crate) const REG_TOP: u64 = 0x10;
pub(crate) const REG_BYTES: u64 = 0x18;
pub(crate) const REG_GENERATION: u64 = 0x20;
pub(crate) const REG_REFUSED: u64 = 0x28;
pub(crate) const REG_QUERY_GPA: u64 = 0x40;
pub(crate) const REG_QUERY_LENGTH: u64 = 0x48;
pub(crate) const REG_QUERY_HPA: u64 = 0x50;
pub(crate) const REG_QUERY_CONTIGUOUS: u64 = 0x58;
pub(crate) const REG_FUNCTION: u64 = 0x60;
pub(crate) const REG_STATUS: u64 = 0x64;

/// The features of version 1: table, query, enable.
pub(crate) const FEATURES: u32 = 0b111;

/// In the function register: no longer a bus master.
pub(crate) const DISABLE: u32 = 1 << 31;

pub(crate) const STATUS_ENABLED: u32 = 1;
pub(crate) const STATUS_DISABLED: u32 = 2;
