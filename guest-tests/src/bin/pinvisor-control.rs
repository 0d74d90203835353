//! Pinvisor with its one idea taken out: guest memory stands at conventional addresses, wherever it really is.
//!
//! A device that a guest drives under it writes over the host. It exists to show that the tests notice; it is
//! built by the testbed only and never installed.

use std::process::ExitCode;

use clap::Parser;
use vmm::cli::{Cli, Command};
use vmm::{Conventional, run};

fn main() -> ExitCode {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .init();
    let Command::Run(args) = Cli::parse().command else {
        eprintln!("pinvisor-control: it can run, and nothing else");
        return ExitCode::FAILURE;
    };
    match run(&args.into(), &Conventional) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pinvisor-control: {error}");
            error.exit_code().into()
        }
    }
}
