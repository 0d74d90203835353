// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The real controller: its VFIO device, as the crate `guarded-nvme` uses it.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use address::{Bdf, Hpa};
use guarded_nvme::device::{Device, DeviceError, Shape, doorbell_offset};
use guarded_nvme::guest::Doorbell;
use guarded_nvme::spec::registers::{CAP, Capabilities, DOORBELLS, VS, Version};
use iommufd_backend::{Registers, ResetMethod, VfioDevice};
use pci_config::InterruptKind;
use pci_config::regs::{COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY};
use vmm_sys_util::eventfd::EventFd;

use super::pages::{Pool, PoolBlock};
use crate::kvm::eventfd;

/// VFIO's number of BAR0.
const BAR0: u32 = 0;
/// What reads give where nothing responds.
const ABSENT: u32 = u32::MAX;

/// What reaches the device. All of it keeps the device's file open.
#[derive(Debug)]
struct Open {
    doorbells: Option<Registers>,
    device: Arc<VfioDevice>,
}

/// The way to the device, which can be cut: a device that cannot be stopped is leaked with its memory by the crate, and
/// must be closed all the same, so that the kernel and the keeper can make it quiet. What is pinned for it is released by
/// evidence alone, even if this process no longer refers to it.
#[derive(Clone, Debug)]
pub struct Link(Arc<Mutex<Option<Open>>>);

impl Link {
    /// A way to `device`.
    pub fn new(device: Arc<VfioDevice>) -> Self {
        let open = Open {
            doorbells: None,
            device,
        };
        Self(Arc::new(Mutex::new(Some(open))))
    }

    /// Turns all interrupts off and cuts the way: from now on nothing responds.
    pub fn cut(&self) {
        let Some(open) = self.open().take() else {
            return;
        };
        if let Err(error) = open.device.irq_disable(InterruptKind::Msix) {
            log::warn!("{}: {error}", open.device.bdf());
        }
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        use_it: impl FnOnce(&mut Open) -> Result<T, iommufd_backend::Error>,
    ) -> Result<T, DeviceError> {
        match self.open().as_mut() {
            Some(open) => use_it(open).map_err(failed),
            None => Err(DeviceError("the device was given up".into())),
        }
    }
}

fn failed(error: impl Error + Send + Sync + 'static) -> DeviceError {
    DeviceError(Box::new(error))
}

/// A controller whose interrupts are on.
#[derive(Debug)]
pub struct NvmeDevice {
    bdf: Bdf,
    link: Link,
    reset: ResetMethod,
    pool: Arc<Pool>,
    /// One for each vector.
    interrupts: Arc<[EventFd]>,
    cap: Capabilities,
}

/// What a [`NvmeDevice`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// The way to the device.
    pub link: Link,
    /// How it is reset.
    pub reset: ResetMethod,
    /// Its memory.
    pub pool: Arc<Pool>,
    /// What it signals, one for each vector.
    pub interrupts: Arc<[EventFd]>,
    /// Where the host has BAR0.
    pub bar: Option<Hpa>,
    /// How many I/O queues will be used.
    pub queues: u16,
}

impl NvmeDevice {
    /// Turns memory decode and interrupts of the device on. It is no bus master.
    ///
    /// # Errors
    /// [`DeviceError`]
    pub fn new(parts: Parts) -> Result<Self, DeviceError> {
        let Parts {
            link,
            reset,
            pool,
            interrupts,
            bar,
            queues,
        } = parts;
        let bdf = link.with(|open| {
            set_command(&open.device, false)?;
            turn_on(&open.device, &interrupts)?;
            Ok(open.device.bdf())
        })?;
        let mut device = Self {
            bdf,
            link,
            reset,
            pool,
            interrupts,
            cap: Capabilities(0),
        };
        let [low, high] = [CAP, CAP + 4].map(|register| u64::from(device.read(register)));
        device.cap = Capabilities(low | high << 32);
        device.map_doorbells(bar, queues)?;
        Ok(device)
    }

