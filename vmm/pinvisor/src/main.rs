//! `pinvisor`: from the command line to an exit code.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use pinvisor::cli::{Cli, Command, StressArgs};
use pinvisor::config::HostConfig;
use pinvisor::{Error, RunContext, fatal, logging, run, say, stress};
use stress_report::Verdict;
use vmm::{Identity, limits};

/// The command line is wrong.
const USAGE: u8 = 1;
/// A stress run did not pass.
const FAILED: u8 = 6;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a terminal that is gone.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => USAGE.into(),
            };
        }
    };
    match execute(cli) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            error.exit_code().into()
        }
    }
}

fn execute(cli: Cli) -> Result<ExitCode, Error> {
    let verbose = cli.verbose;
    let handlers = limits::report_file_size().and_then(|()| fatal::install());
    handlers.map_err(vmm::process("install a signal handler"))?;
    // A run's log may go elsewhere, as its file of options says.
    if !matches!(cli.command, Command::Run(_) | Command::Plan(_)) {
        logging::start(&HostConfig {
            verbose,
            ..HostConfig::default()
        })?;
    }
    match cli.command {
        Command::Run(args) => {
            let config = args.into_config(verbose)?;
            run(&config.guest, &Identity, RunContext::open(&config.host)?)?;
        }
        Command::Plan(args) => {
            let output = args.output();
            let config = args.run.into_config(verbose)?;
            logging::start(&config.host)?;
            pinvisor::plan(&config.guest, &output)?;
        }
        Command::Stress(args) => return run_stress(*args),
        Command::Check(args) => return args.run(),
        Command::List(args) => return args.run(),
        Command::Bind(args) => return args.run(),
        Command::Unbind(args) => return args.run(),
        Command::Release(args) => return args.run(),
        Command::Keeper => keeper::run()?,
        Command::Completions(args) => args.write()?,
        Command::Man(args) => args.write()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_stress(args: StressArgs) -> Result<ExitCode, Error> {
    let (config, layout) = args.into_config()?;
    Ok(match stress::run(&config, layout)? {
        Verdict::Passed => ExitCode::SUCCESS,
        Verdict::Failed(_) | Verdict::Incomplete(_) => FAILED.into(),
    })
}

/// Prints the error, what is behind it, the hint, and the check that looks for it.
fn report(error: &Error) {
    let mut text = format!("pinvisor: error[{}]: {}\n", error.id(), error.chain());
    if let Some(hint) = error.hint() {
        text.push_str(&format!("pinvisor: hint: {hint}\n"));
    }
    if let Some(check) = error.check() {
        text.push_str(&format!("pinvisor: check: {}\n", check.name()));
    }
    say(&text);
}
