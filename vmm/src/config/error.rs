//! What is wrong with an option's value.

use std::fmt;

use iommufd_backend::hugepages::HugepageSize;

/// An option's value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not in the option's grammar.
    #[error("{0}")]
    Text(String),
    /// Not a whole number of hugepages.
    #[error(
        "the size must be a multiple of the hugepage size {page_size} and not 0, found {size} bytes"
    )]
    NotWholePages {
        /// The size in bytes.
        size: u64,
        /// The hugepage size.
        page_size: HugepageSize,
    },
    /// A profile for a device whose registers are not mediated.
    #[error("profile=FILE requires dma=mediate")]
    ProfileWithoutMediate,
    /// A virtual IOMMU.
    #[error(
        "iommu=on: there is no IOMMU for guests, since nothing would enforce its mappings on the \
         device, which would take the guest's I/O virtual addresses for physical ones"
    )]
    GuestIommu,
}

impl serde::de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Text(message.to_string())
    }
}
