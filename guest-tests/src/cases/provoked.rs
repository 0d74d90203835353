//! That every check and every refusal is provoked on a test machine, or why one cannot be.

/// A refusal that no step provokes.
#[derive(Debug)]
pub struct Never {
    /// Its name.
    pub id: &'static str,
    /// Why not.
    pub reason: &'static str,
    /// The file, from the root of the checkout, of the unit test that covers it.
    pub file: &'static str,
    /// That test's name; empty where nothing can bring it about.
    pub test: &'static str,
}

/// All that are listed with a reason.
pub const NEVER: &[Never] = &[
    Never {
        id: "physical",
        reason: "the kernel tells no physical address beyond 52 bits",
        file: "devices/src/dma_window/tests/memory.rs",
        test: "what_cannot_be_memory_is_refused",
    },
    Never {
        id: "page-tables",
        reason: "the boot page tables have room for the largest plan",
        file: "vmm/src/arch/page_tables.rs",
        test: "what_does_not_fit_is_refused",
    },
    Never {
        id: "acpi",
        reason: "the tables have room for the largest machine",
        file: "vmm/src/acpi/mod.rs",
        test: "the_tables_of_the_largest_machine_fit",
    },
    Never {
        id: "software",
        reason: "synthetic memory has room for all that the command line takes",
        file: "iommufd-backend/src/software/tests.rs",
        test: "impossible_pins_are_refused_and_cost_nothing",
    },
    Never {
        id: "device-with-software",
        reason: "the command line is refused before",
        file: "vmm/src/cli/stress.rs",
        test: "a_stress_run_is_in_software_or_on_devices",
    },
    Never {
        id: "function",
        reason: "needs a device whose config space contradicts itself; vfio-pci takes endpoints only",
        file: "devices/src/vfio_pci/tests/config.rs",
        test: "devices_that_are_no_endpoints_are_refused",
    },
    Never {
        id: "engine",
        reason: "the monitor itself chooses where the engine stands",
        file: "devices/src/edu/tests/device.rs",
        test: "a_bar_stands_only_on_its_own_size",
    },
    Never {
        id: "root",
        reason: "the monitor itself numbers the functions",
        file: "devices/src/pci/tests/mod.rs",
        test: "functions_go_where_there_is_room_beside_function_0",
    },
    Never {
        id: "extent",
        reason: "the kernel tells no empty extent and none that wraps",
        file: "iommufd-backend/src/extent.rs",
        test: "refuses_what_is_no_extent",
    },
    Never {
        id: "pinned",
        reason: "the monitor pins memory once",
        file: "iommufd-backend/src/backend.rs",
        test: "what_is_refused_leaves_no_trace",
    },
    Never {
        id: "device-unusable",
        reason: "needs a device that vfio-pci describes wrongly, or that does not become quiet",
        file: "iommufd-backend/src/region.rs",
        test: "contradictions_are_errors",
    },
    Never {
        id: "misaligned",
        reason: "the kernel aligns hugepages to their size",
        file: "iommufd-backend/src/software/tests.rs",
        test: "impossible_pins_are_refused_and_cost_nothing",
    },
    Never {
        id: "panicked",
        reason: "only a bug of the monitor's own brings it about",
        file: "vmm/src/exit.rs",
        test: "a_panic_ends_the_guest_and_a_return_does_not",
    },
    // Nothing but a fault of the kernel's can bring these about: it refuses what it has said it can do.
    Never {
        id: "irq",
        reason: "KVM takes every route that its documentation allows",
        file: "",
        test: "",
    },
    Never {
        id: "entry",
        reason: "KVM takes every register that a vCPU is started with",
        file: "",
        test: "",
    },
    Never {
        id: "passthrough",
        reason: "what a device refuses while it is plugged in it has offered before",
        file: "",
        test: "",
    },
    Never {
        id: "guest-ram",
        reason: "extents of a checked plan are in order and do not overlap",
        file: "",
        test: "",
    },
    Never {
        id: "load",
        reason: "a checked plan has a place for all that is loaded, and files of it were measured",
        file: "",
        test: "",
    },
    Never {
        id: "iommufd",
        reason: "a kernel that opens a noiommu device has every command",
        file: "",
        test: "",
    },
    Never {
        id: "translate",
        reason: "the capability is asked for when the device is opened already",
        file: "guest-tests/src/bin/kernel-check/refusals.rs",
        test: "",
    },
    Never {
        id: "moved",
        reason: "the kernel does not move pinned pages",
        file: "",
        test: "",
    },
    Never {
        id: "time-limit",
        reason: "only a stress run has a limit, and its report tells of it",
        file: "",
        test: "",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::super::step::Step;
    use super::super::{bind, check_host, refusal};
    use super::*;
    use crate::paths;

    fn steps() -> impl Iterator<Item = &'static Step> {
        [
            refusal::BY_FILE,
            refusal::BY_STATE,
            refusal::BY_KERNEL,
            check_host::CHECK,
            check_host::BARE,
            check_host::WITHOUT_NOIOMMU,
            bind::BIND,
        ]
        .into_iter()
        .flatten()
    }

    fn shown(verdicts: &[&str]) -> BTreeSet<&'static str> {
        steps()
            .flat_map(|step| step.shows)
            .filter_map(|shown| shown.split_once(' '))
            .filter(|(verdict, _)| verdicts.contains(verdict))
            .map(|(_, id)| id)
            .collect()
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = steps().map(|step| step.name).collect();
        assert_eq!(names.len(), steps().count());
    }

    #[test]
    fn every_check_is_provoked_both_ways() {
        let all: BTreeSet<_> = host_check::Id::all().map(host_check::Id::name).collect();
        assert_eq!(shown(&["OK"]), all);
        assert_eq!(shown(&["WARN", "FAIL"]), all);
    }

    #[test]
    fn every_refusal_is_provoked_or_has_a_reason() {
        let provoked: BTreeSet<_> = steps()
            .map(|step| step.error)
            .filter(|error| !error.is_empty())
            .collect();
        let never: BTreeSet<_> = NEVER.iter().map(|never| never.id).collect();
        let both: Vec<_> = provoked.intersection(&never).collect();
        assert!(both.is_empty(), "provoked after all: {both:?}");
        let all: BTreeSet<_> = vmm::Error::ids().collect();
        let found: BTreeSet<_> = provoked.union(&never).copied().collect();
        let without: Vec<_> = all.difference(&found).collect();
        assert!(without.is_empty(), "without a step: {without:?}");
        let unknown: Vec<_> = found.difference(&all).collect();
        assert!(unknown.is_empty(), "no such refusal: {unknown:?}");
    }

    #[test]
    fn what_is_never_provoked_is_tested_elsewhere() {
        for Never {
            id,
            reason,
            file,
            test,
        } in NEVER
        {
            assert!(!reason.is_empty(), "{id}");
            if !file.is_empty() {
                let text = fs::read_to_string(paths::checkout().join(file)).unwrap();
                assert!(text.contains(&format!("fn {test}")), "{id}: {test}");
            }
        }
    }
}
