// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory in pages, and a record of interrupts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::pci::MsiMessage;
use software_edu::{DmaMemory, DmaRefused, InterruptSink};

/// Bytes of a page of [`Ram`].
pub const PAGE: u64 = 4096;

/// Memory with holes: what is at each page number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ram(BTreeMap<u64, Vec<u8>>);

impl Ram {
    /// Pages at these addresses, each byte of which encodes its address.
    pub fn new(addresses: impl IntoIterator<Item = u64>) -> Self {
        let page = |address: u64| {
            let number = address / PAGE;
            let byte = |at: u64| (at.wrapping_mul(7) ^ at >> 8 ^ number) & 0xff;
            (number, (0..PAGE).map(|at| byte(at) as u8).collect())
        };
        Self(addresses.into_iter().map(page).collect())
    }

    /// The byte at `address`.
    pub fn byte(&mut self, address: u64) -> Option<&mut u8> {
        let page = self.0.get_mut(&(address / PAGE))?;
        page.get_mut((address % PAGE) as usize)
    }
}

/// [`Ram`] as an engine reaches it. Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub struct TestMemory(Arc<Mutex<Ram>>);

impl TestMemory {
    /// An engine's access to `ram`.
    #[must_use]
    pub fn new(ram: Ram) -> Self {
        Self(Arc::new(Mutex::new(ram)))
    }

    /// The memory.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn ram(&self) -> MutexGuard<'_, Ram> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn burst<'a>(
        &self,
        address: u64,
        data: impl ExactSizeIterator<Item = &'a mut u8>,
        mut copy: impl FnMut(&mut u8, &mut u8),
    ) -> Result<(), DmaRefused> {
        let length = data.len() as u64;
        assert!((1..=256).contains(&length), "a burst of {length} bytes");
        let last = address + (length - 1);
        assert_eq!(address / 256, last / 256, "from {address:#x} to {last:#x}");
        let mut ram = self.ram();
        if (address..=last).any(|address| ram.byte(address).is_none()) {
            return Err(DmaRefused);
        }
        for (address, byte) in (address..=last).zip(data) {
            copy(ram.byte(address).ok_or(DmaRefused)?, byte);
        }
        Ok(())
    }
}

impl DmaMemory for TestMemory {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaRefused> {
        self.burst(address, data.iter_mut(), |memory, byte| *byte = *memory)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaRefused> {
        let mut data = data.to_vec();
        self.burst(address, data.iter_mut(), |memory, byte| *memory = *byte)
    }
}

/// Calls of an engine to its sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Message(MsiMessage),
    /// INTA# goes to this level.
    Line(bool),
}

/// A sink that records its calls. Clones are the same sink.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    /// What came since the last call.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InterruptSink for Events {
    fn message(&self, message: MsiMessage) {
        self.lock().push(Event::Message(message));
    }

    fn line(&self, asserted: bool) {
        self.lock().push(Event::Line(asserted));
    }
}
