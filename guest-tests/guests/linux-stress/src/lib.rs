// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! DMA stress in a Linux guest.
//!
//! The program is the init of an initramfs with a stock kernel's modules. What it does is on the
//! kernel's command line, see [`options`]; it reports its findings in the form of
//! [`stress_format`], and then it powers the machine off. [`init`] is process 1 and outlives
//! whatever happens to its child, which runs [`run`].
//!
//! The parts that decide and diagnose are separate from those that need a device: [`stamp`] and
//! [`diagnose`] define what is on a disk and diagnose faults, [`disk`] works on anything that reads
//! and writes at offsets, [`net`] on any stream.

#![deny(unsafe_code)]

pub mod arena;
pub mod diagnose;
pub mod disk;
pub mod init;
pub mod kernel_log;
pub mod meter;
pub mod net;
pub mod options;
pub mod pagemap;
pub mod pressure;
pub mod reads;
pub mod report;
pub mod run;
pub mod stamp;
pub mod status;
pub mod sysfs;
pub mod tsc;
