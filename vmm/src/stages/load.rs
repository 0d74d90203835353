// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The seventh stage: kernel, initramfs and boot data are in guest memory.

use std::borrow::Cow;
use std::sync::Arc;

use super::inspect::Guest;
use super::map::Mapped;
use super::plan::GuestLayout;
use crate::arch::{self, Handover, Start, Vcpus};
use crate::error::Error;
use crate::kvm::vm::Vm;
use crate::teardown::Resources;

/// A guest whose memory is as its kernel expects it, and CPUs that are not set up yet.
#[derive(Debug)]
pub(crate) struct Loaded<'a> {
    pub(super) guest: Guest<'a>,
    pub(super) vm: Arc<Vm>,
    pub(super) resources: Resources,
    pub(super) layout: GuestLayout,
    pub(super) vcpus: Vcpus,
    pub(super) start: Start,
}

impl<'a> Mapped<'a> {
    /// Creates vCPUs and loads the kernel. Linux may have to be told about its CPUs, so they come first.
    pub fn load(self) -> Result<Loaded<'a>, Error> {
        let Self {
            mut guest,
            vm,
            resources,
            layout,
            placement,
        } = self;
        let config = guest.config;
        let vcpus = Vcpus::create(&vm, config.cpus.get())?;
        vm.controllers().complete()?;
        let command_line = match guest.release {
            Some(_) => vcpus.command_line(&config.command_line),
            None => Cow::from(&config.command_line),
        };
        let platform = vm
            .controllers()
            .platform(config.cpus.get(), guest.bus.map.clone());
        let memory = resources.ram.memory();
        let at = guest.files.load(&placement, memory)?;
        let handover = Handover {
            memory,
            plan: &layout.memory,
            low: layout.low,
            platform: &platform,
            command_line: &command_line,
        };
        let start = handover.write(placement, at, guest.files.protocol())?;
        let bus = guest.bus.map.as_ref();
        if bus.is_some_and(|bus| !bus.is_coherent) {
            arch::clean_caches(memory);
        }
        Ok(Loaded {
            guest,
            vm,
            resources,
            layout,
            vcpus,
            start,
        })
    }
}
