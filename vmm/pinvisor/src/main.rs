// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor`: from the command line to an exit code.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use host::Id;
use pinvisor::cli::{Cli, Command};
use pinvisor::config::HostConfig;
use pinvisor::{
    Error, RunContext, launcher, logging, outlive_keeper, prepare_process, print_message, report,
    run,
};
use vmm::Harness;

/// musl's allocator maps and unmaps a few pages for every handful of objects (src/malloc/mallocng): a third of all
/// system calls before a guest runs.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
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
            let check = error.check().map(Id::name);
            print_message(&report(error.id(), &error, error.hint(), check));
            outlive_keeper(&error);
            error.exit_code().into()
        }
    }
}

fn execute(cli: Cli) -> Result<ExitCode, Error> {
    let verbose = cli.verbose;
    prepare_process()?;
    // A run's log may go elsewhere, by its configuration file.
    if !matches!(
        cli.command,
        Command::Run(_) | Command::Launch(_) | Command::Plan(_)
    ) {
        logging::start(&HostConfig {
            verbose,
            ..HostConfig::default()
        })?;
    }
    match cli.command {
        Command::Run(args) => {
            let config = args.guest.into_config(verbose)?;
            // First: the number of --event-fd must not be one of this process's own.
            let context = RunContext::open(&config.host)?;
            let handover = args.handover.map(|source| source.open(&config.host));
            let harness = Harness {
                handover: handover.transpose()?,
                ..Harness::default()
            };
            run(&config.guest, harness, context)?;
        }
        Command::Launch(args) => {
            let config = args.guest.into_config(verbose)?;
            launcher::check(&config.host)?;
            // The other files belong to the process that runs the guest.
            logging::start(&HostConfig {
                verbose: config.host.verbose,
                ..HostConfig::default()
            })?;
            match args.serve {
                Some(path) => launcher::serve(&config.guest, args.user.as_ref(), &path)?,
                None => match launcher::launch(&config.guest, args.user.as_ref())? {},
            }
        }
        Command::Plan(args) => {
            let config = args.run.into_config(verbose)?;
            logging::start(&config.host)?;
            pinvisor::plan(&config.guest, args.json)?;
        }
        Command::Stress(args) => match args.start(verbose)? {},
        Command::Check(args) => return args.run(),
        Command::List(args) => return args.run(),
        Command::Bind(args) => return args.run(),
        Command::Unbind(args) => return args.run(),
        Command::Release(args) => return args.run(),
        Command::Keeper => keeper::run()?,
        Command::HandoverHelper => vmm::handover::help()?,
    }
    Ok(ExitCode::SUCCESS)
}
