// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Wiring a device's interrupts to eventfds (`VFIO_DEVICE_SET_IRQS`).

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use pci_config::InterruptKind;
use vfio_bindings::bindings::vfio;

use crate::device::VfioDevice;
use crate::error::Error;
use crate::operation::Operation;
use crate::sys;

/// What a device can signal, as VFIO numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IrqIndex {
    /// An interrupt of this kind.
    Interrupt(InterruptKind),
    /// An uncorrectable error of the device.
    Error,
    /// The host requests the device back.
    Request,
}

impl IrqIndex {
    /// VFIO's number.
    fn number(self) -> u32 {
        match self {
            Self::Interrupt(InterruptKind::Intx) => vfio::VFIO_PCI_INTX_IRQ_INDEX,
            Self::Interrupt(InterruptKind::Msi) => vfio::VFIO_PCI_MSI_IRQ_INDEX,
            Self::Interrupt(InterruptKind::Msix) => vfio::VFIO_PCI_MSIX_IRQ_INDEX,
            Self::Error => vfio::VFIO_PCI_ERR_IRQ_INDEX,
            Self::Request => vfio::VFIO_PCI_REQ_IRQ_INDEX,
        }
    }
}

impl From<InterruptKind> for IrqIndex {
    fn from(kind: InterruptKind) -> Self {
        Self::Interrupt(kind)
    }
}

impl fmt::Display for IrqIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt(kind) => kind.name(),
            Self::Error => "error",
            Self::Request => "request",
        })
    }
}

/// What VFIO reports about a kind of interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IrqInfo {
    /// Interrupts of the kind that the device has, by its config space; whether the host can serve
    /// them is another matter.
    pub count: u32,
    /// Whether interrupts can be added while the kind is on (no `VFIO_IRQ_INFO_NORESIZE`).
    pub grows: bool,
}

impl VfioDevice {
    /// The interrupts of kind `index` that the device has; none if it does not support the kind.
    ///
    /// # Errors
    /// [`Error::Device`]
    pub fn irq_info(&self, index: impl Into<IrqIndex>) -> Result<IrqInfo, Error> {
        let mut info = vfio::vfio_irq_info {
            index: index.into().number(),
            ..Default::default()
        };
        match sys::irq_info(self.fd(), &mut info) {
            Ok(_) => Ok(IrqInfo {
                count: info.count,
                grows: info.flags & vfio::VFIO_IRQ_INFO_NORESIZE == 0,
            }),
            // The device has none of this kind.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(IrqInfo::default()),
            Err(source) => Err(self.failed(Operation::DescribeInterrupts, source)),
        }
    }

    /// How many interrupts of kind `index` the device has; 0 where it has none.
    ///
    /// # Errors
    /// [`Error::Device`]
    pub fn irq_count(&self, index: impl Into<IrqIndex>) -> Result<u32, Error> {
        Ok(self.irq_info(index)?.count)
    }

    /// Makes interrupts `start..` of kind `index` signal `eventfds`, and turns the kind on.
    /// `None` leaves an interrupt without a signal.
    ///
    /// # Errors
    /// [`Error::Device`]; [`Error::DeviceUnusable`] where the host can serve fewer MSI vectors
    /// (x86 without interrupt remapping: one).
    pub fn irq_enable(
        &self,
        index: impl Into<IrqIndex>,
        start: u32,
        eventfds: &[Option<BorrowedFd<'_>>],
    ) -> Result<(), Error> {
        self.set_eventfds(
            vfio::VFIO_IRQ_SET_ACTION_TRIGGER,
            index.into(),
            start,
            eventfds,
        )
    }

    /// Makes `eventfd`, when signalled, unmask the INTx line, which the kernel masks each time
    /// that it fires.
    ///
    /// # Errors
    /// [`Error::Device`]
    pub fn intx_unmask_by(&self, eventfd: BorrowedFd<'_>) -> Result<(), Error> {
        let unmask = vfio::VFIO_IRQ_SET_ACTION_UNMASK;
        self.set_eventfds(unmask, InterruptKind::Intx.into(), 0, &[Some(eventfd)])
    }

    /// Turns interrupts of kind `index` off.
    ///
    /// # Errors
    /// [`Error::Device`]
    pub fn irq_disable(&self, index: impl Into<IrqIndex>) -> Result<(), Error> {
        let header = vfio::vfio_irq_set {
            flags: vfio::VFIO_IRQ_SET_DATA_NONE | vfio::VFIO_IRQ_SET_ACTION_TRIGGER,
            index: index.into().number(),
            ..Default::default()
        };
        sys::set_irqs(self.fd(), &header, None)
            .map(drop)
            .map_err(|source| self.failed(Operation::DisableInterrupts, source))
    }

    fn set_eventfds(
        &self,
        action: u32,
        index: IrqIndex,
        start: u32,
        eventfds: &[Option<BorrowedFd<'_>>],
    ) -> Result<(), Error> {
        let fds: Vec<i32> = eventfds
            .iter()
            .map(|fd| fd.map_or(-1, |fd| fd.as_raw_fd()))
            .collect();
        // A device has at most 2048 vectors.
        let count = u32::try_from(fds.len()).unwrap_or(u32::MAX);
        let header = vfio::vfio_irq_set {
            flags: vfio::VFIO_IRQ_SET_DATA_EVENTFD | action,
            index: index.number(),
            start,
            count,
            ..Default::default()
        };
        let possible = sys::set_irqs(self.fd(), &header, Some(&fds))
            .map_err(|source| self.failed(Operation::EnableInterrupts, source))?;
        if possible != 0 {
            return Err(Error::DeviceUnusable {
                bdf: self.bdf(),
                reason: format!(
                    "the host can serve {possible} {index} interrupts, not {}",
                    start.saturating_add(count)
                ),
            });
        }
        Ok(())
    }
}
