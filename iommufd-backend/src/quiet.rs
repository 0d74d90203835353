//! Making a device quiet: no DMA of its own begins any more, and what had begun has ended.

use std::thread;
use std::time::Duration;

use crate::device::VfioDevice;
use crate::error::Error;

mod pci {
    //! Config space registers (PCI Express Base Specification, section 7.5).
    pub const COMMAND: u16 = 0x04;
    pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
    pub const STATUS: u16 = 0x06;
    pub const STATUS_CAPABILITIES: u16 = 1 << 4;
    pub const CAPABILITIES: u16 = 0x34;
    pub const CAP_EXPRESS: u8 = 0x10;
    /// Device Status, from the start of the PCI Express capability.
    pub const EXPRESS_STATUS: u16 = 0x0a;
    pub const EXPRESS_STATUS_PENDING: u16 = 1 << 5;
    /// A list of capabilities has no room for more than this.
    pub const MOST_CAPABILITIES: usize = 48;
}

impl VfioDevice {
    /// Stops all DMA of the function: turns bus mastering off and waits until what it had under
    /// way has ended. Nobody else may be able to turn it on again by then.
    ///
    /// # Errors
    /// [`Error::Device`], [`Error::DeviceUnusable`] if bus mastering cannot be turned off.
    pub fn stop_dma(&self) -> Result<(), Error> {
        self.bus_master_off()?;
        self.wait_for_transactions()
    }

    /// Whether the function is a PCI Express one. A conventional one often addresses 32 bits.
    ///
    /// # Errors
    /// [`Error::Device`]
    pub fn is_express(&self) -> Result<bool, Error> {
        Ok(self.express_capability()?.is_some())
    }

    /// Turns bus mastering off and reads back that it is. The read also makes sure that what the
    /// function wrote before has arrived (PCI ordering: a completion pushes posted writes).
    fn bus_master_off(&self) -> Result<(), Error> {
        let command = self.config_word(pci::COMMAND)?;
        let quiet = command & !pci::COMMAND_BUS_MASTER;
        self.config_write(pci::COMMAND, &quiet.to_le_bytes())?;
        if self.config_word(pci::COMMAND)? & pci::COMMAND_BUS_MASTER != 0 {
            return Err(Error::DeviceUnusable {
                bdf: self.bdf(),
                reason: "its bus mastering cannot be turned off".into(),
            });
        }
        log::debug!("{}: bus mastering is off", self.bdf());
        Ok(())
    }

    /// Waits until the function's Transactions Pending bit is clear, for as long as the PCI
    /// specification gives a function for that before a reset (100 ms), times two.
    fn wait_for_transactions(&self) -> Result<(), Error> {
        let Some(express) = self.express_capability()? else {
            return Ok(());
        };
        for _ in 0..20 {
            let status = self.config_word(express + pci::EXPRESS_STATUS)?;
            // All ones: the function is gone from the bus.
            if status & pci::EXPRESS_STATUS_PENDING == 0 || status == u16::MAX {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        log::warn!(
            "{}: transactions are still pending 200 ms after bus mastering went off",
            self.bdf()
        );
        Ok(())
    }

    /// Offset of the PCI Express capability, if there is one.
    fn express_capability(&self) -> Result<Option<u16>, Error> {
        if self.config_word(pci::STATUS)? & pci::STATUS_CAPABILITIES == 0 {
            return Ok(None);
        }
        let mut at = self.config_word(pci::CAPABILITIES)? & 0xfc;
        for _ in 0..pci::MOST_CAPABILITIES {
            if at < 0x40 {
                return Ok(None);
            }
            let [id, next] = self.config_word(at)?.to_le_bytes();
            if id == pci::CAP_EXPRESS {
                return Ok(Some(at));
            }
            at = u16::from(next & 0xfc);
        }
        Ok(None)
    }
}
