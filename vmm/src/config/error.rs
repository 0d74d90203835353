//! What is wrong with an option's value.

use address::ParseBdfError;
use iommufd_backend::hugepages::HugepageSize;

use super::MOST_CPUS;

/// An option's value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not a size.
    #[error("expected a size such as 512M or 2G, found {0:?}")]
    Size(String),
    /// Not a whole number of hugepages.
    #[error(
        "the size must be a multiple of the hugepage size {page_size} and not 0, found {found:?}"
    )]
    NotWholePages {
        /// The size as given.
        found: String,
        /// The hugepage size.
        page_size: HugepageSize,
    },
    /// A key that is not known.
    #[error("unknown option {found:?}, expected {expected}")]
    Key {
        /// The option as given.
        found: String,
        /// What there is.
        expected: &'static str,
    },
    /// Not the name of a PCI function.
    #[error("{error}, found {found:?}")]
    Bdf {
        /// The name as given.
        found: String,
        /// What is expected.
        error: ParseBdfError,
    },
    /// Not what low memory can be.
    #[error("low memory is auto, ram or reserved, found {0:?}")]
    LowMemory(String),
    /// Not what can come of a restart.
    #[error("a guest's restart is exit or restart, found {0:?}")]
    OnReset(String),
    /// Not a number of CPUs.
    #[error("expected 1 to {MOST_CPUS} CPUs, found {0:?}")]
    Cpus(String),
    /// A profile for a device that is not mediated.
    #[error("profile=FILE goes with dma=mediate only")]
    ProfileWithoutMediate,
    /// A virtual IOMMU.
    #[error(
        "iommu=on: there is no IOMMU for guests, since nothing would enforce its mappings on the \
         device, which would take the guest's I/O virtual addresses for physical ones"
    )]
    GuestIommu,
    /// A hugepage size that is not supported.
    #[error("hugepage_size is 2M or 1G, found {0:?}")]
    HugepageSize(String),
}
