//! The ways to reset a PCI function.

use address::Bdf;

use crate::device::{VfioDevice, retried};
use crate::error::Error;
use crate::sys;

/// How a device can be reset by its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetMethod {
    /// By itself: device-specific, FLR, power management, or the bus if it is alone on it.
    Function,
    /// Only together with all functions on its bus, which are all bound to the same
    /// `/dev/iommu`.
    Bus(Vec<Bdf>),
    /// Not at all. A reset of its bus would hit `others`, which are not bound here; without any,
    /// its bus has no reset either.
    None {
        /// Functions that stand in the way.
        others: Vec<Bdf>,
    },
}

/// A function that a reset of a device's bus would reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Affected {
    /// The function.
    pub(crate) bdf: Bdf,
    /// Whether it is bound to the same `/dev/iommu`.
    pub(crate) owned: bool,
}

impl VfioDevice {
    /// How the device can be reset. All devices that share its bus must be bound by now.
    ///
    /// # Errors
    /// [`Error::Device`]
    pub fn reset_method(&self) -> Result<ResetMethod, Error> {
        if self.is_resettable() {
            return Ok(ResetMethod::Function);
        }
        let affected = match sys::hot_reset_info(self.fd()) {
            Ok(affected) => affected,
            // Its bus has no reset: it is a root bus.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
            Err(source) => return Err(self.failed("ask for the reset of its bus", source)),
        };
        let (owned, others): (Vec<_>, Vec<_>) =
            affected.iter().partition(|function| function.owned);
        let names = |list: Vec<&Affected>| list.iter().map(|function| function.bdf).collect();
        Ok(if others.is_empty() && !owned.is_empty() {
            ResetMethod::Bus(names(owned))
        } else {
            ResetMethod::None {
                others: names(others),
            }
        })
    }

    /// Resets the function (`VFIO_DEVICE_RESET`). Config space comes back as it was, bus
    /// mastering included.
    ///
    /// # Errors
    /// [`Error::Device`], with `EINVAL` where the function has no reset of its own.
    pub fn reset(&self) -> Result<(), Error> {
        retried(|| sys::reset(self.fd()))
            .map(drop)
            .map_err(|source| self.failed("reset it", source))
    }

    /// Resets all functions on the device's bus (`VFIO_DEVICE_PCI_HOT_RESET`). Their config
    /// space comes back as it was, bus mastering included.
    ///
    /// # Errors
    /// [`Error::Device`], with `EINVAL` unless [`reset_method`](Self::reset_method) says
    /// [`ResetMethod::Bus`].
    pub fn reset_bus(&self) -> Result<(), Error> {
        retried(|| sys::hot_reset(self.fd()))
            .map(drop)
            .map_err(|source| self.failed("reset its bus", source))
    }
}
