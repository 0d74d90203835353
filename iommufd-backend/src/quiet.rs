// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Making a VFIO device quiet: no DMA of its own begins any more, and what had begun has ended.

use address::Bdf;

use crate::device::VfioDevice;
use crate::error::Error;
use crate::evidence::ConfigSpace;

impl ConfigSpace for VfioDevice {
    fn bdf(&self) -> Bdf {
        self.bdf()
    }

    fn config_word(&self, offset: u16) -> Result<u16, Error> {
        let mut data = [0; 2];
        self.config_read(offset, &mut data)?;
        Ok(u16::from_le_bytes(data))
    }

    fn set_config_word(&self, offset: u16, value: u16) -> Result<(), Error> {
        self.config_write(offset, &value.to_le_bytes())
    }
}
