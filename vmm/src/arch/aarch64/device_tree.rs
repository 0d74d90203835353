// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device tree: which memory, CPUs, interrupt controllers and devices the guest has (Devicetree Specification
//! v0.4; Documentation/devicetree/bindings in Linux).

mod bus;
mod gic;

use std::ops::Range;

use address::Gpa;
use devices::pci::BusWindow;
use vm_fdt::{Error, FdtWriter};

use crate::bus::address_map::AddressMap;

use super::gic_version::GicVersion;
use super::layout::{POWER, POWER_BUTTON_GSI, RTC, UART, UART_GSI};

/// Numbers by which nodes refer to others.
const GIC: u32 = 1;
/// What receives messages: the ITS, or the frame of GICv2m.
const MESSAGES: u32 = 2;
const CLOCK: u32 = 3;

/// Interrupt specifier of the GIC (bindings/interrupt-controller/arm,gic-v3.yaml and arm,gic.yaml): a shared one, a CPU's
/// own.
const SHARED: u32 = 0;
const PRIVATE: u32 = 1;
/// How it is triggered.
const EDGE: u32 = 1;
const HIGH: u32 = 4;

/// What KEY_POWER is (include/uapi/linux/input-event-codes.h).
const KEY_POWER: u32 = 116;
/// What divides to the rates of a 16550 (Linux, include/linux/serial_8250.h, `BASE_BAUD` times 16).
const UART_CLOCK: u32 = 1_843_200;
/// What the clock of the RTC runs at; nothing depends on it.
const RTC_CLOCK: u32 = 24_000_000;
/// Interrupts of the architected timer, of each CPU's own: secure, not secure, virtual, hypervisor (Linux,
/// include/clocksource/arm_arch_timer.h and arch/arm64/kvm/arch_timer.c, `default_ppi`).
const TIMER_INTERRUPTS: [u32; 4] = [13, 14, 11, 10];

/// A machine to describe.
#[derive(Clone, Debug)]
pub struct Platform {
    /// CPUs, numbered from 0.
    pub cpus: u8,
    /// Its interrupt controller.
    pub gic: GicVersion,
    /// Where config space of bus 0 is, and which addresses BARs may have. `None` if there is no PCI bus.
    pub bus: Option<AddressMap>,
}

impl Platform {
    /// A machine with this number of CPUs and this interrupt controller, and with a PCI bus as in `bus` if there is one.
    #[must_use]
    pub fn new(cpus: u8, gic: GicVersion, bus: Option<AddressMap>) -> Self {
        Self { cpus, gic, bus }
    }
}

/// What a kernel is told, besides its machine.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// RAM, ascending.
    pub memory: &'a [Range<Gpa>],
    /// The command line.
    pub command_line: &'a str,
    /// Where RAM is for devices; nothing if it is at its own addresses.
    pub on_bus: &'a [BusWindow],
    /// Where the initramfs is, if there is one.
    pub initramfs: Option<&'a Range<Gpa>>,
    /// Random bytes for the kernel: its own place, and its generator's seed.
    pub seed: &'a [u8; SEED],
}

/// Random bytes that a kernel gets.
pub const SEED: usize = 64;
/// Of these, those that decide where it is.
const PLACE_SEED: usize = 8;

/// The tree of `platform`, which starts a kernel with `boot`, as bytes.
///
/// # Errors
/// What the writer refuses: a NUL character in the command line.
pub fn write(platform: &Platform, boot: &Boot<'_>) -> Result<Vec<u8>, Error> {
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_string("compatible", "linux,dummy-virt")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_u32("interrupt-parent", GIC)?;
    chosen(&mut fdt, boot)?;
    memory(&mut fdt, boot.memory)?;
    cpus(&mut fdt, platform.cpus)?;
    psci(&mut fdt)?;
    timer(&mut fdt, platform)?;
    gic::write(&mut fdt, platform.gic)?;
    serial_port(&mut fdt)?;
    clock(&mut fdt)?;
    power_button(&mut fdt)?;
    power(&mut fdt)?;
    if let Some(map) = &platform.bus {
        bus::write(&mut fdt, map, boot.on_bus, platform.gic)?;
    }
    fdt.end_node(root)?;
    fdt.finish()
}

fn chosen(fdt: &mut FdtWriter, boot: &Boot<'_>) -> Result<(), Error> {
    let node = fdt.begin_node("chosen")?;
    fdt.property_string("bootargs", boot.command_line)?;
    fdt.property_string("stdout-path", &format!("/{}", name("serial", &UART)))?;
    if let Some(initramfs) = boot.initramfs {
        fdt.property_u64("linux,initrd-start", initramfs.start.0)?;
        fdt.property_u64("linux,initrd-end", initramfs.end.0)?;
    }
    // BARs have their addresses already: those of the host.
    fdt.property_u32("linux,pci-probe-only", 1)?;
    let (place, rest) = boot.seed.split_at(PLACE_SEED);
    fdt.property("kaslr-seed", place)?;
    fdt.property("rng-seed", rest)?;
    fdt.end_node(node)
}

