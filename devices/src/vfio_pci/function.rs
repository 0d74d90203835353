//! A passed-through function as the guest's bus sees it.

use crate::pci::access::{DwordWrite, read_part};
use crate::pci::regs::{
    AF_CAPABILITIES_FLR, AF_CONTROL, AF_CONTROL_FLR, BAR_END, BAR0, COMMAND, COMMAND_BUS_MASTER,
    COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY, COMMAND_MWI, COMMAND_PARITY, COMMAND_SERR,
    EXP_DEVICE_CAPABILITIES, EXP_DEVICE_CAPABILITIES_FLR, EXP_DEVICE_CONTROL,
    EXP_DEVICE_CONTROL_FLR, EXP_DEVICE_CONTROL_NO_SNOOP, INTERRUPT, PM_CONTROL, PM_NO_SOFT_RESET,
    PM_STATE, ROM,
};
use crate::pci::{Bars, Msi, Msix, PciFunction, Region, Space, Windows, control_write};

use super::config_space::{ConfigSpace, Offer};
use super::gate::BusMasterGate;
use super::host::{HostError, HostFunction, InterruptKind};
use super::interrupts::{Interrupts, Wanted};
use super::layout::MappedAreas;
use super::report::{FailureHook, Reporter};
use super::setup::{MsixSetup, SetupError, build_bars, read_config};

/// COMMAND bits that the guest decides on; all others read as 0.
const COMMAND_WRITABLE: u16 = COMMAND_IO
    | COMMAND_MEMORY
    | COMMAND_BUS_MASTER
    | COMMAND_MWI
    | COMMAND_PARITY
    | COMMAND_SERR
    | COMMAND_INTX_DISABLE;

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
/// Memory BARs stand where the host has them (GPA = HPA), so that devices reach one another's
/// BARs at the addresses the guest knows. A guest can size them. If it moves one, the value is
/// remembered and reads back, but the BAR answers nowhere until it is moved back.
#[derive(Debug)]
pub struct PassthroughFunction<H> {
    pub(super) host: H,
    config: ConfigSpace,
    bars: Bars,
    areas: MappedAreas,
    /// COMMAND as the guest has written it.
    command: u16,
    /// COMMAND as the device has it.
    host_command: u16,
    /// PMCSR's power state: 0 is D0, 3 is D3hot.
    power_state: u16,
    msi: Option<Msi>,
    pub(super) msix: Option<MsixSetup>,
    pub(super) interrupts: Interrupts,
    gate: BusMasterGate,
    pub(super) reporter: Reporter,
    /// The guest has been told off for moving a BAR.
    warned_of_move: bool,
}

/// Who answers for a dword of config space.
enum Owner {
    Command,
    Bar,
    /// Offset in the capability.
    Msi(u16),
    MsixControl,
    Power,
    DeviceControl,
    AdvancedFeatures,
    Map,
}

