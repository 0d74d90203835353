// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The output of a DMA stress guest on its serial port: TAP 14
//! (<https://testanything.org/tap-version-14-specification.html>) with [`Record`]s in its comments,
//! one to a line.
//!
//! ```text
//! TAP version 14
//! # stress version=1 seed=7 cpus=2 tsc_khz=2000000 mode=identity program=dma-stress
//! # ram gpa=0x140000000 len=0x800000
//! # engine id=0 interrupt=msi bdf=00:01.0 name=edu
//! 1..2
//! # sample ms=120 transfers=310 bytes=412311
//! ok 1 - edu 0: every length to the device
//! # finding kind=shifted engine=0 gpa=0x140201000 len=0x40 text=the data lies 4096 bytes further on
//! not ok 2 - edu 0: every length from the device
//! # latency from=4096 count=300
//! # landed gpa=0x140200000 len=0x200000 bytes=81920
//! # provoked least=0 most=0
//! # totals transfers=620 bytes=812311 mismatches=1 guard_hits=0 lost_interrupts=0 kb_s=6841 p50=4100 p99=9000 max=12345
//! ```
//!
//! Guests write, the monitor reads; what it reads is hostile.

#![no_std]
#![forbid(unsafe_code)]

mod histogram;
mod parse;
mod record;
mod tap;

pub use histogram::Histogram;
pub use record::{
    Engine, Finding, FindingKind, Interrupt, Landed, Latency, Mode, Provoked, Ram, Record, Sample,
    Start, Totals, UnknownName,
};
pub use tap::{Line, VERSION_LINE};
