// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks the BARs of a PCI function.

use address::Bdf;
use iommufd_backend::{BARS, RegionKind, Resource, TranslatedBar};

use crate::arch;
use crate::checks::host_bridge;
use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::checks::units::size;
use crate::facts::device::{cdev_kind, translated_bar};
use crate::sys_root::SysRoot;

/// [`Id::DeviceBars`]
pub(crate) fn check(root: &SysRoot, bdf: Bdf) -> Line {
    let id = Id::DeviceBars;
    let resources = match root.pci().resources(bdf) {
        Ok(resources) => resources,
        Err(error) => {
            return Line::fail(id, error.to_string(), format!("lspci -vs {bdf}"));
        }
    };
    let bars: Vec<(usize, Resource)> = resources
        .into_iter()
        .take(BARS)
        .enumerate()
        .filter_map(|(index, bar)| Some((index, bar?)))
        .collect();
    if bars.is_empty() {
        return Line::ok(id, "It has none");
    }
    let texts: Vec<_> = bars
        .iter()
        .map(|(index, bar)| bar_text(*index, *bar))
        .collect();
    let text = texts.join(", ");
    let is_lost = |bar: &Resource| bar.kind == RegionKind::Memory && bar.start.is_none();
    if bars.iter().any(|(_, bar)| is_lost(bar)) {
        return Line::fail(
            id,
            format!("{text}: the host assigned no address to a BAR, so a guest cannot use it"),
            "boot the host with pci=realloc on its kernel's command line",
        );
    }
    let translated = translated_bar(root, bdf, cdev_kind(root, bdf));
    if let Some(TranslatedBar { bar, bus, .. }) = translated.ok().flatten() {
        return Line::fail(
            id,
            format!(
                "{text}; but BAR{bar} is at {bus:#x} on the device's bus: a bridge translates \
                 addresses, so the device's DMA would access the wrong memory"
            ),
            format!(
                "lspci -vvt  # shows the bridges above {bdf}; move it to a slot below another one"
            ),
        );
    }
    match arch::described_bridge(root, bdf) {
        Ok(None) => Line::ok(id, text),
        Ok(Some(bridge)) => Line::ok(id, format!("{text}; {}", host_bridge::text(&bridge))),
        Err(error) => Line::fail(id, format!("{text}; but {error}"), error.hint()),
    }
}

fn bar_text(index: usize, bar: Resource) -> String {
    match (bar.kind, bar.start) {
        (RegionKind::Ports, _) => format!("BAR{index} {} ports", bar.size),
        (RegionKind::Memory, Some(start)) => {
            format!("BAR{index} {} at {start:#x}", size(bar.size))
        }
        (RegionKind::Memory, None) => format!("BAR{index} {} nowhere", size(bar.size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::sys_root::tests::Fake;

    const BELOW: &str = "sys/devices/pci0000:00/0000:00:08.0";

    #[test]
    fn a_bar_without_a_place_and_a_garbled_one_are_refused() {
        let fake = Fake::new();
        let disk = fake.disk();
        for text in ["0x0 0x3fff 0x140204\n", "nonsense\n"] {
            fake.write(&format!("{BELOW}/0000:01:00.0/resource"), text);
            assert_eq!(check(&fake.root, disk).verdict, Verdict::Fail);
        }
    }
}
