//! A plan as a drawing: what it costs, and where everything is.

use plotters::prelude::{PathElement, Rectangle, Text as Words};
use plotters::style::{Color, RGBColor};
use stress_report::plot::axis::Axis;
use stress_report::plot::rows::{Drawn, MARGIN, ROW, Rows, STRIP, Thing};
use stress_report::plot::{Area, FAINT, INK, WIDTH, font, pixels, svg};
use stress_report::units::memory;

use vmm::LOW_MEMORY_SIZE;
use vmm::report::{Cost, Place, Plan};

/// Why there is no drawing.
pub type DrawError = stress_report::Error;

type Colours = (RGBColor, RGBColor);
const RAM: Colours = (RGBColor(0xbf, 0xd7, 0xf5), RGBColor(0x5b, 0x8d, 0xd0));
const KERNEL: Colours = (RGBColor(0xd9, 0xc6, 0xec), RGBColor(0x86, 0x5f, 0xb0));
const LOW: Colours = (RGBColor(0xe6, 0xe9, 0xee), RGBColor(0x8a, 0x94, 0xa3));
const BAR: Colours = (RGBColor(0xfb, 0xc9, 0x8a), RGBColor(0xc9, 0x7a, 0x1a));
const WINDOW: Colours = (RGBColor(0xfd, 0xf3, 0xe4), RGBColor(0xa8, 0x7c, 0x38));
const PLATFORM: Colours = (RGBColor(0xcf, 0xe8, 0xd8), RGBColor(0x3f, 0x8f, 0x62));
/// What addresses of 32 bits reach.
const BELOW: RGBColor = RGBColor(0x0b, 0x7a, 0x4b);

/// What colours mean.
const LEGEND: [(&str, Colours); 6] = [
    ("RAM", RAM),
    ("kernel, initramfs", KERNEL),
    ("low memory, not for DMA", LOW),
    ("BAR", BAR),
    ("PCI window", WINDOW),
    ("config space, interrupt controllers", PLATFORM),
];

const LIMIT_4G: u64 = 1 << 32;
/// Heights of title, costs and legend in pixels.
const TITLE: i32 = 52;
const COST: i32 = 24;
const KEY: i32 = 40;
/// Where the bars of costs begin and end, and the text behind the longest one.
const COST_LEFT: i32 = 150;
const COST_WIDTH: u64 = 420;
/// Pixels of a character at most on average.
const PITCH: f64 = 6.6;

/// The drawing.
pub fn draw(plan: &Plan) -> Result<String, DrawError> {
    let things = things(plan);
    let pieces: Vec<_> = things.iter().map(Thing::piece).collect();
    let axis = Axis::new(&pieces, f64::from(WIDTH) - 2.0 * MARGIN);
    let costs = costs(plan);
    let rows = i32::try_from(axis.rows()).unwrap_or(i32::MAX / ROW);
    let costs_height = i32::try_from(costs.len()).unwrap_or(0) * COST;
    let top = TITLE + costs_height + KEY;
    let height = top.saturating_add(rows.saturating_mul(ROW));
    svg("the plan", height.unsigned_abs(), |area| {
        title(area, plan)?;
        let most = costs.iter().map(|(_, cost)| bytes(cost)).max().unwrap_or(0);
        for (number, (name, cost)) in (0..).zip(&costs) {
            cost_bar(area, TITLE + number * COST, (name, cost), most)?;
        }
        legend(area, TITLE + costs_height + 10)?;
        let rows = Rows::new(area, &axis, top);
        rows.things(&things)?;
        for span in axis.spans(0, LIMIT_4G) {
            rows.bar(span, (STRIP.0, STRIP.0 + 3), BELOW.filled())?;
        }
        rows.scale()
    })
}

fn bytes(cost: &Cost) -> u64 {
    cost.memmap + cost.page_tables
}

/// The layout beside what it might be.
fn costs(plan: &Plan) -> Vec<(&'static str, Cost)> {
    let mut costs = vec![("this layout", plan.cost)];
    costs.extend(plan.choice.map(|choice| ("without a choice", choice.naive)));
    costs.push(("in one extent", plan.cost_in_one_extent));
    costs
}

/// In the order in which they cover each other.
fn things(plan: &Plan) -> Vec<Thing> {
    let mut things: Vec<_> = plan
        .places
        .iter()
        .filter(|place| place.kind == "window")
        .map(|place| thing(place, WINDOW))
        .collect();
    things.push(Thing::new(0, LOW_MEMORY_SIZE, "low memory".to_owned(), LOW));
    let ram = plan.extents.iter();
    things.extend(ram.map(|extent| Thing::new(extent.gpa, extent.length, String::new(), RAM)));
    things.extend(plan.places.iter().filter_map(|place| match place.kind {
        "kernel" | "initramfs" => Some(thing(place, KERNEL)),
        "bar" => Some(thing(place, BAR)),
        "platform" => Some(thing(place, PLATFORM)),
        _ => None,
    }));
    things
}

fn thing(place: &Place, colours: Colours) -> Thing {
    // Room is short, and the first domain is nearly always the only one.
    let name = place.name.strip_prefix("0000:").unwrap_or(&place.name);
    let length = place.end - place.start;
    Thing::new(place.start, length, name.to_owned(), colours)
}

