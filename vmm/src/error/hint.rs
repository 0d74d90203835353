//! What the user can do about an error.

use super::Error;
use super::cause::{self, Limits};
use super::process::MORE_TASKS;
use crate::kvm::vm::VmError;

impl Error {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.hint_under(Limits::read())
    }

    /// The same where these limits apply.
    pub(super) fn hint_under(&self, limits: Limits) -> Option<String> {
        let own = match self.owned() {
            Some(error) => error.hint(limits),
            None => self.own_hint(),
        };
        own.or_else(|| limits.explain(cause::errno(self)?))
    }

    /// What can be done about this kind of error, whatever the limits of this process are.
    fn own_hint(&self) -> Option<String> {
        match self {
            Self::NoProfile { bdf, .. } => Some(format!(
                "describe its registers: --device {bdf},dma=mediate,profile=FILE"
            )),
            Self::Vm(VmError::Open(error)) => Some(
                match error.errno() {
                    libc::ENOENT => {
                        "the CPU's virtualisation must be on in the firmware and the \
                                     kernel needs CONFIG_KVM_INTEL or CONFIG_KVM_AMD"
                    }
                    libc::EACCES => "run as root or join the group kvm",
                    _ => return None,
                }
                .to_owned(),
            ),
            Self::NoEcam(_) => Some(
                "make room below 4 GiB: turn \"Above 4G decoding\" on in the firmware, or take a \
                 device with large BARs out; /proc/iomem shows what is there"
                    .to_owned(),
            ),
            Self::TooFewFiles { need, .. } => Some(host_check::more_open_files(*need)),
            Self::NoWorker => Some(MORE_TASKS.to_owned()),
            Self::GuestReset => Some(
                "Linux restarts after a panic, too: look at what its serial port printed last; \
                 --on-reset restart starts it anew"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
