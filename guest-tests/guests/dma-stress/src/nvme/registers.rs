// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Offsets and fields of the controller's registers (Base 1.4 §3.1, 2.0 §3.1.3).

pub(super) const CAP: u64 = 0x00;
pub(super) const VS: u64 = 0x08;
pub(super) const CC: u64 = 0x14;
pub(super) const CSTS: u64 = 0x1c;
pub(super) const AQA: u64 = 0x24;
pub(super) const ASQ: u64 = 0x28;
pub(super) const ACQ: u64 = 0x30;
pub(super) const CMBLOC: u64 = 0x38;
pub(super) const CMBSZ: u64 = 0x3c;
pub(super) const CMBMSC: u64 = 0x50;
pub(super) const CMBSTS: u64 = 0x58;
const DOORBELLS: u64 = 0x1000;

/// CC.EN.
pub(super) const CC_EN: u32 = 1;
/// CC.SHN: normal shutdown.
pub(super) const CC_SHN_NORMAL: u32 = 1 << 14;
/// CC.SHN, all bits.
pub(super) const CC_SHN: u32 = 3 << 14;
/// CC.IOSQES and CC.IOCQES for entries of 2^6 and 2^4 bytes.
pub(super) const CC_ENTRY_SIZES: u32 = 6 << 16 | 4 << 20;
/// CC.CSS: every I/O command set that the controller has (NVM is one of them).
pub(super) const CC_CSS_ALL: u32 = 0b110 << 4;

/// CSTS.RDY.
pub(super) const CSTS_RDY: u32 = 1;
/// CSTS.CFS: controller fatal status.
pub(super) const CSTS_CFS: u32 = 1 << 1;
/// CSTS.SHST, all bits.
pub(super) const CSTS_SHST: u32 = 3 << 2;
/// CSTS.SHST: shutdown processing complete.
pub(super) const CSTS_SHST_COMPLETE: u32 = 2 << 2;

/// CMBMSC.CRE: CMBLOC and CMBSZ are valid.
pub(super) const CMBMSC_CRE: u64 = 1;
/// CMBMSC.CMSE: the controller answers for the addresses from CBA on.
pub(super) const CMBMSC_CMSE: u64 = 1 << 1;
/// CMBSTS.CBAI: CBA is invalid.
pub(super) const CMBSTS_CBAI: u32 = 1;

/// CAP, the controller's capabilities.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capabilities(pub(super) u64);

impl Capabilities {
    const fn byte(self, shift: u32, mask: u8) -> u8 {
        (self.0 >> shift).to_le_bytes()[0] & mask
    }

    /// MQES: the largest number of entries of an I/O queue, 0's based.
    pub(super) const fn mqes(self) -> u16 {
        let bytes = self.0.to_le_bytes();
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    /// How long CSTS.RDY may take to follow CC.EN, in milliseconds: TO counts 500 ms; one more for
    /// controllers that report 0.
    pub(super) const fn ready_ms(self) -> u64 {
        (self.byte(24, 0xff) as u64 + 1) * 500
    }

    /// DSTRD: doorbells are `4 << dstrd` bytes apart.
    pub(super) const fn dstrd(self) -> u8 {
        self.byte(32, 0xf)
    }

    /// CSS: the command sets.
    pub(super) const fn css(self) -> u8 {
        self.byte(37, 0xff)
    }

    /// MPSMIN: the smallest memory page has `4096 << mpsmin` bytes.
    pub(super) const fn mpsmin(self) -> u8 {
        self.byte(48, 0xf)
    }

    /// CMBS: the memory buffer is set up with CMBMSC. Older controllers have a buffer if
    /// CMBSZ is not 0.
    pub(super) const fn cmbs(self) -> bool {
        self.0 >> 57 & 1 != 0
    }

    /// The submission queue tail and completion queue head doorbell of queue pair `queue`.
    pub(super) const fn doorbells(self, queue: u16) -> (u64, u64) {
        let stride = 4 << self.dstrd();
        let tail = DOORBELLS + 2 * queue as u64 * stride;
        (tail, tail + stride)
    }

    /// Bytes of BAR0 up to the end of the doorbells of queue pair `queue`.
    pub(super) const fn bar_bytes(self, queue: u16) -> u64 {
        self.doorbells(queue).1 + 4
    }
}
