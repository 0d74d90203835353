// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor-stress`: runs a guest that stresses DMA, decides whether the run passed, and writes a report. With
//! `--software` it needs only KVM: memory has synthetic physical addresses, and a DMA engine in software takes the place
//! of devices. Faults can be injected into both.

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
