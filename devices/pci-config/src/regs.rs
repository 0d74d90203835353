// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Register offsets and bits of config space.
//!
//! Offsets of the header count from the start of config space; those of a capability from its start. Constants for bits
//! are as wide as their register.
//!
//! Sections named *PCI* are of the PCI Local Bus Specification 3.0, *PCIe* of the PCI Express Base Specification 6.0,
//! *PM* of the PCI Bus Power Management Interface Specification 1.2, *AF* of the ECN Advanced Capabilities for
//! Conventional PCI. The names in Linux are those of `include/uapi/linux/pci_regs.h`.

/// Bytes of config space of a PCI Express function (PCIe, section 7.2; `PCI_CFG_SPACE_EXP_SIZE`).
pub const CONFIG_SIZE: u16 = 4096;
/// Bytes of config space of a conventional function (PCI, section 6.1; `PCI_CFG_SPACE_SIZE`).
pub const CONVENTIONAL_CONFIG_SIZE: u16 = 256;
/// Bytes of memory-mapped config space for one bus: [`CONFIG_SIZE`] for each of 256 functions (PCIe, section 7.2.2).
pub const ECAM_BUS_SIZE: u64 = 1 << 20;

/// Vendor ID (PCI, section 6.2.1).
pub const VENDOR: u16 = 0x00;
/// The vendor ID that no vendor has: what reads as it does not respond (PCI, section 6.1).
pub const VENDOR_NONE: u16 = 0xffff;

/// COMMAND (PCI, section 6.2.2).
pub const COMMAND: u16 = 0x04;
/// I/O Space.
pub const COMMAND_IO: u16 = 1 << 0;
/// Memory Space.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Bus Master.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Memory Write and Invalidate Enable.
pub const COMMAND_MWI: u16 = 1 << 4;
/// Parity Error Response.
pub const COMMAND_PARITY: u16 = 1 << 6;
/// SERR# Enable.
pub const COMMAND_SERR: u16 = 1 << 8;
/// Interrupt Disable.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;

/// STATUS, the upper half of COMMAND's dword (PCI, section 6.2.3).
pub const STATUS: u16 = 0x06;
/// Interrupt Status.
pub const STATUS_INTERRUPT: u16 = 1 << 3;
/// Capabilities List: there is one.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Revision ID, in the dword of the class codes (PCI, section 6.2.1).
pub const REVISION: u16 = 0x08;
/// Sub-class and base class; the programming interface is in the byte before (PCI, section 6.2.1).
pub const CLASS: u16 = 0x0a;
/// Cacheline Size; Latency Timer, Header Type and BIST follow in its dword (PCI, section 6.2.4).
pub const CACHE_LINE: u16 = 0x0c;
/// Header Type (PCI, section 6.2.1).
pub const HEADER_TYPE: u16 = 0x0e;
/// Layout of the header: 0 of a device, 1 of a bridge, 2 of a CardBus bridge.
pub const HEADER_TYPE_LAYOUT: u8 = 0x7f;
/// The device has more than one function.
pub const MULTIFUNCTION: u8 = 0x80;

/// The first base address register of a device (PCI, section 6.2.5); its bits are below.
pub const BAR0: u16 = 0x10;
/// Base address registers of a device (PCI, section 6.2.5).
pub const BARS: u8 = 6;
/// End of the base address registers.
pub const BAR_END: u16 = 0x28;
/// Where a CardBus card's Card Information Structure is (PCI, section 6.2.4).
pub const CARDBUS_CIS: u16 = 0x28;
/// Subsystem Vendor ID; Subsystem ID follows in its dword (PCI, section 6.2.4).
pub const SUBSYSTEM: u16 = 0x2c;
/// Expansion ROM Base Address (PCI, section 6.2.5.2).
pub const ROM: u16 = 0x30;
/// Expansion ROM Enable.
pub const ROM_ENABLE: u32 = 1;
/// The bits of the ROM's base address.
pub const ROM_ADDRESS: u32 = !0x7ff;
/// Capabilities Pointer, one byte (PCI, section 6.7).
pub const CAPABILITIES: u16 = 0x34;
/// Interrupt Line, the byte in front of Interrupt Pin (PCI, section 6.2.4).
pub const INTERRUPT: u16 = 0x3c;
/// Interrupt Pin: 0 is none, 1 to 4 are INTA# to INTD# (PCI, section 6.2.4).
pub const INTERRUPT_PIN: u16 = 0x3d;
/// First byte behind the header of a device (PCI, section 6.1; `PCI_STD_HEADER_SIZEOF`).
pub const HEADER_END: u16 = 0x40;