fn memory(fdt: &mut FdtWriter, ranges: &[Range<Gpa>]) -> Result<(), Error> {
    let Some(first) = ranges.first() else {
        return Ok(());
    };
    let node = fdt.begin_node(&name("memory", first))?;
    fdt.property_string("device_type", "memory")?;
    let cells: Vec<u64> = ranges.iter().flat_map(reg).collect();
    fdt.property_array_u64("reg", &cells)?;
    fdt.end_node(node)
}

fn cpus(fdt: &mut FdtWriter, count: u8) -> Result<(), Error> {
    let node = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 1)?;
    fdt.property_u32("#size-cells", 0)?;
    for index in 0..count {
        let affinity = affinity(index);
        let cpu = fdt.begin_node(&format!("cpu@{affinity:x}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_string("compatible", "arm,armv8")?;
        fdt.property_u32("reg", affinity)?;
        fdt.property_string("enable-method", "psci")?;
        fdt.end_node(cpu)?;
    }
    fdt.end_node(node)
}

/// What KVM has CPU `index` read in MPIDR_EL1: at most 16 CPUs have the same second level (arch/arm64/kvm/sys_regs.c,
/// `kvm_calculate_mpidr`).
#[must_use]
pub fn affinity(index: u8) -> u32 {
    let index = u32::from(index);
    index & 0xf | index >> 4 << 8
}

fn psci(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node("psci")?;
    strings(fdt, "compatible", &["arm,psci-1.0", "arm,psci-0.2"])?;
    fdt.property_string("method", "hvc")?;
    fdt.end_node(node)
}

fn timer(fdt: &mut FdtWriter, platform: &Platform) -> Result<(), Error> {
    let node = fdt.begin_node("timer")?;
    fdt.property_string("compatible", "arm,armv8-timer")?;
    let flags = HIGH | gic::private(platform);
    let interrupts = TIMER_INTERRUPTS.map(|number| [PRIVATE, number, flags]);
    fdt.property_array_u32("interrupts", interrupts.as_flattened())?;
    fdt.property_null("always-on")?;
    fdt.end_node(node)
}

fn serial_port(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node(&name("serial", &UART))?;
    fdt.property_string("compatible", "ns16550a")?;
    fdt.property_array_u64("reg", &reg(&UART))?;
    fdt.property_array_u32("interrupts", &[SHARED, UART_GSI, EDGE])?;
    fdt.property_u32("clock-frequency", UART_CLOCK)?;
    fdt.end_node(node)
}

fn clock(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node("apb-pclk")?;
    fdt.property_string("compatible", "fixed-clock")?;
    fdt.property_u32("#clock-cells", 0)?;
    fdt.property_u32("clock-frequency", RTC_CLOCK)?;
    fdt.property_phandle(CLOCK)?;
    fdt.end_node(node)?;
    let node = fdt.begin_node(&name("rtc", &RTC))?;
    strings(fdt, "compatible", &["arm,pl031", "arm,primecell"])?;
    fdt.property_array_u64("reg", &reg(&RTC))?;
    fdt.property_u32("clocks", CLOCK)?;
    fdt.property_string("clock-names", "apb_pclk")?;
    fdt.end_node(node)
}

/// A key that is an interrupt and no pin (bindings/input/gpio-keys.yaml).
fn power_button(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node("gpio-keys")?;
    fdt.property_string("compatible", "gpio-keys")?;
    let key = fdt.begin_node("key-power")?;
    fdt.property_string("label", "power button")?;
    fdt.property_u32("linux,code", KEY_POWER)?;
    fdt.property_array_u32("interrupts", &[SHARED, POWER_BUTTON_GSI, EDGE])?;
    fdt.end_node(key)?;
    fdt.end_node(node)
}

/// Our own, for guests that end with a status.
fn power(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node(&name("power", &POWER))?;
    fdt.property_string("compatible", "pinvisor,power")?;
    fdt.property_array_u64("reg", &reg(&POWER))?;
    fdt.end_node(node)
}

/// The name of a node whose registers or memory are at `range`.
fn name(kind: &str, range: &Range<Gpa>) -> String {
    format!("{kind}@{:x}", range.start.0)
}

/// Address and length of `range`.
fn reg(range: &Range<Gpa>) -> [u64; 2] {
    [range.start.0, range.end - range.start]
}

fn strings(fdt: &mut FdtWriter, name: &str, values: &[&str]) -> Result<(), Error> {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    fdt.property_string_list(name, values)
}

#[cfg(test)]
mod tests;