impl<H: HostFunction> PassthroughFunction<H> {
    /// Shows `host` to a guest. The device is left with COMMAND clear: no decode and no bus
    /// mastering until the guest asks for them.
    ///
    /// # Errors
    ///
    /// If config space cannot be accessed, nobody answers, or the device is a bridge.
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
            let decoded = match bar.kind().space() {
                Space::Memory => decodes & COMMAND_MEMORY != 0 && bar.is_home(),
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

/// What happens when the guest writes to config space.
impl<H: HostFunction> PassthroughFunction<H> {
    fn owner(&self, offset: u16) -> Owner {
        let located = self.config.located;
        let is =
            |capability: Option<u16>, register| capability.map(|at| at + register) == Some(offset);
        match offset {
            COMMAND => Owner::Command,
            BAR0..BAR_END | ROM => Owner::Bar,
            _ if is(located.msix, 0) => Owner::MsixControl,
            _ if is(located.pm, PM_CONTROL) => Owner::Power,
            _ if is(located.express, EXP_DEVICE_CONTROL) => Owner::DeviceControl,
            _ if is(located.af, AF_CONTROL) => Owner::AdvancedFeatures,
            _ => match (located.msi, &self.msi) {
                (Some(at), Some(msi)) if (at..at + msi.length()).contains(&offset) => {
                    Owner::Msi(offset - at)
                }
                _ => Owner::Map,
            },
        }
    }

    fn read_register(&mut self, offset: u16, data: &mut [u8]) {
        let dword = offset & !3;
        match self.owner(dword) {
            Owner::Bar => read_part(self.bars.read(dword).unwrap_or(0), offset, data),
            Owner::Msi(register) => {
                read_part(self.read_msi(dword, register), offset, data);
            }
            Owner::MsixControl => {
                let control = self
                    .msix_state()
                    .map_or(0, |msix| u32::from(msix.control()));
                let header = self.config.shadow(dword) & 0xffff;
                read_part(header | control << 16, offset, data);
            }
            _ => {
                if let Err(error) = self.config.read(&mut self.host, offset, data) {
                    data.fill(0xff);
                    self.reporter
                        .warn(format_args!("config space at {offset:#x}: {error}"));
                }
            }
        }
    }

    fn read_msi(&mut self, dword: u16, register: u16) -> u32 {
        let Some(msi) = &self.msi else {
            return 0;
        };
        let header = if register == 0 {
            self.config.shadow(dword) & 0xffff
        } else {
            0
        };
        let (interrupts, host) = (&self.interrupts, &mut self.host);
        let pending = || {
            let pending = |vector: &u16| {
                interrupts.kind() == Some(InterruptKind::Msi)
                    && interrupts.is_pending(*vector, host)
            };
            (0..32)
                .filter(pending)
                .fold(0, |bits, vector| bits | 1 << vector)
        };
        header | msi.read(register, pending)
    }

    fn write_register(&mut self, write: DwordWrite) {
        match self.owner(write.offset) {
            Owner::Command => {
                let [low, high, ..] = write.merge(u32::from(self.command)).to_le_bytes();
                self.write_command(u16::from_le_bytes([low, high]));
            }
            Owner::Bar => self.write_bar(write),
            Owner::Msi(register) => {
                if let Some(msi) = &mut self.msi {
                    msi.write(DwordWrite {
                        offset: register,
                        ..write
                    });
                }
                self.settle_interrupts();
            }
            Owner::MsixControl => {
                if let Some(msix) = self.msix.as_mut().and_then(|msix| msix.state.as_mut()) {
                    msix.set_control(control_write(msix, write));
                }
                self.settle_interrupts();
            }
            Owner::Power => self.write_power(write),
            Owner::DeviceControl if self.asks_for_flr(write) => self.reset_device(),
            Owner::AdvancedFeatures if self.asks_for_af_flr(write) => self.reset_device(),
            Owner::DeviceControl | Owner::AdvancedFeatures | Owner::Map => {
                if let Err(error) = self.config.write(&mut self.host, write) {
                    let offset = write.start();
                    self.reporter
                        .warn(format_args!("config space at {offset:#x}: {error}"));
                }
            }
        }
    }

    fn write_command(&mut self, command: u16) {
        self.command = command & COMMAND_WRITABLE;
        self.config.set_command(self.command);
        self.unmap_unwanted();
        self.write_host_command();
        self.map_wanted();
        self.warn_of_move();
        self.settle_interrupts();
    }

    fn write_bar(&mut self, write: DwordWrite) {
        self.bars.write(write);
        self.unmap_unwanted();
        self.map_wanted();
        self.warn_of_move();
    }

    fn write_power(&mut self, write: DwordWrite) {
        let Some(at) = self.config.located.pm.map(|at| at + PM_CONTROL) else {
            return;
        };
        let [low, ..] = write.merge(u32::from(self.power_state)).to_le_bytes();
        let (state, before) = (u16::from(low) & PM_STATE, self.power_state);
        if state == before {
            return;
        }
        if state != 0 {
            self.power_state = state;
            self.unmap_unwanted();
            if self.areas.any_mapped() {
                self.power_state = before;
                return;
            }
        }
        let mut control = state.to_le_bytes();
        if let Err(error) = self.host.config_write(at, &control) {
            self.power_state = before;
            self.map_wanted();
            self.reporter
                .warn(format_args!("power state D{state}: {error}"));
            return;
        }
        // The device may not have the state that the guest asked for.
        let mut actual = [0; 2];
        match self.host.config_read(at, &mut actual) {
            Ok(()) => control = actual,
            Err(error) => self
                .reporter
                .warn(format_args!("power state D{state}: {error}")),
        }
        self.power_state = u16::from_le_bytes(control) & PM_STATE;
        let soft_reset = u16::from_le_bytes(control) & PM_NO_SOFT_RESET == 0;
        if before == PM_STATE && self.power_state == 0 && soft_reset {
            // PCI Power Management 1.2, section 5.4.1: D3hot to D0 is a reset.
            self.forget_guest_state();
            self.settle_interrupts();
            self.write_host_command();
        } else {
            self.map_wanted();
        }
    }

    fn asks_for_flr(&mut self, write: DwordWrite) -> bool {
        let Some(at) = self.config.located.express else {
            return false;
        };
        let mut capabilities = [0; 4];
        let read = self
            .host
            .config_read(at + EXP_DEVICE_CAPABILITIES, &mut capabilities);
        write.value & u32::from(EXP_DEVICE_CONTROL_FLR) != 0
            && read.is_ok()
            && u32::from_le_bytes(capabilities) & EXP_DEVICE_CAPABILITIES_FLR != 0
    }

    fn asks_for_af_flr(&self, write: DwordWrite) -> bool {
        let header = self
            .config
            .located
            .af
            .map_or(0, |at| self.config.shadow(at));
        write.value & AF_CONTROL_FLR != 0 && header & AF_CAPABILITIES_FLR != 0
    }
}

/// How the device is kept in step with what the guest wrote.
impl<H: HostFunction> PassthroughFunction<H> {
    /// Puts the device into the state that a guest finds after power-on. On failure, says where.
    fn quiet_device(&mut self) -> Result<(), (u16, HostError)> {
        let command = self.host.config_write(COMMAND, &[0; 2]);
        command.map_err(|error| (COMMAND, error))?;
        if let Some(at) = self.config.located.pm.map(|at| at + PM_CONTROL) {
            let mut control = [0; 2];
            let mut wake = self.host.config_read(at, &mut control);
            if wake.is_ok() && u16::from_le_bytes(control) & PM_STATE != 0 {
                wake = self.host.config_write(at, &[0; 2]);
            }
            wake.map_err(|error| (at, error))?;
        }
        self.forbid_no_snoop()
    }

    /// Clears No-Snoop Enable. KVM is not told that the device may bypass the caches, so a guest
    /// would not see what such a write leaves in memory. Resets may set it.
    fn forbid_no_snoop(&mut self) -> Result<(), (u16, HostError)> {
        let Some(at) = self
            .config
            .located
            .express
            .map(|at| at + EXP_DEVICE_CONTROL)
        else {
            return Ok(());
        };
        let mut bytes = [0; 2];
        self.host
            .config_read(at, &mut bytes)
            .map_err(|error| (at, error))?;
        let control = u16::from_le_bytes(bytes);
        if control & EXP_DEVICE_CONTROL_NO_SNOOP == 0 {
            return Ok(());
        }
        let cleared = control & !(EXP_DEVICE_CONTROL_NO_SNOOP | EXP_DEVICE_CONTROL_FLR);
        let written = self.host.config_write(at, &cleared.to_le_bytes());
        written.map_err(|error| (at, error))
    }

    /// What COMMAND the device should have.
    fn wanted_host_command(&self) -> u16 {
        let mut command = self.command;
        if !self.gate.is_open() {
            command &= !COMMAND_BUS_MASTER;
        }
        if self.areas.any_mapped() {
            // An unmap failed: without decode, the guest's next access would stop its vCPU.
            command |= COMMAND_MEMORY;
        }
        command
    }

    fn write_host_command(&mut self) {
        let command = self.wanted_host_command();
        match self.host.config_write(COMMAND, &command.to_le_bytes()) {
            Ok(()) => self.host_command = command,
            Err(error) => self.reporter.fail("cannot write COMMAND", error),
        }
    }

    /// The gate may have moved since COMMAND was written.
    fn follow_gate(&mut self) {
        if (self.host_command ^ self.wanted_host_command()) & COMMAND_BUS_MASTER != 0 {
            self.write_host_command();
        }
    }

    /// COMMAND bits that both the guest and the device have set, in a power state that decodes.
    fn decodes(&self) -> u16 {
        let both = self.command & self.host_command;
        if self.power_state == 0 { both } else { 0 }
    }

    fn unmap_unwanted(&mut self) {
        let memory = self.command & COMMAND_MEMORY != 0 && self.power_state == 0;
        let bars = &self.bars;
        let wanted = |index| memory && bars.get(index).is_some_and(|bar| bar.is_home());
        self.areas
            .unmap_unless(wanted, &mut self.host, &mut self.reporter);
    }

    fn map_wanted(&mut self) {
        let memory = self.decodes() & COMMAND_MEMORY != 0;
        let bars = &self.bars;
        let wanted = |index| memory && bars.get(index).is_some_and(|bar| bar.is_home());
        self.areas
            .map_if(wanted, &mut self.host, &mut self.reporter);
    }

    fn warn_of_move(&mut self) {
        if self.warned_of_move || self.command & COMMAND_MEMORY == 0 {
            return;
        }
        let moved = self.bars.iter().find(|(_, bar)| {
            bar.kind().space() == Space::Memory && !bar.is_home() && !bar.is_probed()
        });
        if let Some((index, bar)) = moved {
            self.warned_of_move = true;
            self.reporter.warn(format_args!(
                "the guest moved BAR {index} from {:#x} to {:#x}; it answers only at the former, \
                 the device's own address",
                bar.home(),
                bar.address()
            ));
        }
    }

    fn wanted_interrupts(&self) -> Wanted {
        if let Some(msix) = self.msix_state().filter(|msix| msix.is_enabled()) {
            // With no vector unmasked yet, one that stays disconnected turns MSI-X on in the
            // device. Vectors that were on stay on.
            let on = match self.interrupts.kind() {
                Some(InterruptKind::Msix) => self.interrupts.vectors(),
                _ => 1,
            };
            return Some((InterruptKind::Msix, msix.unmasked_vectors().max(on)));
        }
        if let Some(msi) = self.msi.as_ref().filter(|msi| msi.is_enabled()) {
            return Some((InterruptKind::Msi, msi.vectors()));
        }
        let [_, pin, ..] = self.config.shadow(INTERRUPT).to_le_bytes();
        let in_use = COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER;
        // INTx Disable itself is passed to the device, which is quicker than a change here.
        let is_on = self.interrupts.kind() == Some(InterruptKind::Intx);
        let allowed = is_on || self.command & COMMAND_INTX_DISABLE == 0;
        (pin != 0 && allowed && self.command & in_use != 0).then_some((InterruptKind::Intx, 1))
    }

    fn settle_interrupts(&mut self) {
        self.settle_vectors(0..u16::MAX);
    }

    pub(super) fn settle_vectors(&mut self, vectors: std::ops::Range<u16>) {
        let wanted = self.wanted_interrupts();
        let (msi, msix) = (&self.msi, &self.msix);
        let message = |vector| match wanted {
            Some((InterruptKind::Msix, _)) => msix.as_ref()?.state.as_ref()?.message(vector),
            Some((InterruptKind::Msi, _)) => msi.as_ref()?.message(vector),
            _ => None,
        };
        let target = (&mut self.host, &mut self.reporter);
        self.interrupts.settle(wanted, vectors, message, target);
    }

    /// Resets the device, and with it what the guest has programmed.
    fn reset_device(&mut self) {
        self.forget_guest_state();
        self.settle_interrupts();
        if self.areas.any_mapped() {
            return; // Reported; a reset would stop a vCPU that uses the mapping.
        }
        self.write_host_command();
        if let Err(error) = self.host.reset() {
            self.reporter.warn(format_args!("reset: {error}"));
        }
        self.power_state = 0;
        if let Err((offset, error)) = self.forbid_no_snoop() {
            self.reporter
                .warn(format_args!("config space at {offset:#x}: {error}"));
        }
    }

    /// All registers back to power-on, all areas unmapped.
    fn forget_guest_state(&mut self) {
        self.command = 0;
        self.unmap_unwanted();
        self.bars.reset();
        self.config.reset();
        if let Some(msi) = &mut self.msi {
            msi.reset();
        }
        if let Some(msix) = self.msix.as_mut().and_then(|msix| msix.state.as_mut()) {
            msix.reset();
        }
        self.interrupts.forget_refusal();
        self.warned_of_move = false;
    }

    pub(super) fn msix_state(&self) -> Option<&Msix> {
        self.msix.as_ref()?.state.as_ref()
    }
}
