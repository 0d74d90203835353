// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Notices of a passed-through device: that it failed, or that the host requests it back.

use std::sync::Arc;

use address::Bdf;
use iommufd_backend::{IrqIndex, VfioDevice};
use vmm_sys_util::eventfd::EventFd;

use crate::error::Error;
use crate::error::explain::process;
use crate::kvm::eventfd;

/// One of the two notices of a device.
#[derive(Debug)]
pub struct DeviceWatch {
    bdf: Bdf,
    notice: IrqIndex,
    event: EventFd,
}

impl DeviceWatch {
    /// Asks for both notices, as far as `device` has them.
    ///
    /// # Errors
    /// [`Error::Backend`], [`Error::Process`]
    pub fn all(device: &Arc<VfioDevice>) -> Result<Vec<Self>, Error> {
        let mut watches = Vec::new();
        for notice in [IrqIndex::Error, IrqIndex::Request] {
            if device.irq_count(notice)? == 0 {
                continue;
            }
            let event = eventfd::new().map_err(process("create an eventfd"))?;
            device.irq_enable(notice, 0, &[Some(eventfd::borrow(&event))])?;
            watches.push(Self {
                bdf: device.bdf(),
                notice,
                event,
            });
        }
        Ok(watches)
    }

    /// The device.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.bdf
    }

    /// Readable once the device has a notice.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &'static str {
        match self.notice {
            IrqIndex::Request => "the host requested it back",
            _ => "it reported an uncorrectable error",
        }
    }
}
