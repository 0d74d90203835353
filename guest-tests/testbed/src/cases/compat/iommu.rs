// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `pinvisor` reports about a device behind an IOMMU, before its guests run.

use crate::cases::check::Findings;
use crate::cases::step::{self, STEP, Step};
use crate::machine::Outcome;

/// The first device is an NVMe controller, and bound. There are no hugepages.
pub const STEPS: &[Step] = &[
    Step {
        name: "iommu-unbind",
        before: "say bdf $TESTBED_BDF_0\n",
        command: "pinvisor unbind $TESTBED_BDF_0",
        says: &["$BDF", "bound to nvme again"],
        ..STEP
    },
    Step {
        name: "iommu-unbound",
        command: "pinvisor check --memory 64M $TESTBED_BDF_0",
        status: "2",
        shows: &[
            "OK iommu",
            "OK unsafe-mode",
            "OK hugepages",
            "FAIL device-driver",
            "OK device-siblings",
        ],
        says: &[
            "(dmar0) isolates the devices; --noiommu is not needed",
            "Not needed: only identity-mapped guest memory",
            "next: pinvisor bind $BDF",
            "Not ready: 1 failed, 0 warnings",
        ],
        ..STEP
    },
    Step {
        name: "iommu-bind",
        before: "echo 0 > $unsafe\n",
        command: "pinvisor bind $TESTBED_BDF_0",
        after: "echo 1 > $unsafe\n",
        says: &[
            "taken from nvme",
            "/dev/vfio/devices/vfio",
            "behind an IOMMU",
        ],
        ..STEP
    },
    Step {
        name: "iommu-bound",
        command: "pinvisor check --memory 64M $TESTBED_BDF_0",
        shows: &["OK device-driver", "OK device-cdev"],
        says: &[
            "an IOMMU isolates it; --noiommu is not needed",
            "Ready, with 0 warnings",
        ],
        ..STEP
    },
    Step {
        name: "iommu-machine",
        command: "pinvisor check",
        shows: &["WARN iommu"],
        says: &["omit --noiommu", "Ready, with 1 warning\n"],
        ..STEP
    },
    Step {
        name: "iommu-list",
        command: "pinvisor list --json",
        says: &["\"mode\": \"iommu\"", "\"cdev\": \"/dev/vfio/devices/vfio"],
        ..STEP
    },
    Step {
        name: "iommu-identity",
        command: "pinvisor run --noiommu --kernel /testbed/kernel --memory 64M --device $TESTBED_BDF_0,dma=identity",
        status: "3",
        error: "behind-iommu",
        says: &["$BDF", "omit dma="],
        ..STEP
    },
    Step {
        name: "iommu-auto",
        command: "pinvisor plan --kernel /testbed/kernel --memory 64M --device $TESTBED_BDF_0",
        says: &["PCI device $BDF: dma=iommu", "of ordinary memory"],
        ..STEP
    },
];

/// Script: all of them.
pub fn script(steps: &[Step]) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let scripts: String = steps.iter().map(Step::script).collect();
    step::PRELUDE.to_owned() + &scripts
}

/// What is wrong with what came out.
pub fn problem(steps: &[Step], outcome: &Outcome) -> Option<String> {
    let mut findings = Findings::default();
    for step in steps {
        step.judge(&mut findings, outcome);
    }
    findings.into_result(outcome).err()
}
