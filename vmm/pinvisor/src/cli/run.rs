//! Options of `pinvisor run`.

use std::path::PathBuf;

use clap::Args;

use super::file;
use super::guest::GuestArgs;
use crate::Error;
use crate::config::{HostConfig, RunConfig};
use vmm::config::{Config, OnReset, SerialConfig};

/// Options of `pinvisor run`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    #[command(flatten)]
    pub(super) guest: GuestArgs,

    #[command(flatten)]
    pub(super) host: HostArgs,
}

/// What a run has besides its guest.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct HostArgs {
    /// Where the guest's serial port goes. pty makes a terminal for others to open and prints its
    /// path; socket=PATH serves one client at a time. A slow reader does not keep the guest
    /// waiting: of what is not read the last MiB is kept [default: stdio]
    #[arg(long, value_name = "stdio|off|file=PATH|pty|socket=PATH")]
    pub serial: Option<SerialConfig>,

    /// Write the log to FILE instead of standard error, with what is done even without -v
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// Add events to FILE, one JSON object on a line (docs/reference/events.md)
    #[arg(long, value_name = "FILE")]
    pub event_file: Option<PathBuf>,

    /// Write events to the open descriptor N
    #[arg(long, value_name = "N")]
    pub event_fd: Option<u32>,

    /// Keep the process ID in FILE while the guest runs. A second run with the same file is
    /// refused; a file that was left behind is taken over
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,

    /// What comes of a guest that restarts: exit ends the run with exit code 7, restart resets the
    /// devices and starts it anew. Linux restarts after a panic, too [default: exit]
    #[arg(long, value_name = "exit|restart")]
    pub on_reset: Option<OnReset>,

    /// As `-v`, from the file; there is a flag for it already.
    #[arg(skip)]
    pub verbose: Option<u8>,
}

impl HostArgs {
    fn or(self, file: Self) -> Self {
        Self {
            serial: self.serial.or(file.serial),
            log_file: self.log_file.or(file.log_file),
            event_file: self.event_file.or(file.event_file),
            event_fd: self.event_fd.or(file.event_fd),
            pidfile: self.pidfile.or(file.pidfile),
            on_reset: self.on_reset.or(file.on_reset),
            verbose: self.verbose.or(file.verbose),
        }
    }
}

impl RunArgs {
    /// The run. `verbose` is how often `-v` stands on the command line.
    ///
    /// # Errors
    /// [`Error::ConfigFile`], [`Error::OptionMissing`]
    pub fn into_config(self, verbose: u8) -> Result<RunConfig, Error> {
        let file = match &self.guest.config {
            Some(path) => file::read(path)?,
            None => Self::default(),
        };
        let mut host = self.host.or(file.host);
        if verbose > 0 {
            host.verbose = Some(verbose);
        }
        let guest = Config {
            serial: host.serial.unwrap_or_default(),
            ..self.guest.or(file.guest).complete()?
        };
        Ok(RunConfig {
            guest,
            host: HostConfig {
                verbose: host.verbose.unwrap_or_default(),
                log_file: host.log_file,
                event_file: host.event_file,
                event_fd: host.event_fd,
                pidfile: host.pidfile,
                on_reset: host.on_reset.unwrap_or_default(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn run(arguments: &[&str]) -> Result<RunConfig, Error> {
        let words = ["pinvisor", "run"].iter().chain(arguments);
        let cli = Cli::try_parse_from(words).unwrap();
        let Command::Run(args) = cli.command else {
            panic!("{:?}", cli.command);
        };
        args.into_config(cli.verbose)
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
            "-v",
        ])
        .unwrap();
        assert_eq!(config.guest.devices.len(), 2);
        assert_eq!(config.guest.cpus.get(), 4);
        assert_eq!(config.guest.serial, SerialConfig::File("out".into()));
        assert_eq!(config.guest.command_line, "quiet");
        assert!(config.guest.noiommu);
        let host = HostConfig {
            verbose: 1,
            log_file: Some("log".into()),
            event_file: Some("events".into()),
            event_fd: Some(7),
            pidfile: Some("pid".into()),
            on_reset: OnReset::Restart,
        };
        assert_eq!(config.host, host);
    }

    #[test]
    fn the_command_line_overrides_the_file_and_adds_devices() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(
            b"kernel = 'a'\nmemory = '64M'\ncpus = 2\ndevice = ['01:00.0']\nverbose = 2\n\
              cmdline = 'from the file'\nserial = 'off'\nnoiommu = true\n",
        )
        .unwrap();
        let path = file.path().to_str().unwrap();
        let config = run(&["--config", path]).unwrap();
        assert_eq!(config.guest.cpus.get(), 2);
        assert_eq!(config.guest.command_line, "from the file");
        assert_eq!(config.host.verbose, 2);
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
            "-v",
        ])
        .unwrap();
        assert_eq!(overridden.guest.kernel, PathBuf::from("b"));
        assert_eq!(overridden.guest.memory.size, 32 << 20);
        assert_eq!(overridden.guest.cpus.get(), 3);
        assert_eq!(overridden.guest.command_line, "");
        assert_eq!(overridden.guest.serial, SerialConfig::Stdio);
        assert_eq!(overridden.host.verbose, 1);
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
        for (given, missing) in [
            (&[][..], "--device"),
            (&["--device", "01:00.0"][..], "--kernel"),
            (&["--device", "01:00.0", "--kernel", "k"], "--memory"),
        ] {
            let error = run(&[&["--config", path], given].concat()).unwrap_err();
            assert!(error.to_string().contains(missing), "{error}");
            assert_eq!(error.exit_code(), 1);
        }
        let without = Cli::try_parse_from(["pinvisor", "run", "--memory", "1G"]).unwrap_err();
        assert!(without.to_string().contains("--kernel"), "{without}");
    }
}
