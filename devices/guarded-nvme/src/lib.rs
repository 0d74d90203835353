// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guarded NVMe: an unmodified driver in a guest drives a real NVMe controller on a host without an IOMMU, and no address
//! that the controller sees is the guest's word alone.
//!
//! Registers are emulated, queues are shadowed, and each command is read once, checked, and rebuilt with addresses that an
//! AMDv1 table translated page by page. Nothing here is unsafe or knows of KVM, VFIO or the host's page size.
//!
//! ```text
//!  vCPU threads                 the device's thread                           the device
//!  ────────────                 ───────────────────                           ──────────
//!  loads, stores ─► Registers ─► Change ─► Controller ─► CC, AQA, ASQ, ACQ ─► BAR0
//!  doorbells ─────► Doorbells ───────────► queues ─────► rings, lists, pages ◄─ DMA
//!                   guest RAM ◄─ completions, data       of the monitor's
//!                              data of Read, Write and Compare ─────────────── DMA ─► guest RAM
//! ```
//!
//! - [`check`]: the core. A command, limits, namespaces and memory give a command for the device, or a status.
//! - [`prp`]: PRP entries and lists, as the core walks them.
//! - [`patch`]: what a guest sees of data that the device gave.
//! - [`registers`]: BAR0 as the guest sees it.
//! - [`controller`]: all of it, owned by one thread.
//! - [`polling`]: when that thread looks at doorbells by itself, and when it sleeps.
//! - [`guest`] and [`device`]: what a monitor implements for both sides.
//!
//! What a guest can do to the device ends with its own RAM, its logical blocks, and the device's time and wear. Not guarded
//! against: firmware that goes elsewhere by itself (sheet, section 8).
//!
//! Rules name their source: "sheet" is the project's reference sheet of guarded NVMe, "Base" the NVMe Base Specification
//! 2.2, with section numbers.

#![forbid(unsafe_code)]

mod bits;
pub mod bounce;
pub mod check;
pub mod controller;
pub mod device;
mod doorbell;
pub mod fault;
pub mod guest;
pub mod limits;
mod link;
pub mod namespaces;
pub mod patch;
pub mod polling;
pub mod prp;
mod queue;
pub mod queue_set;
pub mod registers;
pub mod spec;
