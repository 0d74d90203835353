// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options of `pinvisor launch`.

use std::path::PathBuf;

use clap::Args;

use vmm::config::UserName;

use super::GuestArgs;

/// Options of `pinvisor launch`: those of a run, and who the guest is run as.
#[derive(Args, Clone, Debug, Default)]
pub struct LaunchArgs {
    /// The run that is launched.
    #[command(flatten)]
    pub guest: GuestArgs,

    /// Run the guest as this user, with the groups of that user. It must be able to read the guest's files and to open
    /// /dev/kvm [default: the user who launches it]
    #[arg(long, value_name = "NAME|UID[:GID]")]
    pub user: Option<UserName>,

    /// Do not run the guest: wait at this Unix socket for a pinvisor run --handover socket=PATH of that user's, hand
    /// devices and memory over to it, and exit. The socket is there once everything is ready
    #[arg(long, value_name = "PATH")]
    pub serve: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};

    #[test]
    fn a_run_is_launched_by_another_word() {
        let words =
            "pinvisor launch --kernel k --memory 1G --device 01:00.0 --noiommu --user 1000:7";
        let Command::Launch(args) = Cli::parse_from(words.split_whitespace()).command else {
            panic!("not a launch");
        };
        assert_eq!(args.user, Some("1000:7".parse().unwrap()));
        assert_eq!(args.serve, None);
        let config = args.guest.into_config(0).unwrap().guest;
        assert_eq!(config.devices.len(), 1);
        let wrong = Cli::try_parse_from(["pinvisor", "launch", "--user", ""]);
        assert!(wrong.is_err());
    }
}