fn title(area: &Area<'_>, plan: &Plan) -> Drawn {
    let layout = match plan.memory.layout {
        "identity" => "guest-physical = host-physical",
        _ => "guest-physical addresses are conventional",
    };
    let count = plan.extents.len();
    let text = format!(
        "{} of guest memory in {count} {}",
        memory(plan.memory.length),
        if count == 1 { "piece" } else { "pieces" }
    );
    let at = (margin(), 8);
    area.draw(&Words::new(text, at, font("sans-serif", 17.0, INK)))?;
    let text = format!("{layout}; what the guest's kernel spends on where its memory is:");
    let at = (margin(), 30);
    area.draw(&Words::new(text, at, font("sans-serif", 12.0, FAINT)))?;
    Ok(())
}

fn cost_bar(area: &Area<'_>, top: i32, (name, cost): (&str, &Cost), most: u64) -> Drawn {
    let text = font("sans-serif", 12.0, INK);
    area.draw(&Words::new(
        name.to_owned(),
        (margin(), top + 4),
        text.clone(),
    ))?;
    let width = u128::from(bytes(cost)) * u128::from(COST_WIDTH) / u128::from(most.max(1));
    let right = COST_LEFT + i32::try_from(width).unwrap_or(0).max(1);
    let corners = [(COST_LEFT, top + 3), (right, top + COST - 5)];
    area.draw(&Rectangle::new(corners, RAM.0.filled()))?;
    area.draw(&Rectangle::new(corners, RAM.1.stroke_width(1)))?;
    let what = format!(
        "{}: {} {}, {} sections of 128 MiB, page tables {}",
        memory(bytes(cost)),
        cost.extents,
        if cost.extents == 1 {
            "extent"
        } else {
            "extents"
        },
        cost.sections,
        memory(cost.page_tables)
    );
    area.draw(&Words::new(what, (right + 8, top + 4), text))?;
    Ok(())
}

fn legend(area: &Area<'_>, top: i32) -> Drawn {
    let mut left = margin();
    let style = font("sans-serif", 12.0, INK);
    for (name, (fill, edge)) in LEGEND {
        let corners = [(left, top), (left + 14, top + 14)];
        area.draw(&Rectangle::new(corners, fill.filled()))?;
        area.draw(&Rectangle::new(corners, edge.stroke_width(1)))?;
        area.draw(&Words::new(name, (left + 20, top), style.clone()))?;
        left += 20 + text_width(name) + 16;
    }
    let line = vec![(left, top + 8), (left + 20, top + 8)];
    area.draw(&PathElement::new(line, BELOW.stroke_width(3)))?;
    area.draw(&Words::new("below 4 GiB", (left + 26, top), style))?;
    Ok(())
}

fn margin() -> i32 {
    pixels(MARGIN)
}

fn text_width(text: &str) -> i32 {
    let characters = i32::try_from(text.chars().count()).unwrap_or(0);
    pixels(f64::from(characters) * PITCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm::report::Extent;
    use vmm::report::sample;

    /// Whether every element that begins ends, in the right order.
    fn is_well_formed(svg: &str) -> bool {
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1) {
            let Some((tag, _)) = tag.split_once('>') else {
                return false;
            };
            let name = tag.split_whitespace().next().unwrap_or_default();
            match name.strip_prefix('/') {
                Some(name) if open.pop() != Some(name) => return false,
                Some(_) => {}
                None if tag.ends_with('/') => {}
                None => open.push(name),
            }
        }
        open.is_empty() && svg.starts_with("<svg")
    }

    #[test]
    fn everything_has_its_name_and_its_address() {
        let svg = draw(&sample()).unwrap();
        assert!(is_well_formed(&svg));
        for word in [
            "kernel",
            "initramfs",
            ">\n01:00.0 BAR0",
            "PCI window",
            "low memory",
            "0x1_0800_0000",
            "0xc0_0000_0000",
            "128 MiB",
            "without a choice",
            "below 4 GiB",
        ] {
            assert!(svg.contains(word), "{word}");
        }
    }

    #[test]
    fn thousands_of_pieces_and_none_are_no_harm() {
        let mut plan = sample();
        let scattered = (0..5000).map(|number| Extent {
            gpa: (1 << 33) + number * (6 << 20),
            hpa: None,
            length: 2 << 20,
            file_pieces: 1,
        });
        plan.extents = scattered.collect();
        assert!(is_well_formed(&draw(&plan).unwrap()));
        plan.extents.clear();
        plan.places.clear();
        plan.choice = None;
        plan.cost = Cost::default();
        plan.cost_in_one_extent = plan.cost;
        assert!(is_well_formed(&draw(&plan).unwrap()));
    }

    #[test]
    fn a_broken_drawing_is_seen() {
        assert!(is_well_formed("<svg><g a=\"b\"/></svg>"));
        for broken in ["<svg>", "<svg><g></svg></g>", "<svg></svg", "x"] {
            assert!(!is_well_formed(broken), "{broken}");
        }
    }
}
