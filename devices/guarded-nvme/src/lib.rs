//! Guarded NVMe: an unmodified driver in a guest drives a real NVMe controller on a host without an IOMMU, and no address
//! that the controller sees is the guest's word alone.
//!
//! Registers are emulated, queues are shadowed, and each command is read once, checked, and rebuilt with addresses that an
//! AMDv1 table translated page by page. Nothing here is unsafe or knows of KVM, VFIO or the host's page size.
//!
//! - [`check`]: the core. A command, limits, namespaces and memory give a command for the device, or a status.
//! - [`prp`]: PRP entries and lists, as the core walks them.
//! - [`patch`]: what a guest sees of data that the device gave.
//! - [`guest`] and [`device`]: what is needed of both sides.
//!
//! Rules name their source: "sheet" is the project's reference sheet of guarded NVMe, "Base" the NVMe Base Specification
//! 2.2, with section numbers.

#![forbid(unsafe_code)]

mod bits;
pub mod bounce;
pub mod check;
pub mod device;
pub mod guest;
pub mod limits;
pub mod namespaces;
pub mod patch;
pub mod prp;
pub mod queue_set;
pub mod spec;
