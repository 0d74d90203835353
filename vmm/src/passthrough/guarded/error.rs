// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why an NVMe controller is not guarded.

use std::io;

use address::Bdf;
use devices::guarded_nvme::SetupError;
use guarded_nvme::controller::AttachError;
use guarded_nvme::device::DeviceError;
use guarded_nvme::registers::LayoutError;
use host::{GuardObstacle, Id};

use crate::error::explain::{ExitCode, Explain, Limits};
use crate::run::threads::ThreadError;

/// A controller that cannot be guarded.
#[derive(Debug, thiserror::Error)]
#[error("PCI device {bdf} cannot be guarded by dma=mediate")]
pub struct GuardError {
    /// The device.
    pub bdf: Bdf,
    /// Why not.
    #[source]
    pub reason: GuardReason,
}

/// Why a controller cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub enum GuardReason {
    /// What it is.
    #[error(transparent)]
    Obstacle(#[from] GuardObstacle),
    /// What its registers say, or that it cannot be stopped.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Its registers cannot be reached.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Its BAR in the guest.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Its function in the guest.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The guest's bus is full.
    #[error("the host's address map has no room for its BAR0 in the guest, {0:#x} bytes")]
    NoRoom(u64),
    /// This process cannot serve it.
    #[error("cannot start its thread")]
    Io(#[from] io::Error),
    /// Its thread does not start, or is not confined.
    #[error("cannot start its thread")]
    Thread(#[from] ThreadError),
}

impl GuardError {
    /// Adds the device to what went wrong.
    pub fn of<E: Into<GuardReason>>(bdf: Bdf) -> impl Fn(E) -> Self {
        move |reason| Self {
            bdf,
            reason: reason.into(),
        }
    }
}

impl Explain for GuardError {
    fn ids() -> Vec<&'static str> {
        vec!["not-guarded"]
    }

    fn id(&self) -> &'static str {
        "not-guarded"
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Device
    }

    fn hint(&self, _: Limits) -> Option<String> {
        let text = match &self.reason {
            GuardReason::Obstacle(obstacle) => obstacle.hint(),
            GuardReason::Attach(AttachError::Unsuitable(_)) => {
                "use dma=identity if you trust the guest; otherwise this device requires an IOMMU"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn check(&self, _: Limits) -> Option<Id> {
        Some(Id::DeviceDmaMode)
    }
}
