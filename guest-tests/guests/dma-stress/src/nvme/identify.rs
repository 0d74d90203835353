// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Identification of the controller and of its namespace (Base 1.4 §5.15, 2.0 §5.17; NVM Command
//! Set 1.0 §4.1.5.1). Each function reads a page that the controller wrote.

use super::access::{DmaBuffer, PAGE_BYTES};
use super::error::NvmeError;

/// The most blocks a command can have: NLB is a 0's based 16-bit value.
const MAX_BLOCKS: u64 = 1 << 16;

/// A namespace that commands work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its identifier (NSID).
    pub nsid: u32,
    /// How many blocks it has (NSZE), at least 1.
    pub blocks: u64,
    /// Bytes of a block: a power of two from 512 to 65,536. `blocks * block_bytes` does not
    /// overflow.
    pub block_bytes: u32,
}

/// What the driver needs of the Identify Controller data.
#[derive(Clone, Copy, Debug)]
pub(super) struct ControllerData {
    mdts: u8,
    namespaces: u32,
}

impl ControllerData {
    pub(super) fn read(page: &impl DmaBuffer) -> Result<Self, NvmeError> {
        let [_, mdts, ..] = page.read32(76).to_le_bytes();
        let [sqes, cqes, ..] = page.read32(512).to_le_bytes();
        // Low nibble: smallest, high nibble: largest size, as powers of two.
        let holds = |sizes: u8, log2: u8| (sizes & 0xf) <= log2 && log2 <= sizes >> 4;
        if !holds(sqes, 6) || !holds(cqes, 4) {
            return Err(NvmeError::EntrySizes { sqes, cqes });
        }
        Ok(Self {
            mdts,
            namespaces: page.read32(516),
        })
    }

    /// The largest transfer in bytes: a multiple of the block size that a command can have.
    pub(super) fn max_transfer(self, namespace: &Namespace) -> Result<u64, NvmeError> {
        let block_bytes = u64::from(namespace.block_bytes);
        // In units of the smallest memory page, 4 KiB here; 0 is no limit.
        let max = match self.mdts {
            0 => None,
            mdts => 1_u64.checked_shl(mdts.into()),
        }
        .and_then(|pages| pages.checked_mul(PAGE_BYTES as u64))
        .unwrap_or(u64::MAX);
        match (max / block_bytes).min(MAX_BLOCKS) {
            0 => Err(NvmeError::TransferTooShort { max, block_bytes }),
            blocks => Ok(blocks * block_bytes),
        }
    }

    /// Whether there is a namespace `nsid`.
    pub(super) fn check_nsid(self, nsid: u32) -> Result<u32, NvmeError> {
        match nsid != 0 && nsid <= self.namespaces {
            true => Ok(nsid),
            false => Err(NvmeError::NoNamespace {
                namespaces: self.namespaces,
                first: nsid,
            }),
        }
    }
}

impl Namespace {
    pub(super) fn read(nsid: u32, page: &impl DmaBuffer) -> Result<Self, NvmeError> {
        let blocks = u64::from(page.read32(4)) << 32 | u64::from(page.read32(0));
        let [_, nlbaf, flbas, _] = page.read32(24).to_le_bytes();
        // Bits 6:5 are the upper ones of the index if there are more than 16 formats.
        let index = match nlbaf {
            0..16 => flbas & 0xf,
            16.. => flbas & 0xf | flbas >> 1 & 0x30,
        };
        let [metadata_low, metadata_high, lbads, _] =
            page.read32(128 + 4 * usize::from(index)).to_le_bytes();
        let metadata = u16::from_le_bytes([metadata_low, metadata_high]);
        if !(9..=16).contains(&lbads) || metadata != 0 {
            return Err(NvmeError::Format {
                nsid,
                lbads,
                metadata,
            });
        }
        let block_bytes = 1_u32 << lbads;
        match blocks.checked_mul(block_bytes.into()) {
            None | Some(0) => Err(NvmeError::NamespaceSize {
                nsid,
                blocks,
                block_bytes: block_bytes.into(),
            }),
            Some(_) => Ok(Self {
                nsid,
                blocks,
                block_bytes,
            }),
        }
    }
}
