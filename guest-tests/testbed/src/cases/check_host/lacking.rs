// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor check` and others on kernels that lack something.

use super::super::step::{STEP, Step};

/// On a kernel that has nothing.
pub const BARE: &[Step] = &[
    Step {
        name: "bare-check",
        command: "pinvisor check --memory 64M $TESTBED_BDF_0,dma=identity",
        status: "2",
        shows: &[
            "OK kernel-version",
            "FAIL kernel-config",
            "FAIL kvm",
            "FAIL iommufd",
            "FAIL unsafe-mode",
            "FAIL hugepages",
            "FAIL device-driver",
        ],
        says: &[
            "CONFIG_VFIO, CONFIG_VFIO_PCI, CONFIG_KVM, CONFIG_KVM_INTEL or CONFIG_KVM_AMD, CONFIG_IOMMU_SUPPORT, \
             CONFIG_IOMMUFD, CONFIG_VFIO_DEVICE_CDEV, CONFIG_HUGETLBFS, CONFIG_VFIO_NOIOMMU, \
             CONFIG_IOMMUFD_NOIOMMU",
            "modprobe vfio-pci",
        ],
        ..STEP
    },
    Step {
        name: "bare-list",
        command: "pinvisor list --json",
        says: &["\"iommufd\": null", "\"bdf\": \"$BDF\"", "\"mode\": null"],
        ..STEP
    },
    Step {
        name: "bare-bind",
        command: "pinvisor bind $TESTBED_BDF_0",
        status: "2",
        error: "bind-no-vfio-pci",
        says: &["modprobe vfio-pci", "CONFIG_VFIO_PCI"],
        ..STEP
    },
    Step {
        name: "bare-unbind",
        command: "pinvisor unbind $TESTBED_BDF_0",
        says: &["already bound to nvme"],
        ..STEP
    },
    Step {
        name: "bare-run",
        // This kernel has no filters of system calls either.
        command: "pinvisor run $ready --seccomp off --device $TESTBED_BDF_0",
        status: "2",
        error: "open-iommufd",
        says: &["CONFIG_IOMMUFD"],
        ..STEP
    },
];

/// On a kernel without noiommu mode.
pub const WITHOUT_NOIOMMU: &[Step] = &[
    Step {
        name: "no-noiommu-check",
        command: "pinvisor check",
        status: "2",
        shows: &["FAIL kernel-config", "FAIL unsafe-mode"],
        says: &["without CONFIG_VFIO_NOIOMMU"],
        ..STEP
    },
    Step {
        name: "no-noiommu-bind",
        command: "pinvisor bind $TESTBED_BDF_0",
        status: "2",
        error: "bind-no-noiommu",
        says: &["$BDF", "CONFIG_VFIO_NOIOMMU", "pinvisor check"],
        ..STEP
    },
];
