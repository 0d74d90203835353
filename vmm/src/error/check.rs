//! Which line of `pinvisor check` says more about an error.

use host_check::Id;

use super::Error;
use super::cause::{self, Limits};
use crate::kvm::vm::VmError;

impl Error {
    /// The check that looks for what is missing here, if there is one.
    #[must_use]
    pub fn check(&self) -> Option<Id> {
        self.check_under(Limits::read())
    }

    /// The same where these limits apply.
    pub(super) fn check_under(&self, limits: Limits) -> Option<Id> {
        let errno = cause::errno(self);
        match errno {
            Some(libc::EPERM | libc::ENOSYS) if limits.has_filter() => return Some(Id::Seccomp),
            Some(libc::EMFILE) => return Some(Id::OpenFiles),
            _ => {}
        }
        if let Some(error) = self.owned() {
            return error.check(limits);
        }
        Some(match self {
            Self::Vm(VmError::Open(_) | VmError::Lacks(_)) => Id::Kvm,
            Self::NoEcam(_) => Id::ConfigSpace,
            Self::TooFewFiles { .. } => Id::OpenFiles,
            Self::NoProfile { .. } => Id::DeviceDmaMode,
            _ => return None,
        })
    }
}
