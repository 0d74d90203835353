// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `linux-stress`: the init of a guest, or `linux-stress run 'stress=nvme …'` on a machine that is up.

use std::process::ExitCode;

use linux_stress::init::{WORK_ARGUMENT, init};
use linux_stress::options::Options;
use linux_stress::report::{Report, Status};
use linux_stress::run::run;

const USAGE: &str = "Usage: linux-stress run 'stress=nvme|net|mix [seconds=S] [threads=N] [seed=N] [destroy=yes] \
                     [server=IP/PORT] [address=IP/PREFIX,...]'";

fn main() -> ExitCode {
    let report = Report::new(Box::new(std::io::stdout()));
    if std::process::id() == 1 {
        init(&report);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, cmdline] = &arguments[..] else {
        eprintln!("{USAGE}");
        return exit(Status::NotRun);
    };
    if command != WORK_ARGUMENT {
        eprintln!("{USAGE}");
        return exit(Status::NotRun);
    }
    match Options::parse(cmdline) {
        Ok(options) => exit(run(&options, &report)),
        Err(bad) => {
            report.version();
            report.bail_out(bad);
            exit(Status::NotRun)
        }
    }
}

fn exit(status: Status) -> ExitCode {
    ExitCode::from(status as u8)
}
