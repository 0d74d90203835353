//! How a function tells of its troubles: the log, and the monitor when the guest cannot go on.

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
    pub operation: &'static str,
    /// Why.
    pub source: HostError,
}

/// Called when a device fails its guest, once until the function is reset. It runs on a vCPU's
/// thread with the function locked, so it must not call the [`PciRoot`](crate::pci::PciRoot): it
/// passes the news on.
pub type FailureHook = Box<dyn FnMut(DeviceFailure) + Send>;

/// Warnings that a guest can cause are logged so many times between resets.
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
    pub(super) fn fail(&mut self, operation: &'static str, source: HostError) {
        if self.failed {
            log::debug!("{}: {operation}: {source}", self.device);
            return;
        }
        self.failed = true;
        log::error!("{}: {operation}: {source}", self.device);
        (self.hook)(DeviceFailure {
            device: self.device.clone(),
            operation,
            source,
        });
    }

    pub(super) fn reset(&mut self) {
        self.warnings = 0;
        self.failed = false;
    }
}
