// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor launch`: does what needs privilege, drops all of it, and becomes `pinvisor run --handover`.

mod error;
mod privileges;
mod user;
mod words;

use std::convert::Infallible;
use std::env;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use vmm::HandedOver;
use vmm::config::{OnReset, ValidConfig};

use crate::config::HostConfig;
use crate::error::Error;
pub use error::LaunchError;
pub use user::UserName;

/// This program, whatever has become of its file.
const PROGRAM: &str = "/proc/self/exe";

/// Whether a run that `host` describes can start from a handover.
///
/// # Errors
/// [`Error::Launch`]
pub fn check(host: &HostConfig) -> Result<(), Error> {
    match host.on_reset {
        OnReset::Restart => Err(LaunchError::Restart.into()),
        OnReset::Exit => Ok(()),
    }
}

/// Binds the devices of `config`, pins its memory, and becomes the process that runs the guest: of `user`, if one is
/// named, and without privilege. The words of this process's command line are that one's, too.
///
/// # Errors
/// [`Error`]; everything has been released by then.
pub fn launch(config: &ValidConfig, user: Option<&UserName>) -> Result<Infallible, Error> {
    let account = user.map(UserName::find).transpose()?;
    let handed_over = HandedOver::prepare(config)?;
    let failed = privileges::drop_all(account.as_ref(), handed_over.maps_later())
        .and_then(|()| execute(&handed_over));
    let Err(error) = failed;
    let error = Error::from(error);
    match handed_over.take_back() {
        Ok(()) => Err(error),
        Err(kept) if kept.keeps_memory() => {
            log::error!("{}", error.chain());
            Err(kept.into())
        }
        Err(other) => {
            log::error!("{}", other.chain());
            Err(error)
        }
    }
}

fn execute(handed_over: &HandedOver) -> Result<Infallible, LaunchError> {
    let failed = |source: io::Error| LaunchError::Execute { source };
    let socket = handed_over.socket();
    fcntl_setfd(socket, FdFlags::empty()).map_err(|errno| failed(errno.into()))?;
    let mut words = env::args_os();
    let name = words.next().unwrap_or_else(|| PROGRAM.into());
    let words = words::of_monitor(words, socket.as_raw_fd());
    Err(failed(Command::new(PROGRAM).arg0(name).args(words).exec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_takes_what_only_the_launcher_can_do() {
        let host = |on_reset| HostConfig {
            on_reset,
            ..HostConfig::default()
        };
        assert!(check(&host(OnReset::Exit)).is_ok());
        let refused = check(&host(OnReset::Restart)).unwrap_err();
        assert_eq!(
            (refused.id(), refused.exit_code()),
            ("launch", vmm::ExitCode::Usage)
        );
    }
}
