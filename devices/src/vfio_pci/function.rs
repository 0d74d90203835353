// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A passed-through function as the guest's bus sees it.

use pci_config::regs::{COMMAND_IO, COMMAND_MEMORY};

use crate::pci::access::DwordWrite;
use crate::pci::{Bars, Msi, PciFunction, Region, Space, Windows};

use super::config_space::{ConfigSpace, Offer};
use super::gate::BusMasterGate;
use super::host::HostFunction;
use super::interrupts::Interrupts;
use super::layout::MappedAreas;
use super::report::{FailureHook, Reporter};
use super::setup::{MsixSetup, SetupError, build_bars, read_config};

/// What the monitor decides for a passed-through function.
pub struct Options {
    /// Whether the guest may turn bus mastering on.
    pub bus_master: BusMasterGate,
    /// First value of the Interrupt Line register: the line that INTx is wired to.
    pub interrupt_line: u8,
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
/// Memory BARs are at first where the host has them (GPA = HPA), so that devices reach one another's BARs at the
/// addresses the guest knows. A guest can size and move them: a BAR answers the guest's CPUs where the guest put it, but
/// other devices only at the address that the host gave it.
#[derive(Debug)]
pub struct PassthroughFunction<H> {
    pub(super) host: H,
    pub(super) config: ConfigSpace,
    pub(super) bars: Bars,
    pub(super) areas: MappedAreas,
    /// COMMAND as the guest has written it.
    pub(super) command: u16,
    /// COMMAND as the device has it.
    pub(super) host_command: u16,
    /// PMCSR's power state: 0 is D0, 3 is D3hot.
    pub(super) power_state: u16,
    pub(super) msi: Option<Msi>,
    pub(super) msix: Option<MsixSetup>,
    pub(super) interrupts: Interrupts,
    pub(super) gate: BusMasterGate,
    pub(super) reporter: Reporter,
    /// The log says that the guest moved a BAR.
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
        let bars = build_bars(&info, &config, &mut reporter);
        let msix = MsixSetup::find(&info, &config, &bars, &mut reporter);
        let offer = Offer {
            msi: info.msi_vectors != 0,
            msix: msix.as_ref().is_some_and(|msix| msix.state.is_some()),
            intx: info.intx_vectors != 0,
            function_reset: info.resettable,
        };
        let space = ConfigSpace::new(&config, offer, options.interrupt_line);
        let msi = space.located.msi.map(|at| {
            let [_, _, low, high] = config[usize::from(at / 4)].to_le_bytes();
            Msi::new(u16::from_le_bytes([low, high]), info.msi_vectors)
        });
        let trapped = msix.as_ref().map(MsixSetup::trapped);
        let areas = MappedAreas::new(&info, &bars, trapped.as_ref().map_or(&[], |both| both));
        let mut function = Self {
            host,
            config: space,
            bars,
            areas,
            command: 0,
            host_command: 0,
            power_state: 0,
            msi,
            msix,
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
