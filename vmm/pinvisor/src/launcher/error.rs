// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a guest is not launched.

use std::io;

use vmm::ExitCode;
use vmm::confine::{ConfineError, NoSuchUser};

/// A launch that does not take place.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// What a restart takes is gone.
    #[error(
        "--on-reset restart is not possible without privilege: the devices of the next guest would have to be opened"
    )]
    Restart,
    /// A jail takes privilege that is gone.
    #[error("--jail-user and --jail-root are not possible without privilege")]
    Jail,
    /// The events would go into the socket.
    #[error("--event-fd {0} names the socket of --handover")]
    SameDescriptor(u32),
    /// No such user.
    #[error("--user {name}: {reason}")]
    User {
        /// As given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Privilege is not dropped.
    #[error("Cannot drop privilege before the guest is run")]
    Privilege(#[from] ConfineError),
    /// The program is not executed.
    #[error("Cannot execute this program again, without privilege")]
    Execute {
        /// Why not.
        source: io::Error,
    },
}

impl From<NoSuchUser> for LaunchError {
    fn from(NoSuchUser { user, reason }: NoSuchUser) -> Self {
        Self::User { name: user, reason }
    }
}

impl LaunchError {
    /// The exit code of a process that ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Restart | Self::Jail | Self::SameDescriptor(_) | Self::User { .. } => {
                ExitCode::Usage
            }
            Self::Privilege(_) | Self::Execute { .. } => ExitCode::Host,
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let text = match self {
            Self::Restart => {
                "omit --on-reset restart, and have what starts pinvisor launch start it again at exit code 7"
            }
            Self::Jail => "name the user with pinvisor launch --user",
            Self::SameDescriptor(_) => "open another descriptor for the events",
            Self::User { .. } => {
                "name a user of /etc/passwd, or numbers: --user UID:GID. It must be able to open /dev/kvm: usermod -aG \
                 kvm USER"
            }
            Self::Privilege(_) => {
                "run as root: --user takes CAP_SETUID and CAP_SETGID; without --user the guest runs as the user who \
                 launches it"
            }
            Self::Execute { .. } => {
                "let the user of --user execute the program (chmod a+x), and mount its file system without noexec"
            }
        };
        text.to_owned()
    }
}
