// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor-stress`: runs a guest that stresses DMA, judges what it reports, and draws the report. With `--software`
//! it needs nothing but KVM: memory with synthetic physical addresses, and a DMA engine in software, which can be made
//! to fail.

pub mod cli;
mod config;
mod display;
mod error;
mod facts;
mod machine;
mod run;
mod screen;

pub use error::Error;
pub use run::{StressConfig, run};
