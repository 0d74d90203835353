// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program `pinvisor`: its command line, and what a run reports.

pub mod cli;
pub mod config;
mod error;
pub mod events;
pub mod fatal;
mod inherited;
pub mod launcher;
pub mod logging;
pub mod pidfile;
mod plan;
mod process;
mod run;
mod run_context;
mod screen;
mod service;

pub use error::Error;
pub use plan::run as plan;
pub use process::{outlive_keeper, prepare as prepare_process, report};
pub use run::{Ended, launch, run};
pub use run_context::RunContext;
pub use screen::{print_by, print_message};

/// The version, with the commit where it is known.
pub const VERSION: &str = env!("PINVISOR_VERSION");