/// The bits of a base address register that name the space and, of memory, the width (PCI, section 6.2.5.1).
pub const BAR_KIND: u32 = 0b111;
/// I/O ports; the bit beside it is reserved.
pub const BAR_KIND_IO: u32 = 0b001;
/// Memory anywhere below 4 GiB.
pub const BAR_KIND_MEMORY_32: u32 = 0b000;
/// Memory anywhere; the next register is the upper half of the address.
pub const BAR_KIND_MEMORY_64: u32 = 0b100;
/// Prefetchable, of memory.
pub const BAR_PREFETCHABLE: u32 = 0b1000;
/// The bits of an address of memory.
pub const BAR_MEMORY_ADDRESS: u32 = !0b1111;
/// The bits of an address of ports.
pub const BAR_IO_ADDRESS: u32 = !0b11;

/// Power Management (PM, section 3.2; PCIe, section 7.5.2).
pub const CAP_PM: u8 = 0x01;
/// Message Signalled Interrupts (PCI, section 6.8.1; PCIe, section 7.7.1).
pub const CAP_MSI: u8 = 0x05;
/// Vendor Specific (PCI, appendix H; PCIe, section 7.9.4).
pub const CAP_VENDOR: u8 = 0x09;
/// PCI Express (PCIe, section 7.5.3).
pub const CAP_EXPRESS: u8 = 0x10;
/// MSI-X (PCI, section 6.8.2; PCIe, section 7.7.2).
pub const CAP_MSIX: u8 = 0x11;
/// Advanced Features (AF; `PCI_CAP_ID_AF`).
pub const CAP_AF: u8 = 0x13;

/// Power Management Control and Status (PM, section 3.2.4; PCIe, section 7.5.2.2).
pub const PM_CONTROL: u16 = 0x04;
/// PowerState: 0 is D0, 3 is D3hot.
pub const PM_STATE: u16 = 0b11;
/// No_Soft_Reset: on the way from D3hot to D0 the function keeps its state.
pub const PM_NO_SOFT_RESET: u16 = 1 << 3;

/// Message Control of MSI, see [`MsiControl`](crate::MsiControl) (PCI, section 6.8.1.3; PCIe, section 7.7.1.2).
pub const MSI_CONTROL: u16 = 0x02;
/// MSI Enable.
pub const MSI_ENABLE: u16 = 1 << 0;
/// 64-bit address capable.
pub const MSI_64_BIT: u16 = 1 << 7;
/// Per-vector masking capable.
pub const MSI_MASKABLE: u16 = 1 << 8;

/// Message Control of MSI-X, see [`MsixControl`](crate::MsixControl) (PCI, section 6.8.2.3; PCIe, section 7.7.2.2).
pub const MSIX_CONTROL: u16 = 0x02;
/// MSI-X Enable.
pub const MSIX_ENABLE: u16 = 1 << 15;
/// Function Mask.
pub const MSIX_FUNCTION_MASK: u16 = 1 << 14;
/// Where the table is, see [`MsixLocation`](crate::MsixLocation) (PCI, section 6.8.2.4; PCIe, section 7.7.2.3).
pub const MSIX_TABLE: u16 = 0x04;
/// Where the pending bits are (PCI, section 6.8.2.5; PCIe, section 7.7.2.4).
pub const MSIX_PENDING: u16 = 0x08;

