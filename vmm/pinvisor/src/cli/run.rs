// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options of `pinvisor run`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use rustix::thread::set_name;
use vmm::handover::{HandoverError, Socket};

use crate::Error;
use crate::config::{HostConfig, RunConfig, RunOptions};
use crate::inherited;
use crate::launcher::{self, LaunchError};

/// Options of `pinvisor run`: those of the guest, and where its devices come from.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// The guest.
    #[command(flatten)]
    pub guest: GuestArgs,

    /// Take devices and pinned memory over from another process: through the Unix socket PATH of pinvisor launch --serve,
    /// or the connected one that is open as descriptor N, which pinvisor launch uses (docs/reference/handover.md)
    #[arg(long, value_name = "socket=PATH|fd=N")]
    pub handover: Option<HandoverSource>,
}

/// Where a handover comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandoverSource {
    /// `socket=PATH`: the process that listens there.
    Socket(PathBuf),
    /// `fd=N`: the process at the other end.
    Descriptor(u32),
}

impl FromStr for HandoverSource {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let source = match text.split_once('=') {
            Some(("socket", path)) if !path.is_empty() => Some(Self::Socket(path.into())),
            Some(("fd", number)) => number.parse().ok().map(Self::Descriptor),
            _ => None,
        };
        source.ok_or("socket=PATH or fd=N is required")
    }
}

impl HandoverSource {
    /// The socket. To be called before this process has another thread.
    ///
    /// # Errors
    /// [`Error::Launch`], [`HandoverError`]
    pub fn open(self, host: &HostConfig) -> Result<Socket, Error> {
        launcher::check(host)?;
        let number = match self {
            Self::Socket(path) => return Ok(Socket::connect(&path)?),
            Self::Descriptor(number) => number,
        };
        if host.event_fd == Some(number) {
            return Err(LaunchError::SameDescriptor(number).into());
        }
        // The kernel named it "exe", after the path that the launcher executed.
        if let Err(error) = set_name(c"pinvisor") {
            log::debug!("cannot name this process: {error}");
        }
        let (socket, _) = inherited::descriptor(number)
            .map_err(|reason| HandoverError::descriptor(number, reason))?;
        Ok(Socket::new(socket, number)?)
    }
}

/// What a guest is made of and runs on.
#[derive(Args, Clone, Debug, Default)]
#[command(
    mut_arg("kernel", |kernel| kernel.required_unless_present("config")),
    mut_arg("memory", |memory| memory.required_unless_present("config")),
)]
pub struct GuestArgs {
    /// Read options from a TOML file, with the same names (docs/reference/config.toml). The command
    /// line overrides the file; devices of both are passed through, and --noiommu in either is
    /// sufficient
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    options: RunOptions,
}

impl GuestArgs {
    /// The run: these options, and what they leave open from the file that they name. `verbose` is how often `-v` is
    /// given on the command line.
    ///
    /// # Errors
    /// [`Error::ConfigFile`]; what [`RunOptions::complete`] refuses.
    pub fn into_config(self, verbose: u8) -> Result<RunConfig, Error> {
        let file = match &self.config {
            Some(path) => RunOptions::read(path)?,
            None => RunOptions::default(),
        };
        let options = RunOptions {
            verbose: (verbose > 0).then_some(verbose),
            ..self.options
        };
        options.or(file).complete()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::{CommandFactory, Parser};
    use vmm::config::{BackendChoice, ConfineConfig, OnReset, Seccomp, SerialConfig, UserName};

    use super::super::{Cli, Command};
    use super::*;

    fn run(arguments: &[&str]) -> Result<RunConfig, Error> {
        let words = ["pinvisor", "run"].iter().chain(arguments);
        let cli = Cli::try_parse_from(words).unwrap();
        let Command::Run(args) = cli.command else {
            panic!("{:?}", cli.command);
        };
        args.guest.into_config(cli.verbose)
    }

    #[test]
    fn a_file_has_a_key_for_every_option_and_no_other() {
        let cli = Cli::command();
        let run = cli.find_subcommand("run").unwrap();
        let mut options: Vec<_> = run
            .get_arguments()
            .chain(cli.get_arguments())
            .filter_map(clap::Arg::get_long)
            .filter(|name| !["config", "handover", "help", "version"].contains(name))
            .collect();
        options.sort_unstable();
        options.dedup();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"no-key = 1").unwrap();
        let error = RunOptions::read(file.path()).unwrap_err().to_string();
        let (_, known) = error.split_once("expected one of ").unwrap();
        let mut known: Vec<_> = known.split(", ").map(|key| key.trim_matches('`')).collect();
        known.sort_unstable();
        assert_eq!(options, known);
    }

