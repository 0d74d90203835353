// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A machine that needs nothing of the host but KVM: its physical memory is synthetic, and its
//! device is a DMA engine in software that reaches memory only through the backend's table.

use std::error::Error;
use std::fmt;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use address::{BusAddr, Gpa, Hpa};
use devices::mediate::{Profile, ProfileError};
use devices::pci::MsiMessage;
use iommufd_backend::PinRequest;
use iommufd_backend::extent::Extent;
use software_edu::sabotage::{FlippedBits, LostInterrupts, Misplaced};
use software_edu::{
    BAR_SIZE, BUFFER_SIZE, DmaMemory, DmaRefused, EduControl, EduHost, EduWorker, InterruptSink,
    Options, QEMU_BUFFER_SIZE, SetupError,
};
use software_memory::{BusAddress, DmaFault, DmaPort, PhysicalMemory, SoftwareBackend};

use vmm::{
    AddressMap, DmaPath, InterruptLines, IrqError, SyntheticDevice, SyntheticMachine, Worker,
};

use crate::config::{EngineFault, SoftwareConfig, SoftwareDma};

/// Where the synthetic physical memory is: above 4 GiB, within what any CPU can address.
const RAM: Range<Hpa> = Hpa(4 << 30)..Hpa(32 << 30);
/// Longest run of physically contiguous memory, of 2 MiB pages, if the guest's memory is at its
/// physical addresses; and of ordinary pages where it does not.
const MAX_RUN_LEN: u64 = 16 << 20;
const MAX_SCATTERED_RUN_LEN: u64 = 256 << 10;
/// Where the engine's BAR is: in the only window of [`AddressMap::conventional`].
const BAR: Gpa = Gpa(0xd000_0000);

/// Lost interrupts that are logged as warnings.
const WARNINGS: u64 = 16;
/// A page, by which [`EngineFault::Offset`] is off.
const PAGE: i64 = 4096;
/// Every so manyth interrupt is lost by [`EngineFault::Interrupt`].
const LOST_EVERY: NonZeroU64 = NonZeroU64::new(400).unwrap();
/// Every so manyth transfer has a flipped bit by [`EngineFault::Bit`].
const FLIPPED_EVERY: NonZeroU64 = NonZeroU64::new(1000).unwrap();

/// Synthetic memory, and what its engine is to do wrong.
#[derive(Debug)]
pub struct SoftwareMachine {
    memory: SoftwareBackend,
    path: DmaPath,
    fault: Option<EngineFault>,
    witness: Witness,
}

/// What the engine of a machine has refused, also once the machine is gone.
#[derive(Clone)]
pub struct Witness {
    port: DmaPort,
    control: Arc<OnceLock<EduControl>>,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").finish_non_exhaustive()
    }
}

impl Witness {
    /// What was refused so far.
    #[must_use]
    pub fn refusals(&self) -> Refusals {
        Refusals {
            count: self
                .control
                .get()
                .map_or(0, |control| control.statistics().refused),
            last: self.port.last_faults(),
        }
    }
}

/// Transfers that were refused.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// How many.
    pub count: u64,
    /// The last ones that would have left the guest's memory, the oldest first.
    pub last: Vec<DmaFault>,
}

impl SoftwareMachine {
    /// A machine with nothing in its memory yet.
    ///
    /// # Errors
    /// [`ProfileError`] cannot happen with the profile that is shipped.
    pub fn new(config: &SoftwareConfig) -> Result<Self, ProfileError> {
        let longest_run = match config.dma {
            SoftwareDma::Identity => MAX_RUN_LEN,
            SoftwareDma::Translate | SoftwareDma::Mediate => MAX_SCATTERED_RUN_LEN,
        };
        let physical = PhysicalMemory::new([RAM], longest_run, config.seed);
        let path = match config.dma {
            SoftwareDma::Identity => DmaPath::Identity,
            SoftwareDma::Translate => DmaPath::Translate,
            // The engine has all 64 address bits.
            SoftwareDma::Mediate => DmaPath::Mediate(Profile::shipped("edu64")?),
        };
        let memory = SoftwareBackend::new(physical);
        let witness = Witness {
            port: memory.port(),
            control: Arc::default(),
        };
        Ok(Self {
            memory,
            path,
            fault: config.fault,
            witness,
        })
    }

    /// Counts refusals for the report.
    #[must_use]
    pub fn witness(&self) -> Witness {
        self.witness.clone()
    }

