// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reads the device tree (Devicetree Specification v0.4).

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use address::Gpa;
use dma_stress::pci::Function;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Cells, Node, Property, ToCellInt};

/// First cell of an address on the bus: I/O ports (PCI Bus Binding 2.1, section 2.2.1.1).
const SPACE: u32 = 3 << 24;
const SPACE_PORTS: u32 = 1 << 24;
/// Where the number of a device is in the first cell.
const DEVICE_SHIFT: u32 = 11;

/// Which interrupts functions raise: shared peripheral interrupts by number.
#[derive(Debug, Default)]
pub struct Lines {
    mask: u32,
    /// Address, pin and interrupt.
    map: Vec<(u32, u32, u32)>,
}

impl Lines {
    /// The interrupt that the function's pin raises.
    pub fn of(&self, function: &Function) -> Option<u8> {
        let device = u32::from(function.address.device()) << DEVICE_SHIFT & self.mask;
        let pin = u32::from(function.pin);
        let mut entries = self.map.iter();
        let entry = entries.find(|(address, of, _)| (*address, *of) == (device, pin))?;
        u8::try_from(entry.2).ok()
    }
}

/// What a machine is.
#[derive(Debug)]
pub struct Tree {
    /// The command line.
    pub command_line: String,
    /// RAM.
    pub memory: Vec<Range<Gpa>>,
    /// Affinities of the processors.
    pub processors: Vec<u64>,
    /// The interrupt controller's distributor, redistributors and ITS.
    pub controller: [Range<Gpa>; 3],
    /// Configuration space of bus 0.
    pub ecam: Range<Gpa>,
    /// I/O ports.
    pub ports: Range<Gpa>,
    /// Which interrupts functions raise.
    pub lines: Lines,
}

/// What is needed to report and to end: the serial port, and what takes the verdict.
#[derive(Debug)]
pub struct Console {
    /// The serial port.
    pub serial: Option<Range<Gpa>>,
    /// What takes the verdict.
    pub power: Option<Range<Gpa>>,
}

/// The tree in `bytes`.
///
/// # Errors
/// It is none.
pub fn parse(bytes: &[u8]) -> Result<Fdt<'_>, &'static str> {
    Fdt::new(bytes).map_err(|_| "no device tree")
}

/// Reads what is needed first.
pub fn console(fdt: Fdt<'_>) -> Console {
    let of = |kind| first(compatible(fdt.root(), kind)?);
    Console {
        serial: of("ns16550a"),
        power: of("pinvisor,power"),
    }
}

/// Reads all else.
///
/// # Errors
/// What the machine lacks.
pub fn read(fdt: Fdt<'_>) -> Result<Tree, &'static str> {
    let root = fdt.root();
    let bus = compatible(root, "pci-host-ecam-generic").ok_or("no PCI bus")?;
    let gic = compatible(root, "arm,gic-v3").ok_or("no GICv3")?;
    let its = compatible(gic, "arm,gic-v3-its").ok_or("no ITS")?;
    if !is_plain(bus) {
        return Err("a host bridge that translates addresses, or whose DMA bypasses caches");
    }
    let gic = registers(gic);
    let [distributor, redistributors] = &gic[..] else {
        return Err("a GIC without redistributors");
    };
    let chosen = root.child("chosen");
    let line = chosen.and_then(|node| node.property("bootargs"));
    let line = line.and_then(|line| line.value_as::<&str>().ok());
    let processors = root
        .child("cpus")
        .into_iter()
        .flat_map(|cpus| cpus.children());
    let processors = processors.filter_map(|cpu| first_cells(cpu)?.to_int().ok());
    let memory = root
        .children()
        .filter(|node| node.name_without_address() == "memory");
    Ok(Tree {
        command_line: line.unwrap_or_default().into(),
        memory: memory.flat_map(registers).collect(),
        processors: processors.collect(),
        controller: [
            distributor.clone(),
            redistributors.clone(),
            first(its).ok_or("an ITS without registers")?,
        ],
        ecam: first(bus).ok_or("no memory-mapped configuration space")?,
        ports: ports(bus).ok_or("no I/O ports")?,
        lines: lines(bus).unwrap_or_default(),
    })
}

/// The child that is of this kind.
fn compatible<'a>(node: FdtNode<'a>, kind: &str) -> Option<FdtNode<'a>> {
    node.children().find(|child| child.is_compatible(kind))
}

fn first_cells(node: FdtNode<'_>) -> Option<Cells<'_>> {
    Some(node.reg().ok()??.next()?.address)
}

/// Its registers, or its memory.
fn registers(node: FdtNode<'_>) -> Vec<Range<Gpa>> {
    let reg = node.reg().ok().flatten().into_iter().flatten();
    reg.filter_map(|reg| Gpa(reg.address().ok()?).span(reg.size().ok()?))
        .collect()
}

/// The first of its registers.
fn first(node: FdtNode<'_>) -> Option<Range<Gpa>> {
    registers(node).into_iter().next()
}

/// A range of addresses on the bus.
struct Window {
    is_ports: bool,
    on_bus: u64,
    cpu: Range<Gpa>,
}

/// What the bridge translates, by the property of this name; nothing without it, and `None` if it makes no sense.
fn windows(bus: FdtNode<'_>, name: &str) -> Option<Vec<Window>> {
    let Some(cells) = bus.property(name) else {
        return Some(Vec::new());
    };
    let window = |[space, on_bus, cpu, len]: [Cells<'_>; 4]| {
        let space: u32 = space.to_int().ok()?;
        Some(Window {
            is_ports: space & SPACE == SPACE_PORTS,
            on_bus: on_bus.to_int().ok()?,
            cpu: Gpa(cpu.to_int().ok()?).span(len.to_int().ok()?)?,
        })
    };
    let cells = cells.as_prop_encoded_array([1, 2, 2, 2]).ok()?;
    cells.map(window).collect()
}

/// Whether what is on the bus has the address there that it has for processors, and DMA is coherent.
fn is_plain(bus: FdtNode<'_>) -> bool {
    let is_same = |window: &Window| window.is_ports || window.on_bus == window.cpu.start.0;
    let all_are = |name| windows(bus, name).is_some_and(|all| all.iter().all(is_same));
    bus.dma_coherent() && all_are("ranges") && all_are("dma-ranges")
}

/// Where the bridge has I/O ports, from port 0 on.
fn ports(bus: FdtNode<'_>) -> Option<Range<Gpa>> {
    let mut windows = windows(bus, "ranges")?.into_iter();
    windows
        .find(|window| window.is_ports)
        .map(|window| window.cpu)
}

fn lines(bus: FdtNode<'_>) -> Option<Lines> {
    let mask = bus.property("interrupt-map-mask")?.value_as::<[u32; 4]>();
    let map = bus.property("interrupt-map")?;
    // Address on the bus and pin, controller, address in it, and kind, number and flags.
    let map = map.as_prop_encoded_array([1, 2, 1, 1, 2, 1, 1, 1]).ok()?;
    let entry = |[address, _, pin, _, _, _, number, _]: [Cells<'_>; 8]| {
        let cell = |cell: Cells<'_>| cell.to_int::<u32>().ok();
        Some((cell(address)?, cell(pin)?, cell(number)?))
    };
    Some(Lines {
        mask: mask.ok()?[0],
        map: map.filter_map(entry).collect(),
    })
}
