// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

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
    /// That test's name.
    pub test: &'static str,
}

/// All that are listed with a reason.
pub const NEVER: &[Never] = &[
    Never {
        id: "panicked",
        reason: "only a bug in the monitor causes it",
        file: "vmm/src/run/exit.rs",
        test: "a_panic_ends_the_guest_and_a_return_does_not",
    },
    Never {
        id: "config",
        reason: "the command line and the file are refused before",
        file: "vmm/src/config/validate.rs",
        test: "values_that_no_parser_saw_are_checked",
    },
    Never {
        id: "device-with-software",
        reason: "the command line is refused before",
        file: "guest-tests/stress/src/cli.rs",
        test: "a_stress_run_is_in_software_or_on_devices",
    },
    Never {
        id: "not-packed",
        reason: "a PC's guest is refused packed memory before",
        file: "vmm/src/stages/inspect/packing.rs",
        test: "packed_memory_is_for_devices_that_use_physical_addresses",
    },
    Never {
        id: "engine",
        reason: "the monitor itself places the engine",
        file: "guest-tests/stress/software-edu/tests/edu/device.rs",
        test: "a_bar_is_aligned_to_its_size",
    },
    Never {
        id: "root",
        reason: "the monitor itself places config space and functions",
        file: "devices/src/pci/tests/mod.rs",
        test: "functions_go_where_there_is_room_beside_function_0",
    },
    Never {
        id: "acpi",
        reason: "the tables have room for the largest machine",
        file: "vmm/src/arch/x86_64/acpi/mod.rs",
        test: "the_tables_of_the_largest_machine_fit",
    },
    Never {
        id: "page-tables",
        reason: "the boot page tables have room for the largest plan",
        file: "vmm/src/arch/x86_64/page_tables.rs",
        test: "what_does_not_fit_is_refused",
    },
    Never {
        id: "keeper",
        reason: "the program is there, as it is running, and so is the keeper until it is killed",
        file: "vmm/keeper/src/start.rs",
        test: "one_that_does_not_answer_is_reported",
    },
    Never {
        id: "not-quiet",
        reason: "the monitor leaves memory to a keeper where evidence is missing",
        file: "iommufd-backend/src/noiommu.rs",
        test: "every_attached_device_needs_evidence_of_its_own",
    },
    Never {
        id: "out-of-reach",
        reason: "no bridge of an emulated machine reaches less than all memory",
        file: "vmm/src/memory/backing/tests.rs",
        test: "pages_that_devices_do_not_reach_are_missing",
    },
    Never {
        id: "page-absent",
        reason: "memory is populated before it is pinned, and stays mapped until its addresses are read",
        file: "iommufd-backend/src/pagemap.rs",
        test: "a_page_is_where_the_kernel_shows_it_or_there_is_an_error",
    },
    Never {
        id: "guest-ram",
        reason: "pieces of a checked plan are in order and do not overlap",
        file: "vmm/src/memory/guest.rs",
        test: "pieces_that_overlap_are_refused",
    },
];

/// Whether the file has a test of that name.
pub fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let found = lines
        .iter()
        .position(|line| line.starts_with(&format!("fn {name}(")));
    let above = lines[..found.unwrap_or(0)].iter().rev();
    let attributes: Vec<_> = above.take_while(|line| line.starts_with("#[")).collect();
    let has = |start| attributes.iter().any(|line| line.starts_with(start));
    has("#[test]") && !has("#[ignore")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::super::step::Step;
    use super::super::{
        addresses, bind, check_host, false_kernel, group, handover, limits, low_memory, pieces,
        refusal, restricted,
    };
    use super::*;
    use crate::paths;

    fn steps() -> impl Iterator<Item = &'static Step> {
        [
            refusal::BY_FILE,
            refusal::BY_STATE,
            addresses::ADDRESSES,
            refusal::BY_KERNEL,
            false_kernel::FALSE_KERNEL,
            check_host::MACHINE,
            check_host::DEVICES,
            check_host::BARE,
            check_host::WITHOUT_NOIOMMU,
            bind::BIND,
            low_memory::STEPS,
            pieces::PIECES,
            limits::LIMITS,
            restricted::RESTRICTED,
            group::GROUP,
            handover::REFUSALS,
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
        let all: BTreeSet<_> = host::Id::all().map(host::Id::name).collect();
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
        let all: BTreeSet<_> = pinvisor_stress::Error::ids().collect();
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
            let text = fs::read_to_string(paths::checkout().join(file)).unwrap();
            assert!(has_test(&text, test), "{id}: no test {test} in {file}");
        }
    }

    #[test]
    fn only_tests_count_as_tests() {
        let text = "#[test]\n#[x]\nfn a() {\n}\nfn b() {\n}\n#[ignore]\n#[test]\nfn c() {\n}";
        for (name, counts) in [("a", true), ("b", false), ("c", false), ("d", false)] {
            assert_eq!(has_test(text, name), counts, "{name}");
        }
    }
}
