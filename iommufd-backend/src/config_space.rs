// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Config space of a function, however it is reached.

use address::Bdf;

use crate::device::VfioDevice;
use crate::error::Error;

/// The config space of a function.
pub trait ConfigSpace {
    /// The function.
    fn bdf(&self) -> Bdf;

    /// Reads two bytes at an even `offset`.
    ///
    /// # Errors
    /// [`Error::Device`]
    fn config_word(&self, offset: u16) -> Result<u16, Error>;

    /// Writes two bytes at an even `offset`.
    ///
    /// # Errors
    /// [`Error::Device`]
    fn set_config_word(&self, offset: u16, value: u16) -> Result<(), Error>;
}

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
