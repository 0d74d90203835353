// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a function reports errors: to the log, and to the monitor if the guest cannot continue.

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

use super::host::HostError;

/// A passed-through device no longer does what its guest asked for.
#[derive(Debug, Error)]
#[error("{device}: {operation}: {source}")]
pub struct DeviceFailure {
    /// The device, as [`HostInfo::name`](super::HostInfo::name) has it.
    pub device: String,
    /// What could not be done.
    pub operation: Cow<'static, str>,
    /// Why.
    pub source: HostError,
}

impl DeviceFailure {
    /// The error with its causes, without the device's name.
    #[must_use]
    pub fn reason(&self) -> String {
        format!("{}: {}", self.operation, self.source)
    }
}

/// Called when a device fails its guest, once until the function is reset. It runs on a vCPU's
/// thread with the function locked, so it must not call the [`PciRoot`](crate::pci::PciRoot): it
/// passes the news on.
pub type FailureHook = Box<dyn FnMut(DeviceFailure) + Send>;

/// Warnings that a guest can cause are logged at most this number of times between resets.
const WARNINGS: u32 = 16;

pub(super) struct Reporter {
    device: String,
    hook: FailureHook,
    warnings: u32,
    failed: bool,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter")
            .field("device", &self.device)
            .field("warnings", &self.warnings)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Reporter {
    pub(super) fn new(device: String, hook: FailureHook) -> Self {
        Self {
            device,
            hook,
            warnings: 0,
            failed: false,
        }
    }

    /// Something that the guest can live with.
    pub(super) fn warn(&mut self, message: fmt::Arguments<'_>) {
        self.warnings = self.warnings.saturating_add(1);
        match self.warnings {
            ..=WARNINGS => log::warn!("{}: {message}", self.device),
            _ => log::debug!("{}: {message}", self.device),
        }
    }

    /// Something that the guest cannot live with.
    pub(super) fn fail(&mut self, operation: impl Into<Cow<'static, str>>, source: HostError) {
        let operation = operation.into();
        if self.failed {
            log::debug!("{}: {operation}: {source}", self.device);
            return;
        }
        self.failed = true;
        let failure = DeviceFailure {
            device: self.device.clone(),
            operation,
            source,
        };
        log::error!("{}: {}", failure.device, failure.reason());
        (self.hook)(failure);
    }

    pub(super) fn reset(&mut self) {
        self.warnings = 0;
        self.failed = false;
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, Error)]
    #[error("cannot do it")]
    struct Refused(#[source] io::Error);

    #[test]
    fn a_reason_goes_down_to_the_errno_and_leaves_the_device_out() {
        let errno = io::Error::from_raw_os_error(22);
        let failure = DeviceFailure {
            device: "0000:01:00.0".to_owned(),
            operation: "cannot enable MSI".into(),
            source: HostError(Box::new(Refused(errno))),
        };
        assert_eq!(
            failure.reason(),
            "cannot enable MSI: cannot do it: Invalid argument (os error 22)"
        );
    }
}
