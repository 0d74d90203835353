//! The host's side of a passed-through function, made of its VFIO device and of KVM.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use address::{Gpa, Hpa};
use devices::vfio_pci::{
    HostError, HostFunction, HostInfo, InterruptKind, MsiMessage, Region, RegionInfo,
};
use iommufd_backend::{CdevKind, IrqIndex, PciSysfs, VfioDevice};
use vmm_sys_util::eventfd::EventFd;

use crate::eventfd;
use crate::kvm::irq::{Interrupts, IrqError};
use crate::kvm::vm::{Memslot, Vm, VmError};

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
    #[error("Cannot make an eventfd")]
    EventFd(#[source] io::Error),
    /// The caller asked for something that is not there.
    #[error("There is no {0}")]
    Absent(&'static str),
}

impl From<PassthroughError> for HostError {
    fn from(error: PassthroughError) -> Self {
        Self(Box::new(error))
    }
}

/// Reads the fixed facts about `device`.
///
/// # Errors
/// [`iommufd_backend::Error`]
pub fn host_info(
    device: &VfioDevice,
    sysfs: &PciSysfs,
) -> Result<HostInfo, iommufd_backend::Error> {
    let addresses = sysfs.memory_regions(device.bdf())?;
    let region = |index: u32| {
        let region = device.region(index).cloned().unwrap_or_default();
        RegionInfo {
            size: region.size,
            host_address: addresses.get(index as usize).copied().flatten(),
            mappable: region.mappable,
        }
    };
    let vectors = |index| {
        device
            .irq_count(index)
            .map(|count| u16::try_from(count).unwrap_or(u16::MAX))
    };
    let msi = vectors(IrqIndex::Msi)?;
    Ok(HostInfo {
        name: device.bdf().to_string(),
        bars: [0, 1, 2, 3, 4, 5].map(region),
        rom: region(ROM),
        config_size: device.config_size(),
        intx_vectors: vectors(IrqIndex::Intx)?,
        // Without interrupt remapping x86 hosts cannot give a device a block of vectors.
        msi_vectors: match device.kind() {
            CdevKind::Noiommu => msi.min(1),
            CdevKind::Iommu => msi,
        },
        msix_vectors: vectors(IrqIndex::Msix)?,
        msix_grows: device.irq_info(IrqIndex::Msix)?.grows,
        resettable: device.is_resettable(),
    })
}

/// A VFIO device whose BARs and interrupts reach one VM.
#[derive(Debug)]
pub struct VfioFunction {
    // Before `device`: what is mapped and raised goes before the device does.
    slots: BTreeMap<(u8, u64), Memslot>,
    active: Active,
    device: Arc<VfioDevice>,
    info: HostInfo,
    vm: Arc<Vm>,
    interrupts: Arc<Interrupts>,
    intx_gsi: u32,
}

/// The kind of interrupt that is on.
#[derive(Debug)]
enum Active {
    None,
    Intx {
        event: EventFd,
        /// Kept open: KVM signals it, the device listens.
        _resample: EventFd,
    },
    Messages {
        index: IrqIndex,
        vectors: Vec<Vector>,
    },
}

/// One message-signalled interrupt.
#[derive(Debug)]
struct Vector {
    event: EventFd,
    route: Option<Route>,
    attached: bool,
}

#[derive(Clone, Copy, Debug)]
struct Route {
    gsi: u32,
    message: MsiMessage,
}

impl VfioFunction {
    /// Brings `device` and `vm` together; INTx will raise `intx_gsi`.
    #[must_use]
    pub fn new(
        device: Arc<VfioDevice>,
        info: HostInfo,
        vm: Arc<Vm>,
        interrupts: Arc<Interrupts>,
        intx_gsi: u32,
    ) -> Self {
        Self {
            slots: BTreeMap::new(),
            active: Active::None,
            device,
            info,
            vm,
            interrupts,
            intx_gsi,
        }
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

    fn enable_intx(&mut self) -> Result<(), PassthroughError> {
        let event = event_fd()?;
        let resample = event_fd()?;
        self.interrupts
            .attach_level(&event, &resample, self.intx_gsi)?;
        if let Err(error) = self.raise_intx(&event, &resample) {
            self.detach(&event, self.intx_gsi);
            return Err(error.into());
        }
        self.active = Active::Intx {
            event,
            _resample: resample,
        };
        Ok(())
    }

    /// Lets the device raise `event`, until `resample` says that the guest has seen it. Both or nothing: messages
    /// are refused while a device has INTx.
    fn raise_intx(
        &self,
        event: &EventFd,
        resample: &EventFd,
    ) -> Result<(), iommufd_backend::Error> {
        self.device
            .irq_enable(IrqIndex::Intx, 0, &[Some(eventfd::borrow(event))])?;
        self.device
            .intx_unmask_by(eventfd::borrow(resample))
            .inspect_err(|_| {
                if let Err(error) = self.device.irq_disable(IrqIndex::Intx) {
                    log::warn!("{}: {error}", self.info.name);
                }
            })
    }

    fn enable_messages(&mut self, index: IrqIndex, count: u16) -> Result<(), PassthroughError> {
        let have = match &self.active {
            Active::Messages { index: on, vectors } if *on == index => vectors.len(),
            _ => 0,
        };
        let more = usize::from(count).saturating_sub(have);
        let added = (0..more)
            .map(|_| {
                Ok(Vector {
                    event: event_fd()?,
                    route: None,
                    attached: false,
                })
            })
            .collect::<Result<Vec<_>, PassthroughError>>()?;
        let fds: Vec<_> = added
            .iter()
            .map(|vector| Some(eventfd::borrow(&vector.event)))
            .collect();
        let start = u32::try_from(have).unwrap_or(u32::MAX);
        self.device.irq_enable(index, start, &fds)?;
        match &mut self.active {
            Active::Messages { vectors, .. } => vectors.extend(added),
            active => {
                *active = Active::Messages {
                    index,
                    vectors: added,
                };
            }
        }
        Ok(())
    }

    fn disable(&mut self) -> Result<(), PassthroughError> {
        // The device first, so that nothing is raised any more.
        match &self.active {
            Active::None => return Ok(()),
            Active::Intx { .. } => self.device.irq_disable(IrqIndex::Intx)?,
            Active::Messages { index, .. } => self.device.irq_disable(*index)?,
        }
        match std::mem::replace(&mut self.active, Active::None) {
            Active::None => {}
            Active::Intx { event, .. } => self.detach(&event, self.intx_gsi),
            Active::Messages { vectors, .. } => {
                for vector in vectors {
                    let Some(Route { gsi, .. }) = vector.route else {
                        continue;
                    };
                    if vector.attached {
                        self.detach(&vector.event, gsi);
                    }
                    self.interrupts.release(gsi);
                }
            }
        }
        Ok(())
    }

    /// Lets go of an eventfd that nothing signals any more; KVM would do so when it is closed.
    fn detach(&self, event: &EventFd, gsi: u32) {
        if let Err(error) = self.interrupts.detach(event, gsi) {
            log::warn!("{}: {error}", self.info.name);
        }
    }

    fn vector(active: &mut Active, vector: u16) -> Result<&mut Vector, PassthroughError> {
        match active {
            Active::Messages { vectors, .. } => vectors.get_mut(usize::from(vector)),
            _ => None,
        }
        .ok_or(PassthroughError::Absent("interrupt vector of that number"))
    }

    fn connect_vector(&mut self, vector: u16, message: MsiMessage) -> Result<(), PassthroughError> {
        let interrupts = &self.interrupts;
        let vector = Self::vector(&mut self.active, vector)?;
        let gsi = match vector.route {
            Some(route) => route.gsi,
            None => interrupts.allocate()?,
        };
        if vector.route.is_none_or(|route| route.message != message) {
            if let Err(error) = interrupts.route(gsi, message.address, message.data) {
                if vector.route.is_none() {
                    interrupts.release(gsi);
                }
                return Err(error.into());
            }
            vector.route = Some(Route { gsi, message });
        }
        if !vector.attached {
            interrupts.attach(&vector.event, gsi)?;
            vector.attached = true;
        }
        Ok(())
    }

    fn disconnect_vector(&mut self, vector: u16) -> Result<(), PassthroughError> {
        let vector = Self::vector(&mut self.active, vector)?;
        if let (true, Some(route)) = (vector.attached, vector.route) {
            self.interrupts.detach(&vector.event, route.gsi)?;
            vector.attached = false;
        }
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

    fn enable_interrupts(&mut self, kind: InterruptKind, vectors: u16) -> Result<(), HostError> {
        Ok(match kind {
            InterruptKind::Intx => self.enable_intx(),
            InterruptKind::Msi => self.enable_messages(IrqIndex::Msi, vectors),
            InterruptKind::Msix => self.enable_messages(IrqIndex::Msix, vectors),
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

    fn pending(&mut self, vector: u16) -> bool {
        let Ok(vector) = Self::vector(&mut self.active, vector) else {
            return false;
        };
        // Reading takes the count, so it is put back; the device may add to it meanwhile.
        !vector.attached
            && vector.event.read().is_ok_and(|count| {
                if let Err(error) = vector.event.write(count) {
                    log::error!("{}: an interrupt is lost: {error}", self.info.name);
                }
                true
            })
    }

    fn reset(&mut self) -> Result<(), HostError> {
        Ok(self.device.reset().map_err(PassthroughError::from)?)
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

fn event_fd() -> Result<EventFd, PassthroughError> {
    eventfd::new().map_err(PassthroughError::EventFd)
}
