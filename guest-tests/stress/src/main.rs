// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From the command line of a stress run to an exit code.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use pinvisor::config::HostConfig;
use pinvisor::{logging, print_message, report};
use pinvisor_stress::cli::Cli;
use pinvisor_stress::{Error, run};
use stress_report::Verdict;

fn main() -> ExitCode {
    // A run starts its own program as its keeper.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "keeper")
    {
        return keeper::run().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a terminal that is gone.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => vmm::ExitCode::Usage.into(),
            };
        }
    };
    match execute(cli) {
        Ok(code) => code,
        Err(error) => {
            print_message(&report(error.id(), &error, error.hint(), error.check()));
            error.exit_code().into()
        }
    }
}

fn execute(cli: Cli) -> Result<ExitCode, Error> {
    pinvisor::prepare_process()?;
    logging::start(&HostConfig {
        verbose: cli.verbose,
        ..HostConfig::default()
    })?;
    let (config, layout) = cli.args.into_config()?;
    Ok(match run(&config, layout)? {
        Verdict::Passed => ExitCode::SUCCESS,
        Verdict::Failed(_) | Verdict::Incomplete(_) => vmm::ExitCode::GuestStatus.into(),
    })
}
