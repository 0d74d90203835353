//! A guest's memory and devices in place, before anything of the guest's is in them.

use std::sync::Arc;

use super::boot::BootFiles;
use super::devices::Devices;
use super::memory::Memory;
use crate::boot::place::Placement;
use crate::config::Config;
use crate::error::Error;
use crate::host_map::HostMap;
use crate::kvm::vm::Vm;
use crate::memory::layout::Layout;
use crate::phases::Phases;

/// Everything that decides the layout of a guest is done: devices are bound and quiet, memory is
/// pinned and placed. Dropping it gives all of it back, the devices first.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub files: BootFiles,
    pub devices: Devices,
    pub vm: Arc<Vm>,
    pub host_map: HostMap,
    pub memory: Memory,
    /// Where kernel and initramfs go, if there is room for them.
    pub placement: Result<Placement, Error>,
}

impl Prepared {
    /// Binds the devices, pins and places memory. `identity` is the layout for devices that use
    /// physical addresses.
    pub fn new(config: &Config, identity: &dyn Layout, phases: &mut Phases) -> Result<Self, Error> {
        let files = BootFiles::open(config)?;
        phases.done("open files");
        let mut devices = Devices::bind(config)?;
        phases.done("bind");
        let vm = Vm::new()?;
        let host_map = devices.host_map()?;
        phases.done("create VM");
        let memory = Memory::prepare(
            &config.memory,
            (identity, &|ranges| files.fit(ranges)),
            &mut devices,
            (&vm, &host_map),
            phases,
        )?;
        let placement = files.place(&memory.plan);
        Ok(Self {
            files,
            devices,
            vm,
            host_map,
            memory,
            placement,
        })
    }

    /// Gives everything back: the devices first, then memory. Returns why the kernel has no
    /// place, if so, and the first thing that went wrong; the later steps are taken all the same.
    pub fn take_apart(mut self) -> (Option<Error>, Result<(), Error>) {
        let mut errors = self.devices.held.quiesce();
        errors.extend(self.devices.held.release());
        let first = errors.into_iter().next().map_or(Ok(()), Err);
        (self.placement.err(), first)
    }
}
