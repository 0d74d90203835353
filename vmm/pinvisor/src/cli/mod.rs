// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line.

mod bind;
mod check;
mod launch;
mod list;
mod plan;
mod release;
mod run;
mod stress;

use std::io;

use clap::{ArgAction, Parser, Subcommand};

use crate::error::Error;
use vmm::process;

pub use bind::{BindArgs, UnbindArgs};
pub use check::CheckArgs;
pub use launch::LaunchArgs;
pub use list::ListArgs;
pub use plan::PlanArgs;
pub use release::ReleaseArgs;
pub use run::{GuestArgs, HandoverSource, RunArgs};
pub use stress::StressArgs;

/// A microVM monitor that passes real PCI devices through to unmodified guests on machines
/// without an IOMMU.
#[derive(Debug, Parser)]
#[command(name = "pinvisor", version = crate::VERSION, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// Log more: once for each step, twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  the guest powered itself off, or a signal ended it
  1  the command line, or a file that it names, is invalid
  2  this machine cannot run it
  3  a device cannot be used
  4  guest memory is not available, or the kernel does not fit
  5  the guest crashed
  6  the guest powered itself off with a status other than 0, or a stress run failed
  7  the guest requested a restart, perhaps after a panic (--on-reset)";

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a microVM until it powers itself off
    Run(Box<RunArgs>),
    /// Open devices and pin memory, then run a microVM without any privilege
    Launch(Box<LaunchArgs>),
    /// Show the layout of a microVM without running it
    Plan(Box<PlanArgs>),
    /// Run a guest that stresses DMA, evaluate its output, and write a report: starts
    /// pinvisor-stress
    #[command(disable_help_flag = true)]
    Stress(StressArgs),
    /// Check every requirement of a run, and show how to fix what is missing
    Check(CheckArgs),
    /// List the PCI devices that can be passed through
    List(ListArgs),
    /// Bind PCI devices to vfio-pci
    Bind(BindArgs),
    /// Return PCI devices to their own drivers
    Unbind(UnbindArgs),
    /// Reset a device whose memory is kept pinned, and release that memory
    Release(ReleaseArgs),
    /// The process that keeps memory pinned; a run starts it
    #[command(hide = true)]
    Keeper,
    /// The process that shows a monitor without privilege where its pages are; a launch starts it
    #[command(hide = true)]
    HandoverHelper,
}

/// The result of writing to standard output. A reader that closed it has read enough.
pub(crate) fn written(result: io::Result<()>) -> Result<(), Error> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(process("write to standard output")(error).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        assert!(written(io::Write::write_all(&mut writer, b"text")).is_ok());
        assert!(written(Err(io::Error::from_raw_os_error(libc::ENOSPC))).is_err());
    }

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }
}