    /// Maps the doorbells, so that writing one takes no system call. Without a mapping they are written through VFIO.
    fn map_doorbells(&self, bar: Option<Hpa>, queues: u16) -> Result<(), DeviceError> {
        let end = doorbell_offset(self.cap, Doorbell::head(queues)) + 4;
        let range = u64::from(DOORBELLS)..end;
        self.link.with(|open| {
            let physical = bar.unwrap_or(Hpa(0));
            open.doorbells = Registers::map(&open.device, BAR0, &range, physical)?;
            if open.doorbells.is_none() {
                log::info!("{}: doorbells cannot be mapped", open.device.bdf());
            }
            Ok(())
        })
    }

    fn try_write(&self, offset: u64, value: u32) -> Result<(), DeviceError> {
        self.link.with(|open| {
            let data = value.to_le_bytes();
            open.device.region_write(BAR0, offset, &data)
        })
    }
}

/// CAP and VS of a device that nothing else uses, whose COMMAND is left as it was.
///
/// # Errors
/// [`iommufd_backend::Error`]
pub fn read_identity(
    device: &VfioDevice,
) -> Result<(Capabilities, Version), iommufd_backend::Error> {
    let mut before = [0; 2];
    device.config_read(COMMAND, &mut before)?;
    set_command(device, false)?;
    let read = |offset: u32| -> Result<u32, iommufd_backend::Error> {
        let mut data = [0; 4];
        device.region_read(BAR0, offset.into(), &mut data)?;
        Ok(u32::from_le_bytes(data))
    };
    let registers = [CAP, CAP + 4, VS].map(read);
    device.config_write(COMMAND, &before)?;
    let [low, high, version] = registers;
    let cap = u64::from(low?) | u64::from(high?) << 32;
    Ok((Capabilities(cap), Version(version?)))
}

/// Memory decode on, and bus mastering as asked.
fn set_command(device: &VfioDevice, is_master: bool) -> Result<(), iommufd_backend::Error> {
    let mut data = [0; 2];
    device.config_read(COMMAND, &mut data)?;
    let others = u16::from_le_bytes(data) & !COMMAND_BUS_MASTER;
    let master = if is_master { COMMAND_BUS_MASTER } else { 0 };
    let command = others | COMMAND_MEMORY | master;
    device.config_write(COMMAND, &command.to_le_bytes())
}

fn turn_on(device: &VfioDevice, interrupts: &[EventFd]) -> Result<(), iommufd_backend::Error> {
    let events: Vec<_> = interrupts
        .iter()
        .map(|event| Some(eventfd::borrow(event)))
        .collect();
    device.irq_enable(InterruptKind::Msix, 0, &events)
}

impl Device for NvmeDevice {
    type Block = PoolBlock;

    fn read(&self, offset: u32) -> u32 {
        let mut data = [0; 4];
        let read = self
            .link
            .with(|open| open.device.region_read(BAR0, offset.into(), &mut data));
        match read {
            Ok(()) => u32::from_le_bytes(data),
            Err(error) => {
                log::warn!("{}: {error}", self.bdf);
                ABSENT
            }
        }
    }

    fn write(&self, offset: u32, value: u32) {
        if let Err(error) = self.try_write(offset.into(), value) {
            log::warn!("{}: {error}", self.bdf);
        }
    }

    fn ring(&self, doorbell: Doorbell, value: u16) {
        let (offset, value) = (doorbell_offset(self.cap, doorbell), u32::from(value));
        let mapped = self.link.open();
        let doorbells = mapped.as_ref().and_then(|open| open.doorbells.as_ref());
        if doorbells.is_some_and(|doorbells| doorbells.write(offset, value)) {
            return;
        }
        drop(mapped);
        if let Err(error) = self.try_write(offset, value) {
            log::warn!("{}: {error}", self.bdf);
        }
    }

    fn allocate(&mut self, pages: usize, shape: Shape) -> Option<PoolBlock> {
        self.pool.allocate(pages, shape)
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), DeviceError> {
        self.link.with(|open| set_command(&open.device, on))
    }

    /// The reset of [`ResetMethod`]: bus mastering is off before, since the kernel restores COMMAND afterwards.
    fn reset(&mut self) -> Result<(), DeviceError> {
        let (reset, interrupts) = (&self.reset, &self.interrupts);
        self.link.with(|open| {
            set_command(&open.device, false)?;
            reset.reset_for_guest(&*open.device)?;
            set_command(&open.device, false)?;
            turn_on(&open.device, interrupts)
        })
    }
}
