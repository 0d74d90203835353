//! Register offsets and bits of config space, as the PCI Local Bus 3.0 and PCI Express Base
//! specifications number them.

/// Bytes of config space that ECAM gives each function.
pub(crate) const CONFIG_SIZE: u16 = 4096;
/// Bytes of config space that a conventional PCI function has.
pub(crate) const CONVENTIONAL_CONFIG_SIZE: u16 = 256;

pub(crate) const COMMAND: u16 = 0x04;
pub(crate) const COMMAND_IO: u16 = 1 << 0;
pub(crate) const COMMAND_MEMORY: u16 = 1 << 1;
pub(crate) const COMMAND_BUS_MASTER: u16 = 1 << 2;
pub(crate) const COMMAND_MWI: u16 = 1 << 4;
pub(crate) const COMMAND_PARITY: u16 = 1 << 6;
pub(crate) const COMMAND_SERR: u16 = 1 << 8;
pub(crate) const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// STATUS is the upper half of COMMAND's dword.
pub(crate) const STATUS_CAPABILITIES: u32 = 1 << (16 + 4);

pub(crate) const CACHE_LINE: u16 = 0x0c;
pub(crate) const HEADER_TYPE: u16 = 0x0e;
pub(crate) const MULTIFUNCTION: u8 = 0x80;
pub(crate) const BAR0: u16 = 0x10;
pub(crate) const BAR_END: u16 = 0x28;
/// Where a CardBus card's Card Information Structure is.
pub(crate) const CARDBUS_CIS: u16 = 0x28;
pub(crate) const SUBSYSTEM: u16 = 0x2c;
pub(crate) const ROM: u16 = 0x30;
pub(crate) const CAPABILITIES: u16 = 0x34;
pub(crate) const INTERRUPT: u16 = 0x3c;
/// First byte behind the type 0 header.
pub(crate) const HEADER_END: u16 = 0x40;

pub(crate) const CAP_PM: u8 = 0x01;
pub(crate) const CAP_MSI: u8 = 0x05;
pub(crate) const CAP_VENDOR: u8 = 0x09;
pub(crate) const CAP_EXPRESS: u8 = 0x10;
pub(crate) const CAP_MSIX: u8 = 0x11;
pub(crate) const CAP_AF: u8 = 0x13;

pub(crate) const PM_CONTROL: u16 = 4;
pub(crate) const PM_STATE: u16 = 0b11;
pub(crate) const PM_NO_SOFT_RESET: u16 = 1 << 3;

pub(crate) const EXP_DEVICE_CAPABILITIES: u16 = 4;
pub(crate) const EXP_DEVICE_CAPABILITIES_FLR: u32 = 1 << 28;
pub(crate) const EXP_DEVICE_CONTROL: u16 = 8;
pub(crate) const EXP_DEVICE_CONTROL_NO_SNOOP: u16 = 1 << 11;
pub(crate) const EXP_DEVICE_CONTROL_FLR: u16 = 1 << 15;

/// AF capabilities, in bits 31:24 of the capability's first dword.
pub(crate) const AF_CAPABILITIES_FLR: u32 = 1 << 25;
pub(crate) const AF_CONTROL: u16 = 4;
pub(crate) const AF_CONTROL_FLR: u32 = 1;

pub(crate) const MSIX_ENABLE: u16 = 1 << 15;
pub(crate) const MSIX_FUNCTION_MASK: u16 = 1 << 14;

pub(crate) const EXTENDED_CAPABILITIES: u16 = 0x100;
