// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which of the functions on the bus are tested, and how.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use address::Gpa;
use dma_stress::cost::{self, Cost, Meter};
use dma_stress::device::{ivshmem, pci_testdev};
use dma_stress::dma_address::DmaMap;
use dma_stress::engine::Engine;
use dma_stress::engine::edu::{self, Edu};
use dma_stress::engine::nvme::{self, Nvme, Parts};
use dma_stress::hostile::{self, Race};
use dma_stress::options::Options;
use dma_stress::pci::Function;
use dma_stress::report::Report;
use dma_stress::signals::Signals;
use spin::Mutex;
use stress_format::{Interrupt, Mode};

use super::arch::ports;
use super::clock;
use super::dma_pages::HeapDma;
use super::guarded::Guarded;
use super::machine::Machine;
use super::mmio::Mmio;
use super::peers::Peer;
use super::physical::PhysicalMemory;
use super::serial::Console;
use super::vectors;
use super::window::Window;
use super::wiring::Wiring;

/// An engine.
pub struct Item {
    /// Name of its kind.
    pub name: &'static str,
    /// Its address on the bus.
    pub bdf: String,
    /// The driver.
    pub engine: Mutex<Box<dyn Engine + Send>>,
}

/// Does a test, given memory and the seed, and returns details.
type Check = dyn Fn(&PhysicalMemory, u64) -> Result<String, String> + Sync;

/// A test of a device without DMA.
pub struct Extra {
    name: String,
    check: Box<Check>,
}

impl Extra {
    fn new(
        name: String,
        check: impl Fn(&PhysicalMemory, u64) -> Result<String, String> + Sync + 'static,
    ) -> Self {
        Self {
            name,
            check: Box::new(check),
        }
    }

    /// Does and reports it.
    pub fn run(&self, report: &Report<Console>, memory: &PhysicalMemory, seed: u64) {
        match (self.check)(memory, seed) {
            Ok(more) => report.test(true, format_args!("{}{more}", self.name)),
            Err(why) => report.test(false, format_args!("{}: {why}", self.name)),
        }
    }
}

/// A device for hostile register accesses.
pub struct Attacked {
    /// Its address on the bus.
    pub bdf: String,
    /// Its registers.
    pub registers: Mmio,
    /// Where they are.
    pub own: Gpa,
    /// The race for them.
    pub race: Race,
}

/// All that is tested.
#[derive(Default)]
pub struct Found {
    /// Engines.
    pub items: Vec<Item>,
    /// Tests without transfers.
    pub extras: Vec<Extra>,
    /// Devices to attack.
    pub attacked: Vec<Attacked>,
    /// Controllers to attack.
    pub guarded: Vec<Guarded>,
    /// Starts that the monitor has refused.
    pub provoked: u64,
    /// Memory of devices, for others to do DMA to.
    pub peers: Vec<Peer>,
}

impl Found {
    /// Prints costs.
    fn costs(&mut self, costs: Result<Vec<Cost>, String>) {
        match costs {
            Ok(costs) => self.extras.extend(costs.iter().map(|cost| {
                let nothing_wrong = |_: &_, _| Ok(String::new());
                Extra::new(cost.to_string(), nothing_wrong)
            })),
            Err(why) => {
                let check = move |_: &_, _| Err(why.clone());
                self.extras.push(Extra::new(cost::NAME.into(), check));
            }
        }
    }

    /// Whether there is nothing to test.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
            && self.extras.is_empty()
            && self.attacked.is_empty()
            && self.guarded.is_empty()
    }
}

struct Search<'a> {
    machine: &'a Machine,
    options: &'a Options,
    way: Way,
    vector: u8,
    found: Found,
}

/// How devices reach memory.
#[derive(Debug)]
pub struct Way {
    /// How their addresses are found.
    pub dma: DmaMap,
    /// What lets them be bus masters, if something must.
    pub window: Option<Window>,
}

