// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `linux-stress`: the init of a guest, or `linux-stress run 'stress=nvme …'` on a machine that is up;
//! `linux-stress reads 'disk=…'` measures.

use std::process::ExitCode;

use linux_stress::init::{WORK_ARGUMENT, init};
use linux_stress::options::Options;
use linux_stress::reads::Reads;
use linux_stress::report::{Report, Status};
use linux_stress::run::run;

const USAGE: &str =
    "Usage: linux-stress run 'stress=nvme|net|mix [seconds=S] [threads=N] [seed=N] [destroy=yes] \
                     [server=IP/PORT] [address=IP/PREFIX,...]'
       linux-stress reads 'disk=PATH count=N depth=N [batch=N] [pages=N]'";

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
    if command == "reads" {
        return reads(cmdline);
    }
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

fn reads(text: &str) -> ExitCode {
    let done = Reads::parse(text).and_then(|reads| reads.run().map_err(|error| error.to_string()));
    match done {
        Ok(()) => exit(Status::Passed),
        Err(error) => {
            eprintln!("linux-stress: reads: {error}");
            exit(Status::Failed)
        }
    }
}

fn exit(status: Status) -> ExitCode {
    ExitCode::from(status as u8)
}
