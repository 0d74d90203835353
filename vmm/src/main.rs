//! `pinvisor`: from the command line to an exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use log::LevelFilter;
use stress_report::Verdict;
use vmm::cli::{Cli, Command, StressArgs};
use vmm::{Error, Identity, run};

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
    start_log(cli.verbose);
    let result = match cli.command {
        Command::Run(args) => run(&args.into(), &Identity).map(|()| ExitCode::SUCCESS),
        Command::Stress(args) => stress(*args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            error.exit_code().into()
        }
    }
}

fn stress(args: StressArgs) -> Result<ExitCode, Error> {
    let (config, layout) = args.into_config()?;
    Ok(match vmm::stress::run(&config, layout)? {
        Verdict::Passed => ExitCode::SUCCESS,
        Verdict::Failed(_) | Verdict::Incomplete(_) => FAILED.into(),
    })
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    env_logger::Builder::new()
        .filter_level(level)
        .format(|out, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(out, "pinvisor: {level}: {}", record.args())
        })
        .init();
}

/// Prints the error, what is behind it, and the way out.
fn report(error: &Error) {
    eprint!("pinvisor: error: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        eprint!(": {cause}");
        source = cause.source();
    }
    eprintln!();
    if let Some(hint) = error.hint() {
        eprintln!("pinvisor: hint: {hint}");
    }
}