/// PCI Express Capabilities (PCIe, section 7.5.3.2; `PCI_EXP_FLAGS`).
pub const EXP_FLAGS: u16 = 0x02;
/// Capability Version.
pub const EXP_FLAGS_VERSION: u16 = 0xf;
/// Device/Port Type.
pub const EXP_FLAGS_TYPE: u16 = 0xf0;
/// The type of a Root Complex Integrated Endpoint.
pub const EXP_TYPE_INTEGRATED_ENDPOINT: u16 = 9 << 4;
/// Slot Implemented.
pub const EXP_FLAGS_SLOT: u16 = 1 << 8;
/// Device Capabilities (PCIe, section 7.5.3.3).
pub const EXP_DEVICE_CAPABILITIES: u16 = 0x04;
/// Function Level Reset Capability.
pub const EXP_DEVICE_CAPABILITIES_FLR: u32 = 1 << 28;
/// Device Control (PCIe, section 7.5.3.4).
pub const EXP_DEVICE_CONTROL: u16 = 0x08;
/// Reporting of correctable, non-fatal and fatal errors, and of unsupported requests.
pub const EXP_DEVICE_CONTROL_REPORTING: u16 = 0xf;
/// Enable No Snoop.
pub const EXP_DEVICE_CONTROL_NO_SNOOP: u16 = 1 << 11;
/// Initiate Function Level Reset.
pub const EXP_DEVICE_CONTROL_FLR: u16 = 1 << 15;
/// Device Status (PCIe, section 7.5.3.5).
pub const EXP_DEVICE_STATUS: u16 = 0x0a;
/// Transactions Pending.
pub const EXP_DEVICE_STATUS_PENDING: u16 = 1 << 5;
/// Slot Status (PCIe, section 7.5.3.11).
pub const EXP_SLOT_STATUS: u16 = 0x1a;
/// Presence Detect State: a card is in the slot.
pub const EXP_SLOT_STATUS_PRESENT: u16 = 1 << 6;
/// Bytes of an endpoint's capability in version 1 (PCIe, section 7.5.3; `PCI_CAP_EXP_ENDPOINT_SIZEOF_V1`).
pub const EXP_V1_LENGTH: u16 = 0x14;
/// The same of an integrated endpoint, which has no link (`PCI_CAP_EXP_RC_ENDPOINT_SIZEOF_V1`).
pub const EXP_V1_INTEGRATED_LENGTH: u16 = 0x0c;
/// Bytes of an endpoint's capability since version 2 (`PCI_CAP_EXP_ENDPOINT_SIZEOF_V2`).
pub const EXP_V2_LENGTH: u16 = 0x34;
/// The same of an integrated endpoint (`PCI_CAP_EXP_RC_ENDPOINT_SIZEOF_V2`).
pub const EXP_V2_INTEGRATED_LENGTH: u16 = 0x2c;

/// FLR_CAP of AF Capabilities, in the capability's first dword, whose upper byte that is (AF; `PCI_AF_CAP_FLR`).
pub const AF_CAPABILITIES_FLR: u32 = 1 << 25;
/// AF Control (AF; `PCI_AF_CTRL`).
pub const AF_CONTROL: u16 = 0x04;
/// INITIATE_FLR.
pub const AF_CONTROL_FLR: u32 = 1;

/// Where the list of extended capabilities begins (PCIe, section 7.6.1).
pub const EXTENDED_CAPABILITIES: u16 = 0x100;

/// Single Root I/O Virtualization (PCIe, section 9.3.3).
pub const EXT_CAP_SRIOV: u16 = 0x0010;
/// First VF Offset (PCIe, section 9.3.3.9).
pub const SRIOV_FIRST_OFFSET: u16 = 0x14;
/// VF Stride (PCIe, section 9.3.3.10).
pub const SRIOV_STRIDE: u16 = 0x16;
/// VF BAR 0, in front of the others (PCIe, section 9.3.3.14).
pub const SRIOV_BAR0: u16 = 0x24;

/// `half` in the upper half of its dword, as registers at offsets that no dword begins at have it: STATUS, and what
/// follows a capability's header.
#[must_use]
pub const fn upper_half(half: u16) -> u32 {
    (half as u32) << 16
}
