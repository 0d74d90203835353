// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A mediated DMA engine whose device trusts no store, a plain model of what its guest sees, and
//! drivers of random operations. For tests and fuzzing.

#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths and offsets are small, and register values are cut on purpose"
)]

/// What the devices of this module have in common as [`HostFunction`](devices::vfio_pci::HostFunction)s:
/// `info` from the field of that name, unmapping, and interrupts that are never raised.
macro_rules! accessors_without_effect {
    () => {
        fn info(&self) -> &devices::vfio_pci::HostInfo {
            &self.info
        }

        fn unmap(
            &mut self,
            _: u8,
            _: std::ops::Range<u64>,
        ) -> Result<(), devices::vfio_pci::HostError> {
            Ok(())
        }

        fn enable_interrupts(
            &mut self,
            _: devices::vfio_pci::InterruptKind,
            vectors: u16,
        ) -> Result<u16, devices::vfio_pci::HostError> {
            Ok(vectors)
        }

        fn disable_interrupts(&mut self) -> Result<(), devices::vfio_pci::HostError> {
            Ok(())
        }

        fn connect(
            &mut self,
            _: u16,
            _: devices::pci::MsiMessage,
        ) -> Result<(), devices::vfio_pci::HostError> {
            Ok(())
        }

        fn disconnect(&mut self, _: u16) -> Result<(), devices::vfio_pci::HostError> {
            Ok(())
        }

        fn restore_vectors(&mut self) -> Result<(), devices::vfio_pci::HostError> {
            Ok(())
        }

        fn pending(&mut self, _: u16) -> bool {
            false
        }
    };
}

pub mod generated;
mod host;
mod memory;
mod model;
pub mod operations;
pub mod profiles;
mod rig;

pub use host::EduHost;
pub use memory::GuestMemory;
pub use rig::{Bus, Rig};
