// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest, its controller and the model device, put together as a monitor does.

use std::time::Duration;

use address::Gpa;
use guarded_nvme::controller::{AttachError, Config, Controller, Next};
use guarded_nvme::guest::Doorbell;
use guarded_nvme::registers::{Layout, Registers, Store};
use guarded_nvme::spec::registers::CC;

use crate::model::{Model, ModelDevice, Personality};
use crate::{GuestMachine, GuestRam};

/// All of it.
#[derive(Debug)]
pub struct Rig {
    /// The guest.
    pub machine: GuestMachine,
    /// The device.
    pub model: Model,
    /// The guest's registers.
    pub registers: Registers,
    /// The controller between them.
    pub controller: Controller<ModelDevice, GuestMachine>,
    now: Duration,
}

impl Rig {
    /// A guest with this memory, and a device like this, on a host with pages of 4 KiB.
    ///
    /// # Errors
    ///
    /// If the device cannot be attached.
    pub fn new(ram: GuestRam, personality: Personality, seed: u64) -> Result<Self, AttachError> {
        let config = Config {
            queues: 4,
            vectors: 5,
            mdts: 9,
        };
        Self::with(ram, personality, config, seed)
    }

    /// The same with other numbers.
    ///
    /// # Errors
    ///
    /// If the device cannot be attached.
    pub fn with(
        ram: GuestRam,
        personality: Personality,
        config: Config,
        seed: u64,
    ) -> Result<Self, AttachError> {
        let model = Model::new(ram.physical().clone(), personality, seed);
        let machine = GuestMachine::new(ram);
        let controller = Controller::attach(model.device(), machine.clone(), config)?;
        let layout = Layout::new(4096, controller.queues(), config.vectors).expect("a layout");
        Ok(Self {
            registers: Registers::new(controller.identity(), layout),
            machine,
            model,
            controller,
            now: Duration::ZERO,
        })
    }

    /// Parts that were put together elsewhere.
    #[must_use]
    pub fn of(
        machine: GuestMachine,
        model: Model,
        registers: Registers,
        controller: Controller<ModelDevice, GuestMachine>,
    ) -> Self {
        Self {
            machine,
            model,
            registers,
            controller,
            now: Duration::ZERO,
        }
    }

    /// The guest's memory.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        self.machine.ram()
    }

    /// A load of the guest's, of 4 bytes.
    #[must_use]
    pub fn read(&self, offset: u32) -> u32 {
        let mut data = [0; 4];
        self.registers.read(offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    /// A store of the guest's, of any width.
    pub fn store(&mut self, offset: u64, data: &[u8]) {
        if let Store::Doorbell(doorbell, value) = self.registers.write(offset, data) {
            self.machine.ring(doorbell, value);
        }
    }

    /// A store of the guest's, of 4 bytes.
    pub fn write(&mut self, offset: u32, value: u32) {
        self.store(offset.into(), &value.to_le_bytes());
    }

    /// A store to a doorbell.
    pub fn ring(&mut self, doorbell: Doorbell, value: u16) {
        let offset = self.registers.layout().doorbell(doorbell);
        self.store(offset, &u32::from(value).to_le_bytes());
    }

    /// The monitor's thread, once.
    pub fn service(&mut self) -> Next {
        if let Some(change) = self.registers.take_change() {
            self.controller.configure(change);
        }
        let next = self.controller.service(self.now);
        self.registers.show(self.controller.shown());
        next
    }

    /// Lets time pass.
    pub fn sleep(&mut self, time: Duration) {
        self.now += time;
    }

    /// The device and the monitor in turn, so many times.
    pub fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.model.steps(8);
            self.service();
        }
    }

    /// The same until something is so.
    pub fn run_until(&mut self, mut is_so: impl FnMut(&Self) -> bool) -> bool {
        for _ in 0..5000 {
            if is_so(self) {
                return true;
            }
            self.run(1);
            self.sleep(Duration::from_micros(100));
        }
        false
    }

    /// Resets the function as the guest asks for it.
    ///
    /// # Errors
    ///
    /// If the device cannot be reset.
    pub fn reset(&mut self) -> Result<(), guarded_nvme::device::DeviceError> {
        self.registers.reset();
        let result = self.controller.reset();
        self.registers.show(self.controller.shown());
        result
    }

    /// Stores the admin queues' registers: addresses and number of entries.
    pub fn set_admin_queues(&mut self, submission: Gpa, completion: Gpa, size: u32) {
        self.write(0x24, (size - 1) | (size - 1) << 16);
        self.store(0x28, &submission.0.to_le_bytes());
        self.store(0x30, &completion.0.to_le_bytes());
    }

    /// Stores CC.
    pub fn configure(&mut self, value: u32) {
        self.write(CC, value);
    }

    /// CSTS: RDY and CFS.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.read(0x1c) & 1 != 0
    }

    /// CSTS.CFS.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.read(0x1c) & 2 != 0
    }
}
