// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guarded NVMe: an unmodified driver in a guest drives a real NVMe controller on a host without an IOMMU, and the guest
//! is confined to its own memory.
//!
//! The guest sees emulated registers, and its queues are not those of the device. The monitor copies each command once,
//! checks it, and builds a command for the device from it. An AMDv1 table translates each address, page by page. This crate
//! does not use KVM or VFIO.
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
//! | module | what it does |
//! |---|---|
//! | [`check`] | checks a guest's command, and returns a command for the device or a status for the guest |
//! | [`prp`] | walks PRP entries and lists |
//! | [`patch`] | edits data that the device returns, so that the guest is not offered what is refused |
//! | [`registers`] | emulates BAR0 |
//! | [`controller`] | combines all modules; one thread owns it |
//! | [`polling`] | decides when that thread looks at doorbells by itself, and when it sleeps |
//! | [`guest`], [`device`] | traits that a monitor implements for the two sides |
//!
//! A guest can access its own RAM and the disk's logical blocks, and use up the device's time and wear. Firmware that
//! accesses other addresses than those in its commands is not stopped.
//!
//! "Base" in comments is the NVMe Base Specification 2.2, with a section number.

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
