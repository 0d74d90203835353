// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tests on the real path.

mod addresses;
mod bind;
mod canary;
mod check;
mod check_host;
mod compat;
mod confinement;
mod container;
pub(crate) mod cost;
mod data;
mod ending;
mod false_kernel;
mod gic400;
mod group;
mod guard;
mod guard_cost;
mod guard_hostile;
mod handover;
mod hostile;
mod images;
mod iommufd;
mod kernels;
mod limits;
mod low_memory;
mod packed;
mod pages_64k;
mod pieces;
mod plan;
#[cfg(test)]
mod promises;
#[cfg(test)]
mod provoked;
mod quirks;
mod refusal;
mod restricted;
mod rig;
mod run_options;
mod scattered;
mod script;
mod server;
mod service;
mod step;
mod stress;
mod stress_linux;
mod taken;
mod terminal;
mod traffic;

use std::time::Duration;

use crate::runner::{Case, CaseResult, List, Test};
use crate::setup::Arch;

/// All cases, the longest first, so that two at once end together.
pub const ALL: &[Case] = &[
    case("compat-bare-metal", 250, compat::bare_metal),
    everywhere("stress-nvme", 60, stress::nvme),
    long_everywhere("stress-nvme-long", 240, stress::nvme_long),
    on_pc("translate", 60, scattered::translate),
    long("translate-long", 200, scattered::translate_long),
    everywhere("compat-block", 110, compat::block),
    long_everywhere("compat-block-long", 200, compat::block_long),
    long_everywhere("stress-linux-long", 180, stress_linux::long),
    long("guard-hostile-long", 1500, guard_hostile::long),
    case("hostile", 60, hostile::hostile),
    long("hostile-long", 180, hostile::hostile_long),
    on_pc("guard-hostile", 60, guard_hostile::short),
    long("guard-cost", 240, guard_cost::reads),
    on_pc("stress-edu", 150, stress::edu),
    everywhere("stress-software", 150, stress::software),
    on_pc("scattered-software", 50, stress::scattered),
    long_everywhere("scattered-software-long", 150, stress::scattered_long),
    on_pc("compat-network", 90, compat::network),
    long_everywhere("compat-network-long", 150, compat::network_long),
    case("translate-stock", 120, scattered::stock_driver),
    everywhere("nvme-canary", 120, canary::untouched),
    case("mediate-default", 120, hostile::narrow),
    case("translate-linux", 150, scattered::translate_linux),
    on_pc("guard", 240, guard::stock_kernel),
    case("guard-kernels", 60, guard::old_kernel),
    long("guard-kernels-long", 150, guard::other_kernels),
    long("guard-programs", 240, guard::programs),
    case("guard-control", 90, guard::control),
    case("guard-shapes", 400, guard::shapes),
    case("guard-kills", 300, guard::kills),
    long("guard-kills-long", 2500, guard::many_kills),
    on_pc("mediate", 100, scattered::mediate),
    case("group-kills", 150, group::kills),
    long("group-kills-long", 1500, group::many_kills),
    long("group-kernels", 600, group::other_kernels),
    case("group-modes", 90, group::modes),
    case("group-kill-orders", 90, group::orders),
    on_pc("group", 150, group::stock_kernel),
    case("group-choice", 120, group::choice),
    case("group-ending", 120, group::every_end),
    case("group-taken", 90, group::taken),
    case("group-pins", 60, group::pins),
    long("group-pins-new", 90, group::pins_on_new),
    on_pc("stress-wrong-extent", 100, stress::wrong_extent),
    on_pc("taken", 180, taken::taken),
    case("compat-together", 90, compat::together),
    everywhere("nvme-ending", 90, ending::every_end),
    everywhere("stress-linux", 80, stress_linux::short),
    on_pc("nvme-shaped", 75, data::shaped_hugepages),
    everywhere("control", 75, canary::control),
    case("translation-cost", 60, cost::translation),
    case("group-compat", 75, compat::by_group),
    long("group-compat-long", 150, compat::by_group_long),
    case("compat-iommu", 60, compat::behind_iommu),
    case("kernels", 110, kernels::every_kind),
    on_aarch64("images", 120, images::every_kind),
    on_aarch64("gic-400", 90, gic400::every_interrupt),
    Case {
        list: List::Long,
        ..on_aarch64("pages-64k", 180, pages_64k::stock_kernel)
    },
    on_aarch64("packed", 90, packed::many_pieces),
    on_aarch64("packed-ending", 90, packed::every_end),
    on_aarch64("packed-kills", 150, packed::kills),
    on_aarch64("packed-control", 75, packed::control),
    Case {
        list: List::Long,
        ..on_aarch64("packed-cost", 300, packed::cost)
    },
    everywhere("handover", 75, handover::stock_kernel),
    on_pc("handover-socket", 75, handover::through_a_socket),
    case("handover-refusals", 90, handover::refused),
    everywhere("nvme", 60, data::stock_kernel),
    case("plan", 75, plan::chosen_memory),
    case("old-guest", 60, low_memory::old_guest),
    on_pc("nvme-1g", 60, data::giant_pages),
    case("nvme-no-groups", 60, data::no_groups),
    case("compat-high-memory", 45, compat::high_memory),
    case("refusals", 45, refusal::by_state_and_files),
    case("host-check", 45, check_host::on_a_full_machine),
    case("run-options", 60, run_options::options),
    on_pc("confinement", 90, confinement::threads),
    case("confinement-cost", 60, cost::filters),
    case("pieces", 60, pieces::too_many),
    case("quirks", 120, quirks::quirks),
    case("lines", 90, quirks::lines),
    case("limits", 60, limits::limits),
    case("no-ecam", 45, quirks::without_ecam),
    case("restricted", 60, restricted::restricted),
    case("service", 60, service::systemd),
    case("container", 60, container::stock_kernel),
    case("container-limits", 75, container::limits),
    case("terminal", 60, terminal::modes),
    case("iommufd", 30, iommufd::agreement),
    case("refusals-false-kernel", 45, false_kernel::broken_promises),
    case("group-refusals", 45, group::refusals),
    case("refusals-no-noiommu", 20, refusal::kernel_without_noiommu),
    case("host-check-bare", 15, check_host::on_a_bare_machine),
];

