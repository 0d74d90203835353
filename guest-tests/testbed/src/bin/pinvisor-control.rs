// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pinvisor with its one idea taken out: guest memory is at conventional addresses, regardless of
//! its physical addresses, and one command of a guarded controller has the addresses that its guest wrote. With
//! `--memory SIZE,layout=packed`, the guest's device tree has a wrong offset for devices.
//!
//! A device that a guest drives under it writes over the host. It exists to show that the tests notice; it is
//! built by the testbed only and never installed.

use std::process::ExitCode;

use address::Gpa;
use clap::Parser;
use pinvisor::cli::{Cli, Command};
use pinvisor::{RunContext, run};
use vmm::config::MemoryLayout;
use vmm::{Harness, Untranslated, WrongOffset};

/// Where guest memory begins: where the canary holds what DMA to wrong addresses reaches. Where RAM conventionally begins,
/// the test machine's kernel has its own memory.
const FROM: Gpa = Gpa(if cfg!(target_arch = "aarch64") {
    2 << 30
} else {
    256 << 20
});

/// From where packed memory begins, at 1 GiB, to there.
const OFFSET: u64 = 1 << 30;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let args = match cli.command {
        Command::Run(args) => args,
        // A run starts its own program as its keeper.
        Command::Keeper => return keeper::run().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        _ => {
            eprintln!("pinvisor-control: it can run, and nothing else");
            return ExitCode::FAILURE;
        }
    };
    let ended = args
        .guest
        .into_config(cli.verbose.max(1))
        .and_then(|config| {
            let host = RunContext::open(&config.host)?;
            let harness = Harness {
                layout: Some(match config.guest.memory.layout {
                    MemoryLayout::Packed => &WrongOffset { offset: OFFSET },
                    MemoryLayout::Auto | MemoryLayout::Identity => &Untranslated { from: FROM },
                }),
                ..Harness::default()
            };
            run(&config.guest, harness, host)
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pinvisor-control: {error}");
            error.exit_code().into()
        }
    }
}
