//! A machine that needs nothing of the host but KVM: its physical memory is synthetic, and its
//! device is a DMA engine in software that reaches memory only through the backend's table.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use address::{Bdf, BusAddr, Gpa, Hpa};
use devices::edu::sabotage::{FlippedBits, LostInterrupts, Misplaced};
use devices::edu::{
    BAR_SIZE, BUFFER_SIZE, DmaMemory, DmaRefused, EduControl, EduHost, EduWorker, InterruptSink,
    Options, QEMU_BUFFER_SIZE, SetupError,
};
use devices::mediate::{Profile, ProfileError};
use devices::pci::{self, MsiMessage};
use iommufd_backend::software::{BusAddress, DmaFault, DmaPort, PhysicalMemory, SoftwareBackend};

use crate::bus::address_map::AddressMap;
use crate::config::{EngineFault, SoftwareConfig, SoftwareDma};
use crate::kvm::irq::{Interrupts, IrqError};
use crate::passthrough::dma_path::DmaPath;

/// Where the synthetic physical memory is: above 4 GiB, within what any CPU can address.
const RAM: Range<Hpa> = Hpa(4 << 30)..Hpa(32 << 30);
/// Longest run of physically contiguous memory, of 2 MiB pages, where the guest's memory stands at
/// its physical addresses; and of ordinary pages where it does not.
const LONGEST_RUN: u64 = 16 << 20;
const LONGEST_SCATTERED_RUN: u64 = 256 << 10;
/// Addresses for BARs; the engine's stands at the start.
const WINDOW: Range<Gpa> = Gpa(0xd000_0000)..Gpa(0xe000_0000);
/// Slot of the engine on the guest's bus.
pub const ENGINE_SLOT: u8 = 1;
/// The engine's name, as nobody else gives it one: its place in the guest.
pub const ENGINE: Bdf = Bdf::new(0, 0, ENGINE_SLOT, 0).unwrap();
/// Where config space is.
const ECAM: Gpa = Gpa(0xe000_0000);

/// Lost interrupts that are told aloud.
const WARNINGS: u64 = 16;
/// A page, by which [`EngineFault::Offset`] is off.
const PAGE: i64 = 4096;
/// Every so manyth interrupt is lost by [`EngineFault::Interrupt`].
const LOST_EVERY: NonZeroU64 = NonZeroU64::new(400).unwrap();
/// Every so manyth transfer has a flipped bit by [`EngineFault::Bit`].
const FLIPPED_EVERY: NonZeroU64 = NonZeroU64::new(1000).unwrap();

/// Synthetic memory, and what its engine is to do wrong.
#[derive(Debug)]
pub(crate) struct SoftwareMachine {
    /// The memory.
    pub memory: SoftwareBackend,
    path: DmaPath,
    fault: Option<EngineFault>,
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
            SoftwareDma::Identity => LONGEST_RUN,
            SoftwareDma::Translate | SoftwareDma::Mediate => LONGEST_SCATTERED_RUN,
        };
        let physical = PhysicalMemory::new([RAM], longest_run, config.seed);
        let path = match config.dma {
            SoftwareDma::Identity => DmaPath::Identity,
            SoftwareDma::Translate => DmaPath::Translate,
            // The engine has all 64 address bits.
            SoftwareDma::Mediate => DmaPath::Mediate(Profile::shipped("edu64")?),
        };
        Ok(Self {
            memory: SoftwareBackend::new(physical),
            path,
            fault: config.fault,
        })
    }

    /// How the engine's DMA reaches guest memory.
    #[must_use]
    pub fn path(&self) -> &DmaPath {
        &self.path
    }

    /// The guest's address map outside RAM.
    #[must_use]
    pub fn host_map() -> AddressMap {
        AddressMap {
            windows: vec![WINDOW],
            ecam: ECAM..ECAM + pci::ECAM_SIZE,
        }
    }

    /// Bytes of synthetic memory.
    #[must_use]
    pub const fn memory_size() -> u64 {
        RAM.end.0 - RAM.start.0
    }

    /// Where the engine's BAR stands.
    #[must_use]
    pub fn bar() -> Range<Hpa> {
        Hpa(WINDOW.start.0)..Hpa(WINDOW.start.0 + BAR_SIZE)
    }

    /// The engine: the device that is passed through, and what does its work. `gsi` is its INTx
    /// line.
    ///
    /// # Errors
    /// [`SetupError`] cannot happen with the constants above.
    pub fn engine(
        &self,
        interrupts: &Arc<Interrupts>,
        gsi: u32,
    ) -> Result<(EduHost, EduWorker), SetupError> {
        let mut memory: Box<dyn DmaMemory> = Box::new(Port(self.memory.port()));
        let mut sink: Box<dyn InterruptSink> = Box::new(Lines {
            interrupts: Arc::clone(interrupts),
            gsi,
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
            bar: WINDOW.start,
            interrupt_line: u8::try_from(gsi).unwrap_or(u8::MAX),
            // What a profile for QEMU's device lets through is all that there is: more of it would
            // be refused.
            buffer: match self.path {
                DmaPath::Mediate(_) => QEMU_BUFFER_SIZE,
                _ => BUFFER_SIZE,
            },
            memory,
            interrupts: sink,
        };
        EduHost::new("edu", options)
    }

    /// What `engine` has refused so far.
    #[must_use]
    pub fn refusals(&self, engine: &EngineThread) -> Refusals {
        Refusals {
            count: engine.control.statistics().refused,
            last: self.memory.port().last_faults(),
        }
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
    interrupts: Arc<Interrupts>,
    gsi: u32,
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
        self.note(self.interrupts.signal(message.address, message.data));
    }

    fn line(&self, asserted: bool) {
        self.note(self.interrupts.set_line(self.gsi, asserted));
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

    /// Ends it: no access to memory follows.
    pub fn stop(self) {
        self.control.stop();
        if self.thread.join().is_err() {
            log::error!("The DMA engine's thread panicked");
        }
    }
}
