// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor launch`: does what needs privilege, drops all of it, and becomes `pinvisor run --handover`.

mod error;
mod words;

use std::convert::Infallible;
use std::env;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use keeper::PROGRAM;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Resource, Rlimit, setrlimit};
use vmm::config::{OnReset, UserName, ValidConfig};
use vmm::confine::{User, drop_privileges};
use vmm::{HandedOver, Prepared};

use crate::config::HostConfig;
use crate::error::Error;
pub use error::LaunchError;

/// Whether a run that `host` describes can start from a handover.
///
/// # Errors
/// [`Error::Launch`]
pub fn check(host: &HostConfig) -> Result<(), Error> {
    let has_jail = host.confine.user.is_some() || host.confine.root.is_some();
    match host.on_reset {
        OnReset::Restart => Err(LaunchError::Restart.into()),
        OnReset::Exit if has_jail => Err(LaunchError::Jail.into()),
        OnReset::Exit => Ok(()),
    }
}

/// Binds the devices of `config`, pins its memory, and becomes the process that runs the guest: of `user`, if one is
/// named, and without privilege. The words of this process's command line are that one's, too.
///
/// # Errors
/// [`Error`]; everything has been released by then.
pub fn launch(config: &ValidConfig, user: Option<&UserName>) -> Result<Infallible, Error> {
    let user = find(user)?;
    let handed_over = Prepared::new(config)?.to_next_program()?;
    if handed_over.maps_later() {
        lift_limit();
    }
    let failed = drop_privileges(user.as_ref())
        .map_err(LaunchError::from)
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

/// Binds the devices of `config`, pins its memory, and hands both over to the process of `user`, or of this one's, that
/// connects to the socket `path`. A signal ends the wait for it.
///
/// # Errors
/// [`Error`]; everything has been released by then.
pub fn serve(config: &ValidConfig, user: Option<&UserName>, path: &Path) -> Result<(), Error> {
    let user = find(user)?;
    match Prepared::new(config)?.serve(path, user.as_ref())? {
        Some(pid) => log::info!("Handed over to process {pid}"),
        None => log::info!("A signal ends the launcher; everything is released"),
    }
    Ok(())
}

fn find(user: Option<&UserName>) -> Result<Option<User>, LaunchError> {
    Ok(user.map(User::find).transpose()?)
}

/// Lifts the limit on locked memory: what the monitor maps for an IOMMU counts. Without CAP_SYS_RESOURCE the limit stays,
/// and the monitor reports it if it is too low.
fn lift_limit() {
    let limit = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(error) = setrlimit(Resource::Memlock, limit) {
        log::debug!("Cannot lift the limit on locked memory: {error}");
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
    fn a_restart_and_a_jail_take_what_only_the_launcher_can_do() {
        assert!(check(&HostConfig::default()).is_ok());
        let restart = HostConfig {
            on_reset: OnReset::Restart,
            ..HostConfig::default()
        };
        let mut jail = HostConfig::default();
        jail.confine.root = Some("/var/empty".into());
        for host in [restart, jail] {
            let refused = check(&host).unwrap_err();
            assert_eq!(
                (refused.id(), refused.exit_code()),
                ("launch", vmm::ExitCode::Usage)
            );
        }
    }
}