/// Finds it. What is found is enabled.
pub fn find(machine: &Machine, options: &Options, way: Way) -> Found {
    let mut search = Search {
        machine,
        options,
        way,
        vector: vectors::MESSAGES,
        found: Found::default(),
    };
    search.window();
    for function in &machine.functions {
        let wants = |name| options.wants(name);
        match function.id {
            edu::ID if options.names(hostile::NAME) => search.hostile(function),
            edu::ID if options.names(cost::NAME) => search.cost(function),
            edu::ID if wants("edu") || wants("p2p") => search.edu(function),
            pci_testdev::ID if wants("pci-testdev") => search.testdev(function),
            ivshmem::ID if wants("ivshmem") || wants("p2p") => search.ivshmem(function),
            _ if function.class != nvme::CLASS => continue,
            _ if options.names(hostile::nvme::NAME) => search.guarded(function),
            _ if wants("nvme") => search.nvme(function),
            _ => continue,
        };
    }
    search.found
}

impl Search<'_> {
    /// Tests the window itself.
    fn window(&mut self) {
        let Some(window) = &mut self.way.window else {
            return;
        };
        if self.options.names(cost::NAME) {
            let costs = window.cost(&self.machine.ram, self.options.seed);
            return self.found.costs(costs);
        }
        for (name, outcome) in window.check(&self.machine.ram, self.options.seed) {
            let told = move |_: &_, _| outcome.clone().map(|more| format!(": {more}"));
            let extra = Extra::new(format!("DMA window, {name}"), told);
            self.found.extras.push(extra);
        }
    }

    /// Makes a function with DMA a bus master, and returns its registers.
    fn registers(&mut self, function: &Function) -> Option<Mmio> {
        let bar = function.memory_bar(0)?;
        if let Some(window) = &mut self.way.window
            && let Err(error) = window.enable(function)
        {
            let check = move |_: &_, _| Err(error.clone());
            let extra = Extra::new(format!("{function} as a bus master"), check);
            self.found.extras.push(extra);
            return None;
        }
        function.enable(&self.machine.ecam);
        // SAFETY: every BAR is mapped uncached.
        Some(unsafe { Mmio::new(bar) })
    }

    fn wiring(&mut self, function: &Function) -> Wiring {
        let (machine, vector) = (self.machine, self.vector);
        self.vector = vector.saturating_add(1).min(vectors::LINES - 1);
        Wiring::new(function, machine.ecam, vector, machine.ticks_per_ms)
    }

    fn item(
        &mut self,
        name: &'static str,
        function: &Function,
        engine: impl Engine + Send + 'static,
    ) {
        self.found.items.push(Item {
            name,
            bdf: function.to_string(),
            engine: Mutex::new(Box::new(engine)),
        });
    }

    fn peer(&mut self, function: &Function, memory: Range<Gpa>) {
        self.found.peers.push(Peer {
            bdf: function.to_string(),
            memory,
        });
    }

    fn edu(&mut self, function: &Function) -> Option<()> {
        let registers = self.registers(function)?;
        let wiring = self.wiring(function);
        let mut edu = Edu::new(registers, wiring, self.way.dma.clone())?;
        let result = edu.self_test();
        let name = format!("edu {function}: liveness and factorial");
        let extra = Extra::new(name, move |_, _| {
            result.map(|()| String::new()).map_err(String::from)
        });
        self.found.extras.push(extra);
        self.item("edu", function, edu);
        Some(())
    }

    /// Only where the monitor translates: elsewhere a start needs nothing of it.
    fn cost(&mut self, function: &Function) -> Option<()> {
        let meter = Meter(clock::now);
        let tick = meter.tick(20_000, || clock::count_down(10_000));
        self.found.costs(Ok([tick].into()));
        if self.way.dma.mode() != Mode::Mediate {
            return None;
        }
        let gpa = self.machine.ram.extents().first()?.start;
        let registers = self.registers(function)?;
        self.found.provoked += cost::REFUSALS;
        let costs = meter.registers(&registers, gpa);
        self.found.costs(costs.map_err(String::from));
        Some(())
    }

    /// Only if the monitor checks what the device is given: QEMU's ends the machine if it is
    /// programmed what is wrong.
    fn hostile(&mut self, function: &Function) -> Option<()> {
        if self.way.dma.mode() != Mode::Mediate {
            let name = format!("{} {function}", hostile::NAME);
            let check = |_: &_, _| Err("not without mode=mediate".into());
            self.found.extras.push(Extra::new(name, check));
            return None;
        }
        let own = function.memory_bar(0)?.start;
        let registers = self.registers(function)?;
        self.found.attacked.push(Attacked {
            bdf: function.to_string(),
            registers,
            own,
            race: Race::default(),
        });
        Some(())
    }

    /// Only where the monitor checks commands: any other device would do as it is told.
    fn guarded(&mut self, function: &Function) -> Option<()> {
        let name = hostile::nvme::NAME;
        if self.way.dma.mode() != Mode::Mediate {
            let check = |_: &_, _| Err("not without mode=mediate".into());
            let extra = Extra::new(format!("{name} {function}"), check);
            self.found.extras.push(extra);
            return None;
        }
        let registers = self.registers(function)?;
        let (ecam, ticks) = (self.machine.ecam, self.machine.ticks_per_ms);
        let guarded = Guarded::new(function, registers, ecam, ticks)?;
        self.found.guarded.push(guarded);
        Some(())
    }

    fn nvme(&mut self, function: &Function) -> Option<()> {
        let registers = self.registers(function)?;
        let mut wiring = self.wiring(function);
        // A controller may bind its queues to vectors of the kind that is on when they are made.
        let best = wiring.kinds().last().copied();
        wiring.select(best.unwrap_or(Interrupt::Polling)).ok()?;
        let clock = wiring.clock();
        let bar = function.memory_bar(0)?;
        let parts = Parts {
            memory: &mut HeapDma(self.way.dma.clone()),
            clock,
            signals: wiring,
            dma: self.way.dma.clone(),
            destroy: self.options.destroy,
        };
        match Nvme::new(registers, bar.end - bar.start, parts) {
            Ok(nvme) => {
                if let Ok(Some(cmb)) = nvme.controller().cmb()
                    && let Some(bar) = function.memory_bar(cmb.bar.into())
                    && let Some(memory) = (bar.start + cmb.offset).span(cmb.bytes)
                    && memory.end <= bar.end
                {
                    self.peer(function, memory);
                }
                self.item("nvme", function, nvme);
            }
            Err(error) => {
                let (name, error) = (format!("nvme {function}"), error.to_string());
                self.found
                    .extras
                    .push(Extra::new(name, move |_, _| Err(error.clone())));
            }
        }
        Some(())
    }

    fn testdev(&mut self, function: &Function) -> Option<()> {
        function.enable(&self.machine.ecam);
        for bar in 0..2 {
            let name = |kind| format!("pci-testdev {function}, {kind}: ");
            let told = |result: Result<u8, &str>| {
                result
                    .map(|tests| format!("{tests} tests, every width"))
                    .map_err(String::from)
            };
            if let Some(range) = function.memory_bar(bar) {
                // SAFETY: every BAR is mapped uncached.
                let space = unsafe { Mmio::new(range) };
                let check = move |_: &_, _| told(pci_testdev::run(&space));
                self.found.extras.push(Extra::new(name("memory"), check));
            } else if let Some(port) = function.port_bar(bar) {
                // SAFETY: these ports are the device's, and do nothing but count.
                let space = unsafe { ports::space(port) };
                let check = move |_: &_, _| told(pci_testdev::run(&space));
                self.found.extras.push(Extra::new(name("ports"), check));
            }
        }
        Some(())
    }

    fn ivshmem(&mut self, function: &Function) -> Option<()> {
        function.enable(&self.machine.ecam);
        let bar = function.memory_bar(ivshmem::MEMORY_BAR)?;
        let name = format!("ivshmem {function}: {} MiB", (bar.end - bar.start) >> 20);
        let range = bar.clone();
        let extra = Extra::new(name, move |memory, seed| {
            match ivshmem::sample(memory, &range, seed) {
                Ok(hash) => Ok(format!(", hash of samples {hash:#018x}")),
                Err(place) => Err(format!("other data at {place}")),
            }
        });
        self.found.extras.push(extra);
        self.peer(function, bar);
        Some(())
    }
}
