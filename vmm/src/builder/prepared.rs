//! A guest's memory and devices in place, before anything of the guest's is in them.

use std::sync::Arc;

use super::boot::{self, BootFiles};
use super::devices::Devices;
use super::low_memory::LowMemoryUse;
use super::memory::{self, Memory};
use crate::boot::command_line;
use crate::boot::place::Placement;
use crate::config::Config;
use crate::error::Error;
use crate::host_map::HostMap;
use crate::kvm::vm::Vm;
use crate::limits;
use crate::memory::layout::Layout;
use crate::memory::pieces;
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
    /// Whether memory is in no more pieces than are safe, or than the user accepts.
    pub pieces: Result<(), Error>,
    /// What the guest is told of its first MiB.
    pub low: LowMemoryUse,
    /// Whether the kernel is known to be Linux.
    pub is_linux: bool,
}

impl Prepared {
    /// Binds the devices, pins and places memory. `identity` is the layout for devices that use
    /// physical addresses.
    pub fn new(config: &Config, identity: &dyn Layout, phases: &mut Phases) -> Result<Self, Error> {
        limits::raise_open_files(config.devices.len(), config.cpus.get())?;
        let files = BootFiles::open(config)?;
        let release = files.release()?;
        let is_linux = release.is_some();
        files.check_command_line(&config.command_line, is_linux)?;
        phases.done("open files");
        let mut devices = Devices::bind(config)?;
        phases.done("bind");
        let vm = Vm::new()?;
        let host_map = devices.host_map()?;
        phases.done("create VM");
        let memory = Memory::prepare(
            &config.memory,
            (identity, &|ranges| files.fit(ranges, config.memory.size)),
            &mut devices,
            (&vm, &host_map),
            phases,
        )?;
        let placement = files.place(&memory.plan);
        let pieces = match &memory.choice {
            Some(choice) if !config.memory.any_pieces => {
                pieces::check(choice, config.memory.page_size()).map_err(Error::from)
            }
            _ => Ok(()),
        };
        let low = if devices.need_identity() {
            LowMemoryUse::identity(config.low_memory, release)
        } else {
            LowMemoryUse::conventional(config.low_memory)
        };
        Ok(Self {
            files,
            devices,
            vm,
            host_map,
            memory,
            placement,
            pieces,
            low,
            is_linux,
        })
    }

    /// What may go wrong in the guest, whose kernel has this command line.
    pub fn warnings(&self, command_line: &str) -> Result<Vec<String>, Error> {
        let is_identity = self.devices.need_identity();
        let ranges = self.memory.plan.ranges();
        let mut all = memory::narrow_warnings(self.memory.summary, &self.devices);
        if let Ok(placement) = &self.placement {
            let low = (placement.kernel.start, self.low);
            let map = boot::memory_map(&self.memory.plan, &self.host_map, low)?;
            all.extend(boot::warnings(&self.memory.plan, &map));
            if is_identity && self.is_linux {
                let taken: Vec<_> = [placement.kernel.clone()]
                    .into_iter()
                    .chain(placement.initramfs.clone())
                    .collect();
                let missed = command_line::bounce_buffers(command_line, &ranges, &taken);
                all.extend(memory::bounce_warnings(
                    missed,
                    self.memory.summary,
                    &self.devices,
                ));
            }
        }
        if self.is_linux {
            let layout = command_line::Layout {
                ranges: &ranges,
                is_identity,
            };
            all.extend(command_line::warnings(command_line, layout));
        }
        Ok(all)
    }

    /// Why the guest cannot run, if so.
    pub fn obstacle(&self) -> Option<&Error> {
        let unplaced = self.placement.as_ref().err();
        unplaced.or(self.pieces.as_ref().err())
    }

    /// Gives everything back: the devices first, then memory. Returns why the guest cannot run, if
    /// so, and the first thing that went wrong; the later steps are taken all the same.
    pub fn take_apart(mut self) -> (Option<Error>, Result<(), Error>) {
        let mut errors = self.devices.held.quiesce();
        errors.extend(self.devices.held.release());
        let first = errors.into_iter().next().map_or(Ok(()), Err);
        (self.placement.err().or(self.pieces.err()), first)
    }
}
