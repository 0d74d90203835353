// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The engine as a host device: the interface of a passed-through function, in software.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use address::{Gpa, Hpa};
use pci_config::regs::{COMMAND, CONVENTIONAL_CONFIG_SIZE, MSI_CONTROL, MSI_ENABLE};

use devices::pci::{MsiMessage, PciFunction, Region, Space};
use devices::vfio_pci::{HostError, HostFunction, HostInfo, InterruptKind, RegionInfo, Vectors};

use crate::function::{self, BAR_SIZE, Edu, Options, SetupError};
use crate::outside::InterruptSink;
use crate::worker::EduWorker;

/// The interrupts that it has, one vector of each.
const KINDS: [InterruptKind; 2] = [InterruptKind::Intx, InterruptKind::Msi];

/// An engine whose function a guest gets as it gets that of a real device: through
/// [`PassthroughFunction`](devices::vfio_pci::PassthroughFunction).
///
/// Its BAR is at [`Options::bar`] and can only be trapped. It has INTx and one MSI vector. The
/// guest's message is not in its MSI capability but with [`connect`](HostFunction::connect), as for
/// a device whose interrupts the host receives first.
#[derive(Debug)]
pub struct EduHost {
    edu: Edu,
    info: HostInfo,
    wires: Wires,
}

impl EduHost {
    /// An engine at power-on, which messages call `name`, and its worker for a thread.
    ///
    /// # Errors
    ///
    /// If BAR 0 cannot be at [`Options::bar`].
    pub fn new(name: &str, options: Options) -> Result<(Self, EduWorker), SetupError> {
        let mut bars: [RegionInfo; 6] = Default::default();
        bars[0] = RegionInfo {
            size: BAR_SIZE,
            host_address: Some(Hpa(options.bar.0)),
            mappable: Vec::new(),
        };
        let wires = Wires(Arc::new(Mutex::new(Wiring {
            sink: options.interrupts,
            kind: None,
            line: false,
            message: None,
            is_pending: false,
        })));
        let (edu, worker) = function::new(Options {
            interrupts: Box::new(wires.clone()),
            ..options
        })?;
        let info = HostInfo {
            name: name.to_owned(),
            bars,
            rom: RegionInfo::default(),
            config_size: CONVENTIONAL_CONFIG_SIZE,
            page_size: 4096,
            interrupts: KINDS
                .map(|kind| (kind, Vectors::fixed(1)))
                .into_iter()
                .collect(),
            resettable: true,
        };
        Ok((Self { edu, info, wires }, worker))
    }

    fn program_msi(&mut self, control: u16) {
        let register = self.edu.msi + MSI_CONTROL;
        self.edu.config_write(register, &control.to_le_bytes());
    }

    /// Fails unless the BAR answers at `offset`.
    fn check_decode(&self, region: Region, offset: u64) -> Result<(), HostError> {
        let base = self.info.bars[0]
            .host_address
            .map_or(0, |address| address.0);
        let address = base.saturating_add(offset);
        match self.edu.windows().find(Space::Memory, address) {
            Some(found) if found == (region, offset) => Ok(()),
            _ => Err(HostError(
                format!("{region:?} has no register at {offset:#x}").into(),
            )),
        }
    }
}

impl HostFunction for EduHost {
    fn info(&self) -> &HostInfo {
        &self.info
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        self.edu.config_read(offset, data);
        Ok(())
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        self.edu.config_write(offset, data);
        Ok(())
    }

    fn region_read(
        &mut self,
        region: Region,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), HostError> {
        self.check_decode(region, offset)?;
        self.edu.bar_read(region, offset, data);
        Ok(())
    }

    fn region_write(&mut self, region: Region, offset: u64, data: &[u8]) -> Result<(), HostError> {
        self.check_decode(region, offset)?;
        self.edu.bar_write(region, offset, data);
        Ok(())
    }