const fn case(name: &'static str, budget: u64, run: fn() -> crate::Result<CaseResult>) -> Case {
    Case {
        name,
        budget: Duration::from_secs(budget),
        list: List::Default,
        test: Test::Pc(run),
    }
}

/// One that is about machines that are no PCs.
const fn on_aarch64(
    name: &'static str,
    budget: u64,
    run: fn() -> crate::Result<CaseResult>,
) -> Case {
    Case {
        test: Test::Aarch64(run),
        ..case(name, budget, run)
    }
}

/// A campaign, of which another case does a tenth or less, or one by itself.
const fn long(name: &'static str, budget: u64, run: fn() -> crate::Result<CaseResult>) -> Case {
    Case {
        list: List::Long,
        ..case(name, budget, run)
    }
}

/// One that machines of every architecture can run.
const fn everywhere(
    name: &'static str,
    budget: u64,
    run: fn(Arch) -> crate::Result<CaseResult>,
) -> Case {
    Case {
        name,
        budget: Duration::from_secs(budget),
        list: List::Default,
        test: Test::Any(run),
    }
}

/// One that machines of every architecture can run, and that runs in every run on PCs.
const fn on_pc(
    name: &'static str,
    budget: u64,
    run: fn(Arch) -> crate::Result<CaseResult>,
) -> Case {
    Case {
        list: List::DefaultOnPc,
        ..everywhere(name, budget, run)
    }
}

/// The same of a campaign.
const fn long_everywhere(
    name: &'static str,
    budget: u64,
    run: fn(Arch) -> crate::Result<CaseResult>,
) -> Case {
    Case {
        list: List::Long,
        ..everywhere(name, budget, run)
    }
}
