//! Exit codes: whose turn it is to do something about an error.

use super::{Error, ExitCode};

impl Error {
    /// The exit code of a process that ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        if let Some(error) = self.owned() {
            return error.exit_code();
        }
        match self {
            Self::Profile(_) => ExitCode::Usage,
            Self::Vm(_)
            | Self::Irq(_)
            | Self::NoEcam(_)
            | Self::Root(_)
            | Self::Panicked
            | Self::NoWorker
            | Self::TooFewFiles { .. } => ExitCode::Host,
            Self::Function(_)
            | Self::Engine(_)
            | Self::NoProfile { .. }
            | Self::Mediate(_)
            | Self::AccessFailed { .. }
            | Self::DeviceFailed { .. } => ExitCode::Device,
            Self::Window(_) => ExitCode::Memory,
            Self::GuestCrash(_) => ExitCode::Guest,
            Self::GuestStatus(_) => ExitCode::GuestStatus,
            Self::GuestReset => ExitCode::GuestReset,
            _ => unreachable!(),
        }
    }
}
