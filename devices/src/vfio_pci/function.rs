// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A passed-through function as the guest's bus sees it.

use pci_config::PerKind;
use pci_config::regs::{COMMAND_IO, COMMAND_MEMORY};

use crate::pci::access::DwordWrite;
use crate::pci::{Bars, BusWindows, PciFunction, Region, Space, Windows};

use super::config_space::{ConfigSpace, Offer};
use super::gate::BusMasterGate;
use super::host::{HostFunction, HostInfo};
use super::interrupts::Interrupts;
use super::layout::MappedAreas;
use super::messages::{self, Device, MessageCapability};
use super::report::{FailureHook, Reporter};
use super::setup::{SetupError, build_bars, read_config};

/// What the monitor decides for a passed-through function.
pub struct Options {
    /// Whether the guest may turn bus mastering on.
    pub bus_master: BusMasterGate,
    /// First value of the Interrupt Line register: the line that INTx is wired to.
    pub interrupt_line: u8,
    /// What the host bridge does to the addresses of BARs, on the host as in the guest.
    pub bus_windows: BusWindows,
    /// Called when the device fails its guest.
    pub on_failure: FailureHook,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("bus_master", &self.bus_master)
            .field("interrupt_line", &self.interrupt_line)
            .finish_non_exhaustive()
    }
}

/// A host function shown to the guest.
///
/// Memory BARs are at first where the host has them (GPA = HPA, and the same address on the bus), so that devices
/// reach one another's BARs at the addresses the guest uses. A guest can size and move them: a BAR answers
/// the guest's CPUs where the guest put it, but other devices only at the address that the host
/// gave it.
#[derive(Debug)]
pub struct PassthroughFunction<H> {
    pub(super) host: H,
    pub(super) config: ConfigSpace,
    pub(super) bars: Bars,
    pub(super) bus_windows: BusWindows,
    pub(super) areas: MappedAreas,
    /// COMMAND as the guest has written it.
    pub(super) command: u16,
    /// COMMAND as the device has it.
    pub(super) host_command: u16,
    /// PMCSR's power state: 0 is D0, 3 is D3hot.
    pub(super) power_state: u16,
    /// What the guest programs for message-signalled interrupts.
    pub(super) messages: Vec<Box<dyn MessageCapability>>,
    pub(super) interrupts: Interrupts,
    pub(super) gate: BusMasterGate,
    pub(super) reporter: Reporter,
    /// The log reports that the guest moved a BAR.
    pub(super) warned_of_move: bool,
}

impl<H: HostFunction> PassthroughFunction<H> {
    /// Shows `host` to a guest. The device is left with COMMAND clear: no decode and no bus
    /// mastering until the guest asks for them.
    ///
    /// # Errors
    ///
    /// If config space cannot be accessed, the device does not answer, or it is a bridge.
    pub fn new(mut host: H, options: Options) -> Result<Self, SetupError> {
        let config = read_config(&mut host)?;
        let info = host.info().clone();
        log::debug!("{}: {} bytes of config space", info.name, info.config_size);
        let mut reporter = Reporter::new(info.name.clone(), options.on_failure);
        let bars = build_bars(&info, &config, &options.bus_windows, &mut reporter);
        let device = Device {
            info: &info,
            config: &config,
            bars: &bars,
        };
        let mut messages = messages::find(device, &mut reporter);
        let offer = Offer {
            interrupts: offered(&info, &messages),
            function_reset: info.resettable,
        };
        let space = ConfigSpace::new(&config, offer, options.interrupt_line);
        for capability in &mut messages {
            if let Some(at) = space.located.messages[capability.kind()] {
                capability.shown(config[usize::from(at / 4)]);
            }
        }
        let structures = messages.iter().flat_map(|one| one.structures());
        let trapped: Vec<_> = structures.map(|one| one.place.clone()).collect();
        let areas = MappedAreas::new(&info, &bars, &trapped);
        let mut function = Self {
            host,
            config: space,
            bars,
            bus_windows: options.bus_windows,
            areas,
            command: 0,
            host_command: 0,
            power_state: 0,
            messages,
            interrupts: Interrupts::default(),
            gate: options.bus_master,
            reporter,
            warned_of_move: false,
        };
        function
            .quiet_device()
            .map_err(|(offset, source)| SetupError::Config {
                device: info.name,
                offset,
                source,
            })?;
        Ok(function)
    }
}

/// The kinds of interrupt that the guest is shown.
fn offered(info: &HostInfo, messages: &[Box<dyn MessageCapability>]) -> PerKind<bool> {
    PerKind::from_fn(
        |kind| match messages.iter().find(|one| one.kind() == kind) {
            Some(capability) => capability.is_offered(),
            None => !kind.is_message() && info.interrupts[kind].count != 0,
        },
    )
}

impl<H: HostFunction> PciFunction for PassthroughFunction<H> {
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.follow_gate();
        if offset < self.config.size() {
            self.read_register(offset, data);
        } else {
            data.fill(0xff);
        }
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.follow_gate();
        let write = DwordWrite::new(offset, data);
        if let Some(write) = write.filter(|_| offset < self.config.size()) {
            self.write_register(write);
        }
    }

    fn windows(&self) -> Windows {
        let mut windows = Windows::default();
        let decodes = self.decodes();
        for (index, bar) in self.bars.iter() {
            let decoded = match bar.space() {
                Space::Memory => decodes & COMMAND_MEMORY != 0 && bar.place().is_some(),
                Space::Io => decodes & COMMAND_IO != 0,
            };
            if let Some(window) = bar.window(index).filter(|_| decoded) {
                windows.push(window);
            }
        }
        let rom = self.bars.rom_window();
        if let Some(window) = rom.filter(|_| decodes & COMMAND_MEMORY != 0) {
            windows.push(window);
        }
        windows
    }

    fn bar_read(&mut self, region: Region, offset: u64, data: &mut [u8]) {
        self.read_region(region, offset, data);
    }

    fn bar_write(&mut self, region: Region, offset: u64, data: &[u8]) {
        if region != Region::Rom {
            self.write_region(region, offset, data);
        }
    }

    fn reset(&mut self) {
        self.reporter.reset();
        self.reset_device();
    }
}
