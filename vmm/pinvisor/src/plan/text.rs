// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A plan as text, for a terminal.

use std::fmt::Write;

use address::units::{Hex, Memory};

use vmm::report::{BusRange, Cost, Plan};

/// The plan as text.
pub fn text(plan: &Plan) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = summary(&mut out, plan)
        .and_then(|()| costs(&mut out, plan))
        .and_then(|()| addresses(&mut out, plan))
        .and_then(|()| host_bridge(&mut out, plan))
        .and_then(|()| devices(&mut out, plan))
        .and_then(|()| notes(&mut out, plan));
    out
}

fn summary(out: &mut String, plan: &Plan) -> std::fmt::Result {
    let pages = match plan.memory.hugepage_size {
        Some(size) => format!("hugepages of {}", Memory(size)),
        None => "ordinary memory".to_owned(),
    };
    let layout = match plan.memory.layout {
        "identity" => "guest-physical = host-physical",
        "packed" => {
            "at conventional addresses, which the guest's device tree translates for devices"
        }
        _ => "at conventional addresses",
    };
    writeln!(
        out,
        "Guest memory: {} of {pages}, {layout}",
        Memory(plan.memory.length)
    )?;
    let slots = plan.memslots;
    writeln!(
        out,
        "Memslots: {} for memory, up to {} for BARs, of {}",
        slots.ram, slots.kept_for_bars, slots.limit
    )
}

/// What the layout costs the guest's kernel, beside what it might.
fn costs(out: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(out, "\nCost of the layout for the guest's kernel")?;
    writeln!(
        out,
        "  {:<22} {:>7} {:>9} {:>9} {:>10} {:>11} {:>10}",
        "", "extents", "largest", "sections", "memmap", "page tables", "below 4G"
    )?;
    let row = |out: &mut String, name: &str, cost: &Cost| {
        writeln!(
            out,
            "  {name:<22} {:>7} {:>9} {:>9} {:>10} {:>11} {:>10}",
            cost.extents,
            Memory(cost.largest),
            cost.sections,
            Memory(cost.memmap),
            Memory(cost.page_tables),
            Memory(cost.below_4g)
        )
    };
    row(out, "this layout", &plan.cost)?;
    if let Some(choice) = &plan.choice {
        row(out, "without a choice", &choice.naive)?;
    }
    row(out, "in one extent", &plan.cost_in_one_extent)?;
    match &plan.choice {
        Some(choice) if choice.pinned > choice.kept => writeln!(
            out,
            "  {} hugepages were pinned, {} of them kept, the others released",
            choice.pinned, choice.kept
        ),
        _ => Ok(()),
    }
}

/// A line of the address map.
struct Line {
    start: u64,
    end: u64,
    text: String,
}

fn addresses(out: &mut String, plan: &Plan) -> std::fmt::Result {
    let mut lines = Vec::new();
    let entries = plan.memory_map.iter();
    lines.extend(entries.map(|entry| Line {
        start: entry.start,
        end: entry.end,
        text: entry.kind.to_owned(),
    }));
    for extent in &plan.extents {
        let pieces = match extent.file_pieces {
            1 => String::new(),
            count => format!(", {count} pieces of the file"),
        };
        let line = lines.iter_mut().find(|line| line.start == extent.gpa);
        match line {
            Some(line) => line.text.push_str(&pieces),
            None => lines.push(Line {
                start: extent.gpa,
                end: extent.gpa + extent.length,
                text: format!("ram{pieces}"),
            }),
        }
    }
    for place in &plan.places {
        // What lies in RAM, or in another place, is moved in.
        let inside = |line: &Line| line.start <= place.start && place.end <= line.end;
        let indent = if lines.iter().any(inside) { "  " } else { "" };
        lines.push(Line {
            start: place.start,
            end: place.end,
            text: format!("{indent}{}", place.name),
        });
    }
    lines.sort_by(|a, b| (a.start, b.end).cmp(&(b.start, a.end)));
    writeln!(out, "\nGuest-physical addresses")?;
    for line in lines {
        writeln!(
            out,
            "  {:>16}  {:>10}  {}",
            Hex(line.start),
            Memory(line.end - line.start),
            line.text
        )?;
    }
    let below = plan.cost.below_4g;
    match below {
        0 => writeln!(
            out,
            "  No memory is below 4 GiB: devices with 32 address bits cannot be used"
        ),
        _ => writeln!(
            out,
            "  {} below 4 GiB, for devices with 32 address bits",
            Memory(below)
        ),
    }
}

fn host_bridge(out: &mut String, plan: &Plan) -> std::fmt::Result {
    let Some(bridge) = &plan.host_bridge else {
        return Ok(());
    };
    let caches = match bridge.is_coherent {
        true => "DMA sees the CPU's caches",
        false => "DMA bypasses the CPU's caches",
    };
    let pages = Memory(bridge.host_page_size);
    writeln!(
        out,
        "\nHost bridge: {caches}; pages of the host kernel have {pages}"
    )?;
    let named = [("BARs", &bridge.windows), ("memory", &bridge.memory)];
    for (name, ranges) in named {
        for range in ranges {
            let BusRange { start, end, bus } = *range;
            let (start, end, bus) = (Hex(start), Hex(end), Hex(bus));
            writeln!(out, "  {name:<6}  {start}-{end}, on the bus from {bus} on")?;
        }
    }
    Ok(())
}

fn devices(out: &mut String, plan: &Plan) -> std::fmt::Result {
    for device in &plan.devices {
        let bits = match device.dma_bits {
            Some(64) => String::new(),
            Some(bits) => format!(", may have only {bits} address bits"),
            None => ", may have only 32 address bits".into(),
        };
        writeln!(out, "\nPCI device {}: dma={}{bits}", device.bdf, device.dma)?;
        for mode in &device.modes {
            let can = if mode.possible { "yes" } else { "no" };
            writeln!(out, "  {:<9}  {can:<3}  {}", mode.name, mode.why)?;
        }
    }
    Ok(())
}

fn notes(out: &mut String, plan: &Plan) -> std::fmt::Result {
    if !plan.warnings.is_empty() {
        writeln!(out)?;
    }
    for warning in &plan.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm::report::sample;

    #[test]
    fn what_lies_in_something_else_is_moved_in() {
        let text = text(&sample());
        let ends = |end: &str| text.lines().any(|line| line.ends_with(end));
        assert!(ends("128 MiB  ram"), "{text}");
        assert!(ends("64 MiB    kernel"), "{text}");
        assert!(ends("16 KiB    0000:01:00.0 BAR0"), "{text}");
        assert!(ends("4 KiB  I/O APIC"), "{text}");
        let line = |word: &str| {
            let mut lines = text.lines();
            lines.find(|line| line.contains(word)).unwrap_or_default()
        };
        assert!(line("150 hugepages").contains("104 of them kept"));
        assert!(line("this layout").contains(" 41 "));
        assert!(line("without a choice").contains(" 97 "));
        assert!(line("warning").ends_with("one"));
        assert!(line("Host bridge").contains("bypasses"));
        assert!(line("BARs    ").contains("on the bus from"), "{text}");
        assert!(line("PCI device").contains("dma=identity"));
        assert!(line("No memory is").contains("4 GiB"));
    }
}
