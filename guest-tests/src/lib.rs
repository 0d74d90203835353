//! Real boots on an emulated machine without an IOMMU.
