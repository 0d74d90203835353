// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's side of a passed-through function, with its VFIO device and KVM.

pub(crate) mod assigned;
pub(crate) mod dma_path;
mod facts;
pub(crate) mod guarded;
pub(crate) mod inspected;
mod interrupts;
pub(crate) mod kernel_path;
pub(crate) mod profile;
mod served;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use address::{Gpa, Hpa};
use devices::vfio_pci::{HostError, HostFunction, HostInfo, InterruptKind, MsiMessage, Region};
use iommufd_backend::{ResetMethod, VfioDevice};

use self::assigned::AssignedDevice;
use self::interrupts::{Active, OwnEvents};
use crate::kvm::irq::{Interrupts, IrqError};
use crate::kvm::vm::{Memslot, Vm, VmError};

pub(crate) use self::facts::host_infos;

/// VFIO's number of the expansion ROM.
const ROM: u32 = 6;

/// Failure of the host's side.
#[derive(Debug, thiserror::Error)]
pub enum PassthroughError {
    /// The device.
    #[error(transparent)]
    Device(#[from] iommufd_backend::Error),
    /// KVM, about memory.
    #[error(transparent)]
    Memory(#[from] VmError),
    /// KVM, about interrupts.
    #[error(transparent)]
    Interrupt(#[from] IrqError),
    /// No eventfd could be made.
    #[error("Cannot create an eventfd")]
    EventFd(#[source] io::Error),
    /// The caller asked for something that is not there.
    #[error("No {0}")]
    Absent(&'static str),
}

impl From<PassthroughError> for HostError {
    fn from(error: PassthroughError) -> Self {
        Self(Box::new(error))
    }
}

/// A VFIO device whose BARs and interrupts reach one VM.
#[derive(Debug)]
pub struct VfioFunction {
    // Before `device`: what is mapped and raised goes before the device does.
    slots: BTreeMap<(u8, u64), Memslot>,
    active: Active,
    events: OwnEvents,
    device: Arc<VfioDevice>,
    info: HostInfo,
    reset: ResetMethod,
    vm: Arc<Vm>,
    interrupts: Arc<Interrupts>,
    intx_gsi: u32,
    /// Its requester id in the guest.
    requester: u16,
}

impl VfioFunction {
    /// Brings the device of `assigned` and `vm` together; INTx will raise `intx_gsi`.
    ///
    /// # Errors
    /// The errno of `eventfd`.
    pub fn new(
        assigned: &AssignedDevice,
        vm: Arc<Vm>,
        interrupts: Arc<Interrupts>,
        intx_gsi: u32,
    ) -> io::Result<Self> {
        Ok(Self {
            slots: BTreeMap::new(),
            active: Active::None,
            events: OwnEvents::new()?,
            device: Arc::clone(&assigned.device),
            info: assigned.info.clone(),
            reset: assigned.reset.clone(),
            vm,
            interrupts,
            intx_gsi,
            requester: assigned.slot.requester_id(),
        })
    }

    fn map_area(&mut self, bar: u8, area: &Range<u64>, gpa: Gpa) -> Result<(), PassthroughError> {
        let host = self
            .info
            .bars
            .get(usize::from(bar))
            .and_then(|region| region.host_address)
            .ok_or(PassthroughError::Absent("memory BAR of that number"))?;
        let physical = Hpa(host.0.saturating_add(area.start));
        let mapping = self.device.map_region(bar.into(), area, physical)?;
        let slot = self.vm.map(gpa, Arc::new(mapping))?;
        self.slots.insert((bar, area.start), slot);
        Ok(())
    }
}

impl HostFunction for VfioFunction {
    fn info(&self) -> &HostInfo {
        &self.info
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        Ok(self
            .device
            .config_read(offset, data)
            .map_err(PassthroughError::from)?)
    }

    fn config_read_all(&mut self, data: &mut [u8]) -> Result<(), HostError> {
        // VFIO takes a read of any length apart (drivers/vfio/pci/vfio_pci_config.c vfio_pci_config_rw).
        self.config_read(0, data)
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        Ok(self
            .device
            .config_write(offset, data)
            .map_err(PassthroughError::from)?)
    }

    fn region_read(
        &mut self,
        region: Region,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), HostError> {
        let read = self.device.region_read(number(region), offset, data);
        Ok(read.map_err(PassthroughError::from)?)
    }

    fn region_write(&mut self, region: Region, offset: u64, data: &[u8]) -> Result<(), HostError> {
        let written = self.device.region_write(number(region), offset, data);
        Ok(written.map_err(PassthroughError::from)?)
    }

    fn region_read_all(
        &mut self,
        region: Region,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), HostError> {
        // VFIO takes it apart (drivers/vfio/pci/vfio_pci_rdwr.c vfio_pci_core_do_io_rw).
        self.region_read(region, offset, data)
    }

    fn region_write_all(
        &mut self,
        region: Region,
        offset: u64,
        data: &[u8],
    ) -> Result<(), HostError> {
        self.region_write(region, offset, data)
    }

    fn map(&mut self, bar: u8, area: Range<u64>, gpa: Gpa) -> Result<(), HostError> {
        Ok(self.map_area(bar, &area, gpa)?)
    }

    fn unmap(&mut self, bar: u8, area: Range<u64>) -> Result<(), HostError> {
        let key = (bar, area.start);
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.delete().map_err(PassthroughError::from)?;
            self.slots.remove(&key);
        }
        Ok(())
    }

    fn enable_interrupts(&mut self, kind: InterruptKind, vectors: u16) -> Result<u16, HostError> {
        Ok(match kind.is_message() {
            true => self.enable_messages(kind, vectors),
            false => self.enable_intx().map(|()| 1),
        }?)
    }

    fn disable_interrupts(&mut self) -> Result<(), HostError> {
        Ok(self.disable()?)
    }

    fn connect(&mut self, vector: u16, message: MsiMessage) -> Result<(), HostError> {
        Ok(self.connect_vector(vector, message)?)
    }

    fn disconnect(&mut self, vector: u16) -> Result<(), HostError> {
        Ok(self.disconnect_vector(vector)?)
    }

    fn restore_vectors(&mut self) -> Result<(), HostError> {
        Ok(self.set_vectors_again()?)
    }

    fn pending(&mut self, vector: u16) -> bool {
        self.is_pending(vector)
    }

    fn reset(&mut self) -> Result<(), HostError> {
        let reset = self.reset.reset_for_guest(&*self.device);
        Ok(reset.map_err(PassthroughError::from)?)
    }
}

impl Drop for VfioFunction {
    fn drop(&mut self) {
        if let Err(error) = self.disable() {
            log::warn!("{}: {error}", self.info.name);
        }
    }
}

fn number(region: Region) -> u32 {
    match region {
        Region::Bar(index) => index.into(),
        Region::Rom => ROM,
    }
}