    #[test]
    fn a_handover_comes_through_a_descriptor_or_a_socket() {
        let source = |text: &str| text.parse::<HandoverSource>().ok();
        assert_eq!(source("fd=7"), Some(HandoverSource::Descriptor(7)));
        let socket = HandoverSource::Socket("/run/a=b".into());
        assert_eq!(source("socket=/run/a=b"), Some(socket));
        for text in [
            "",
            "7",
            "fd=",
            "fd=-1",
            "fd=x",
            "fd=99999999999",
            "socket=",
            "pipe=x",
        ] {
            assert_eq!(source(text), None, "{text}");
        }
        let open = |number, host: &HostConfig| {
            let opened = HandoverSource::Descriptor(number).open(host);
            opened.map(drop).map_err(|error| error.to_string())
        };
        let host = HostConfig::default();
        for (number, text) in [
            (1, "descriptor 1 is standard input, output or error"),
            (4095, "descriptor 4095 is not open"),
            (u32::MAX, "descriptor 4294967295 does not exist"),
        ] {
            assert!(open(number, &host).unwrap_err().contains(text));
        }
        let with_events = HostConfig {
            event_fd: Some(7),
            ..HostConfig::default()
        };
        assert!(open(7, &with_events).unwrap_err().contains("--event-fd 7"));
    }

    #[test]
    fn a_full_command_line_becomes_a_config() {
        let config = run(&[
            "--kernel",
            "bzImage",
            "--initramfs",
            "initramfs",
            "--cmdline",
            "quiet",
            "--memory",
            "1G,hugepage_size=1G",
            "--cpus",
            "boot=4",
            "--device",
            "01:00.0",
            "--device",
            "0000:02:00.0",
            "--noiommu",
            "--backend",
            "group",
            "--serial",
            "file=out",
            "--log-file",
            "log",
            "--event-file",
            "events",
            "--event-fd",
            "7",
            "--pidfile",
            "pid",
            "--on-reset",
            "restart",
            "--seccomp",
            "log",
            "--jail-user",
            "1000:2000",
            "--jail-root",
            "/var/empty",
            "-v",
        ])
        .unwrap();
        assert_eq!(config.guest.devices.len(), 2);
        assert_eq!(config.guest.cpus.get(), 4);
        assert_eq!(config.guest.serial, SerialConfig::File("out".into()));
        assert_eq!(config.guest.command_line, "quiet");
        assert!(config.guest.noiommu);
        assert_eq!(config.guest.backend, BackendChoice::Group);
        let host = HostConfig {
            verbose: 1,
            log_file: Some("log".into()),
            event_file: Some("events".into()),
            event_fd: Some(7),
            pidfile: Some("pid".into()),
            on_reset: OnReset::Restart,
            confine: ConfineConfig {
                seccomp: Seccomp::Log,
                user: Some(UserName::Number(1000, Some(2000))),
                root: Some("/var/empty".into()),
            },
        };
        assert_eq!(config.host, host);
    }

    #[test]
    fn the_command_line_overrides_the_file_and_adds_devices() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(
            b"kernel = 'a'\nmemory = '64M'\ncpus = 2\ndevice = ['01:00.0']\nverbose = 2\n\
              cmdline = 'from the file'\nserial = 'off'\nnoiommu = true\nbackend = 'cdev'\n",
        )
        .unwrap();
        let path = file.path().to_str().unwrap();
        let config = run(&["--config", path]).unwrap();
        assert_eq!(config.guest.cpus.get(), 2);
        assert_eq!(config.guest.command_line, "from the file");
        assert_eq!(config.host.verbose, 2);
        assert_eq!(config.guest.backend, BackendChoice::Cdev);
        let overridden = run(&[
            "--config",
            path,
            "--kernel",
            "b",
            "--memory",
            "32M",
            "--cpus",
            "3",
            "--device",
            "02:00.0",
            "--cmdline",
            "",
            "--serial",
            "stdio",
            "--backend",
            "auto",
            "-v",
        ])
        .unwrap();
        assert_eq!(overridden.guest.kernel, PathBuf::from("b"));
        assert_eq!(overridden.guest.memory.size, 32 << 20);
        assert_eq!(overridden.guest.cpus.get(), 3);
        assert_eq!(overridden.guest.command_line, "");
        assert_eq!(overridden.guest.serial, SerialConfig::Stdio);
        assert_eq!(overridden.host.verbose, 1);
        assert_eq!(overridden.guest.backend, BackendChoice::Auto);
        let names: Vec<_> = overridden
            .guest
            .devices
            .iter()
            .map(|device| device.bdf.to_string())
            .collect();
        assert_eq!(names, ["0000:01:00.0", "0000:02:00.0"]);
        assert!(overridden.guest.noiommu);
    }

    #[test]
    fn what_neither_names_is_missing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        for (given, missing) in [(&[][..], "--kernel"), (&["--kernel", "k"], "--memory")] {
            let error = run(&[&["--config", path], given].concat()).unwrap_err();
            assert!(error.to_string().contains(missing), "{error}");
            assert_eq!(error.exit_code(), vmm::ExitCode::Usage);
        }
        let ordinary = run(&["--config", path, "--kernel", "k", "--memory", "64M"]).unwrap();
        assert!(ordinary.guest.devices.is_empty());
        let without = Cli::try_parse_from(["pinvisor", "run", "--memory", "1G"]).unwrap_err();
        assert!(without.to_string().contains("--kernel"), "{without}");
    }
}
