//! Every refusal that needs nothing of the host.

use super::{ConfigError, DeviceConfig, DmaMode, MemoryConfig};

/// Refuses a device that cannot be as it is described.
pub(super) fn device(device: &DeviceConfig) -> Result<(), ConfigError> {
    match device.profile {
        Some(_) if device.dma != DmaMode::Mediate => Err(ConfigError::ProfileWithoutMediate),
        _ => Ok(()),
    }
}

/// Refuses memory that is not whole hugepages.
pub(super) fn memory(memory: &MemoryConfig) -> Result<(), ConfigError> {
    let (size, page_size) = (memory.size, memory.page_size());
    match size == 0 || size % page_size.bytes() != 0 {
        true => Err(ConfigError::NotWholePages { size, page_size }),
        false => Ok(()),
    }
}