    fn map(&mut self, bar: u8, area: Range<u64>, _: Gpa) -> Result<(), HostError> {
        let reason = format!("BAR {bar} has no mappable memory at {area:#x?}");
        Err(HostError(reason.into()))
    }

    fn unmap(&mut self, _: u8, _: Range<u64>) -> Result<(), HostError> {
        Ok(())
    }

    fn enable_interrupts(&mut self, kind: InterruptKind, _: u16) -> Result<u16, HostError> {
        if self.info.interrupts[kind].count == 0 {
            return Err(HostError(format!("it has no {kind}").into()));
        }
        self.wires.wiring().turn_on(kind);
        if kind.is_message() {
            self.program_msi(MSI_ENABLE);
        }
        Ok(1)
    }

    fn disable_interrupts(&mut self) -> Result<(), HostError> {
        self.program_msi(0);
        self.wires.wiring().turn_off();
        Ok(())
    }

    fn connect(&mut self, vector: u16, message: MsiMessage) -> Result<(), HostError> {
        let mut wiring = self.wires.wiring();
        if wiring.kind != Some(InterruptKind::Msi) || vector != 0 {
            return Err(HostError(
                format!("it has no interrupt vector {vector}").into(),
            ));
        }
        wiring.message = Some(message);
        if std::mem::take(&mut wiring.is_pending) {
            wiring.sink.message(message);
        }
        Ok(())
    }

    fn disconnect(&mut self, _: u16) -> Result<(), HostError> {
        self.wires.wiring().message = None;
        Ok(())
    }

    fn restore_vectors(&mut self) -> Result<(), HostError> {
        Ok(())
    }

    fn pending(&mut self, _: u16) -> bool {
        self.wires.wiring().is_pending
    }

    fn reset(&mut self) -> Result<(), HostError> {
        let mut command = [0; 2];
        self.edu.config_read(COMMAND, &mut command);
        self.edu.reset();
        let kind = self.wires.wiring().kind;
        if kind == Some(InterruptKind::Msi) {
            self.program_msi(MSI_ENABLE);
        }
        self.edu.config_write(COMMAND, &command);
        Ok(())
    }
}

/// The way from the engine's interrupts to the guest's. Clones are the same one.
///
/// The engine calls it with its own state locked, so nothing here calls the engine.
#[derive(Clone)]
struct Wires(Arc<Mutex<Wiring>>);

struct Wiring {
    sink: Box<dyn InterruptSink>,
    /// What is on.
    kind: Option<InterruptKind>,
    /// Level of the engine's INTA#.
    line: bool,
    /// What the vector's message is in the guest; none while it is disconnected.
    message: Option<MsiMessage>,
    /// Something was raised while it was.
    is_pending: bool,
}

impl fmt::Debug for Wires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wires").finish_non_exhaustive()
    }
}

impl Wires {
    fn wiring(&self) -> MutexGuard<'_, Wiring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wiring {
    fn turn_on(&mut self, kind: InterruptKind) {
        self.kind = Some(kind);
        if kind == InterruptKind::Intx && self.line {
            self.sink.line(true);
        }
    }

    fn turn_off(&mut self) {
        if self.kind == Some(InterruptKind::Intx) && self.line {
            self.sink.line(false);
        }
        self.kind = None;
        self.message = None;
        self.is_pending = false;
    }
}

impl InterruptSink for Wires {
    /// The engine's own message does not matter: MSI is on or it would not be sent.
    fn message(&self, _: MsiMessage) {
        let mut wiring = self.wiring();
        match wiring.message {
            Some(message) => wiring.sink.message(message),
            None => wiring.is_pending = wiring.kind == Some(InterruptKind::Msi),
        }
    }

    fn line(&self, asserted: bool) {
        let mut wiring = self.wiring();
        wiring.line = asserted;
        if wiring.kind == Some(InterruptKind::Intx) {
            wiring.sink.line(asserted);
        }
    }
}