    /// The engine: the device that is passed through, and what does its work.
    fn engine(&self, lines: InterruptLines) -> Result<(EduHost, EduWorker), SetupError> {
        let mut memory: Box<dyn DmaMemory> = Box::new(Port(self.memory.port()));
        let interrupt_line = lines.line();
        let mut sink: Box<dyn InterruptSink> = Box::new(Lines {
            lines,
            refused: AtomicU64::new(0),
        });
        match self.fault {
            Some(EngineFault::Offset) => memory = Box::new(Misplaced::new(memory, PAGE)),
            Some(EngineFault::Bit) => memory = Box::new(FlippedBits::new(memory, FLIPPED_EVERY)),
            Some(EngineFault::Interrupt) => {
                sink = Box::new(LostInterrupts::new(sink, LOST_EVERY));
            }
            None => {}
        }
        let options = Options {
            bar: BAR,
            interrupt_line,
            // A profile for QEMU's device allows everything: more of it would be refused.
            buffer: match self.path {
                DmaPath::Mediate(_) => QEMU_BUFFER_SIZE,
                _ => BUFFER_SIZE,
            },
            memory,
            interrupts: sink,
        };
        EduHost::new("edu", options)
    }
}

impl SyntheticMachine for SoftwareMachine {
    fn address_map(&self) -> AddressMap {
        AddressMap::conventional()
    }

    fn bars(&self) -> Vec<(String, Range<Hpa>)> {
        let bar = Hpa(BAR.0)..Hpa(BAR.0 + BAR_SIZE);
        vec![("edu BAR0".to_owned(), bar)]
    }

    fn dma_path(&self) -> &DmaPath {
        &self.path
    }

    fn pin(
        &mut self,
        request: &PinRequest<'_>,
    ) -> Result<Vec<Extent>, Box<dyn Error + Send + Sync>> {
        Ok(self.memory.pin(request)?)
    }

    fn start(
        &mut self,
        lines: InterruptLines,
    ) -> Result<SyntheticDevice, Box<dyn Error + Send + Sync>> {
        let (host, worker) = self.engine(lines)?;
        let engine = EngineThread::spawn(worker)?;
        // A machine is started once.
        let _ = self.witness.control.set(engine.control.clone());
        Ok(SyntheticDevice {
            function: Box::new(host),
            worker: Box::new(engine),
        })
    }
}

/// The engine's way to memory: without an IOMMU, what the guest programs is an address on the bus.
struct Port(DmaPort);

impl DmaMemory for Port {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaRefused> {
        let address = BusAddress::Bus(BusAddr(address));
        self.0.read(address, data).map_err(|_| DmaRefused)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaRefused> {
        let address = BusAddress::Bus(BusAddr(address));
        self.0.write(address, data).map_err(|_| DmaRefused)
    }
}

/// The engine's interrupts.
struct Lines {
    lines: InterruptLines,
    /// How many KVM did not take: the guest chooses where its messages go.
    refused: AtomicU64,
}

impl Lines {
    fn note(&self, result: Result<(), IrqError>) {
        if let Err(error) = result {
            let level = match self.refused.fetch_add(1, Ordering::Relaxed) {
                ..WARNINGS => log::Level::Warn,
                _ => log::Level::Debug,
            };
            log::log!(level, "The DMA engine's interrupt is lost: {error}");
        }
    }
}

impl InterruptSink for Lines {
    fn message(&self, message: MsiMessage) {
        self.note(self.lines.signal(message.address, message.data));
    }

    fn line(&self, asserted: bool) {
        self.note(self.lines.set_line(asserted));
    }
}

/// An engine at work.
pub struct EngineThread {
    control: EduControl,
    thread: JoinHandle<()>,
}

impl fmt::Debug for EngineThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineThread").finish_non_exhaustive()
    }
}

impl EngineThread {
    /// Lets `worker` work.
    ///
    /// # Errors
    /// The errno of thread creation.
    pub fn spawn(mut worker: EduWorker) -> std::io::Result<Self> {
        let control = worker.control();
        let thread = thread::Builder::new()
            .name("dma-engine".to_owned())
            .spawn(move || worker.run())?;
        Ok(Self { control, thread })
    }
}

impl Worker for EngineThread {
    fn stop(self: Box<Self>) {
        self.control.stop();
        if self.thread.join().is_err() {
            log::error!("The DMA engine's thread panicked");
        }
    }
}
