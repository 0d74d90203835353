// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor stress`: starts the program `pinvisor-stress`.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::error::Error;

/// The program.
const PROGRAM: &str = "pinvisor-stress";

/// Options of `pinvisor-stress`.
#[derive(Args, Clone, Debug)]
pub struct StressArgs {
    /// Options of pinvisor-stress; --help shows them
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTION"
    )]
    options: Vec<OsString>,
}

impl StressArgs {
    /// Becomes the program, which is beside this one or in PATH.
    ///
    /// # Errors
    /// [`Error::NoStress`]
    pub fn start(self, verbose: u8) -> Result<Infallible, Error> {
        let beside = std::env::current_exe().ok();
        let beside = beside.map(|path| path.with_file_name(PROGRAM));
        let program = beside
            .filter(|path| path.exists())
            .unwrap_or_else(|| PathBuf::from(PROGRAM));
        let mut command = Command::new(&program);
        command.args((0..verbose).map(|_| "-v")).args(self.options);
        let source = command.exec();
        Err(Error::NoStress { program, source })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};

    #[test]
    fn all_options_are_handed_on() {
        let words = ["pinvisor", "-v", "stress", "--software", "-v", "--help"];
        let cli = Cli::try_parse_from(words).unwrap();
        let Command::Stress(args) = cli.command else {
            panic!("{:?}", cli.command);
        };
        assert_eq!(cli.verbose, 1);
        assert_eq!(args.options, ["--software", "-v", "--help"]);
    }
}
