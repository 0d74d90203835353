// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What QEMU saw: the device's DMA, from outside everything under test.

use std::ops::Range;

/// One line of QEMU's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The NVMe model reads or writes these physical addresses, or was programmed to: data, queues,
    /// doorbell buffers.
    Dma {
        /// Address.
        address: u64,
        /// Bytes.
        len: u64,
    },
    /// `pci_cfg_write`: a configuration write reached a function.
    ConfigWrite {
        /// Bus, device and function, as `bus << 8 | device << 3 | function`.
        function: u16,
        /// Register.
        register: u16,
        /// Value.
        value: u32,
    },
}

/// Functions and register that `testbed-mark` writes to: q35's SMBus controller, or the host bridge of another machine,
/// and its interrupt line, which nothing reads.
const MARKED: [u16; 2] = [0x1f << 3 | 3, 0];
const MARK_REGISTER: u16 = 0x3c;

/// QEMU's trace events that [`parse`] understands.
pub const NVME_EVENTS: [&str; 8] = [
    "pci_nvme_map_addr",
    "pci_nvme_mmio_asqaddr",
    "pci_nvme_mmio_asqaddr_hi",
    "pci_nvme_mmio_acqaddr",
    "pci_nvme_mmio_acqaddr_hi",
    "pci_nvme_create_sq",
    "pci_nvme_create_cq",
    "pci_nvme_dbbuf_config",
];

/// Reads QEMU's log; lines of other kinds are left out.
#[must_use]
pub fn parse(log: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        // A queue address written in halves is whole in the second line.
        let is_first_half = |name: &str| line.contains(&format!("{name} "));
        let mut goes_on = |name: &str| {
            lines
                .peek()
                .is_some_and(|next| next.contains(&format!("{name}_hi ")))
        };
        let halves = ["pci_nvme_mmio_asqaddr", "pci_nvme_mmio_acqaddr"];
        if !halves
            .iter()
            .any(|name| is_first_half(name) && goes_on(name))
        {
            events.extend(parse_line(line).into_iter().flatten().flatten());
        }
    }
    events
}

/// The events between the marks `from` and `to`, those before the second if the first never came.
#[must_use]
pub fn between(events: &[Event], from: u8, to: u8) -> Option<&[Event]> {
    let position = |mark: u8| {
        events.iter().position(|event| {
            matches!(event, Event::ConfigWrite { function, register, value }
                if MARKED.contains(function) && *register == MARK_REGISTER && *value == u32::from(mark))
        })
    };
    events.get(position(from)?..position(to)?)
}

/// A guest's memory as `pinvisor` printed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Guest-physical range.
    pub gpa: Range<u64>,
    /// Host-physical range.
    pub hpa: Range<u64>,
}

/// The lines `extent gpa=… hpa=… len=…` of `pinvisor -v`.
#[must_use]
pub fn extents(output: &str) -> Vec<Extent> {
    let lines = output
        .lines()
        .filter_map(|line| line.split_once("extent gpa="))
        .map(|(_, rest)| rest);
    lines.filter_map(parse_extent).collect()
}

/// The lines `queue memory hpa=… len=…` of `pinvisor -vv`: the monitor's own memory that a guarded device accesses. The
/// guest has none of it.
#[must_use]
pub fn queue_memory(output: &str) -> Vec<Extent> {
    let lines = output
        .lines()
        .filter_map(|line| line.split_once("queue memory "))
        .map(|(_, rest)| format!("0x0 {rest}"));
    lines.filter_map(|line| parse_extent(&line)).collect()
}

/// What DMA did, held against the extents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaCheck {
    /// Transfers seen.
    pub transfers: usize,
    /// Bytes in them.
    pub bytes: u64,
    /// Transfers that were not wholly inside one run of extents.
    pub outside: usize,
    /// Address and length of the first of those.
    pub first_outside: Option<(u64, u64)>,
}

/// Looks at every transfer: it must lie inside the host-physical ranges.
#[must_use]
pub fn check_dma(events: &[Event], extents: &[Extent]) -> DmaCheck {
    let runs = merged(extents);
    let inside = |address: u64, len: u64| {
        let index = runs.partition_point(|run| run.start <= address);
        let run = index.checked_sub(1).and_then(|index| runs.get(index));
        run.is_some_and(|run| address.checked_add(len).is_some_and(|end| end <= run.end))
    };
    let mut check = DmaCheck {
        transfers: 0,
        bytes: 0,
        outside: 0,
        first_outside: None,
    };
    for event in events {
        if let Event::Dma { address, len } = *event {
            check.transfers += 1;
            check.bytes += len;
            if !inside(address, len) {
                check.outside += 1;
                check.first_outside.get_or_insert((address, len));
            }
        }
    }
    check
}

/// Whether every write of COMMAND to a function between two points left bus mastering as expected.
#[must_use]
pub fn command_writes(events: &[Event], function: u16) -> Vec<u32> {
    let command = |event: &Event| match *event {
        Event::ConfigWrite {
            function: of,
            register: 4,
            value,
        } if of == function => Some(value),
        _ => None,
    };
    events.iter().filter_map(command).collect()
}

fn merged(extents: &[Extent]) -> Vec<Range<u64>> {
    let mut ranges: Vec<_> = extents.iter().map(|extent| extent.hpa.clone()).collect();
    ranges.sort_by_key(|range| range.start);
    let mut runs: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match runs.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => runs.push(range),
        }
    }
    runs
}

fn parse_extent(rest: &str) -> Option<Extent> {
    let mut words = rest.split_whitespace();
    let gpa = number(words.next()?)?;
    let hpa = number(words.next()?.strip_prefix("hpa=")?)?;
    let len = number(words.next()?.strip_prefix("len=")?)?;
    Some(Extent {
        gpa: gpa..gpa.checked_add(len)?,
        hpa: hpa..hpa.checked_add(len)?,
    })
}

/// Bytes of a submission and of a completion queue entry, and of a page (NVMe Base Specification, 3.3.3).
const SUBMISSION: u64 = 64;
const COMPLETION: u64 = 16;
const PAGE: u64 = 4096;

/// The events of a line, as QEMU's hw/nvme/trace-events and hw/pci/trace-events write them.
fn parse_line(line: &str) -> Option<[Option<Event>; 2]> {
    let start = line.find("pci_")?;
    let (name, rest) = line.get(start..)?.split_once(' ')?;
    let after = |key: &str| {
        let (_, value) = rest.split_once(key)?;
        value.split([',', ' ']).next()
    };
    let address = |key: &str| number(after(key)?);
    let dma = |address: u64, len: u64| Some(Event::Dma { address, len });
    let entries = || after("qsize=")?.parse::<u64>().ok()?.checked_add(1);
    let event = match name {
        "pci_nvme_map_addr" => dma(address("addr ")?, after("len ")?.parse().ok()?),
        "pci_nvme_mmio_asqaddr" => dma(address("address=")?, SUBMISSION),
        "pci_nvme_mmio_asqaddr_hi" => dma(address("new_address=")?, SUBMISSION),
        "pci_nvme_mmio_acqaddr" => dma(address("address=")?, COMPLETION),
        "pci_nvme_mmio_acqaddr_hi" => dma(address("new_address=")?, COMPLETION),
        "pci_nvme_create_sq" => dma(address("addr=")?, entries()?.checked_mul(SUBMISSION)?),
        "pci_nvme_create_cq" => dma(address("addr=")?, entries()?.checked_mul(COMPLETION)?),
        "pci_nvme_dbbuf_config" => {
            return Some([
                dma(address("dbs_addr=")?, PAGE),
                dma(address("eis_addr=")?, PAGE),
            ]);
        }
        "pci_cfg_write" => config_write(rest),
        _ => return None,
    };
    Some([event, None])
}

/// `MODEL BUS:DEVICE.FUNCTION @0xREGISTER <- 0xVALUE`.
fn config_write(rest: &str) -> Option<Event> {
    let mut words = rest.split_whitespace();
    let function = function(words.nth(1)?)?;
    let register = number(words.next()?.strip_prefix('@')?)?;
    let value = number(words.nth(1)?)?;
    Some(Event::ConfigWrite {
        function,
        register: u16::try_from(register).ok()?,
        value: u32::try_from(value).ok()?,
    })
}

/// `BUS:DEVICE.FUNCTION` with or without a domain before it.
#[must_use]
pub fn function(text: &str) -> Option<u16> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let bus = rest.rsplit(':').next()?;
    let part = |digits: &str| u16::from_str_radix(digits, 16).ok();
    Some(part(bus)? << 8 | part(device)? << 3 | part(function)?)
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "pci_cfg_write nvme 01:00.0 @0x4 <- 0x507\n\
        pci_cfg_write ICH9-SMB 00:1f.3 @0x3c <- 0x1\n\
        pci_nvme_map_addr addr 0x100400000 len 4096\n\
        pci_nvme_map_prp something else\n\
        pci_nvme_map_addr addr 0x1003ff000 len 4096\n\
        pci_cfg_write ICH9-SMB 00:1f.3 @0x3c <- 0x2\n\
        pci_nvme_map_addr addr 0x1000 len 512\n";

    const LINES: &str = "[INFO] extent gpa=0x100400000 hpa=0x100400000 len=0x200000\n\
        [INFO] extent gpa=0x100600000 hpa=0x100600000 len=0x200000\nother\n";

    #[test]
    fn memory_of_the_monitor_is_no_guest_memory() {
        let text = "[DEBUG] queue memory hpa=0x7000 len=0x2000\n";
        assert_eq!(extents(text), []);
        let found = queue_memory(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].hpa, 0x7000..0x9000);
        assert_eq!(queue_memory(LINES), []);
    }

    #[test]
    fn marks_bound_the_events() {
        let events = parse(LOG);
        assert_eq!(events.len(), 6);
        let inner = between(&events, 1, 2).unwrap();
        assert_eq!(inner.len(), 3);
        assert_eq!(between(&events, 1, 3), None);
        assert_eq!(between(&events, 2, 1), None);
    }

    #[test]
    fn dma_outside_is_reported() {
        let events = parse(LOG);
        let check = check_dma(between(&events, 1, 2).unwrap(), &extents(LINES));
        assert_eq!((check.transfers, check.bytes, check.outside), (2, 8192, 1));
        assert_eq!(check.first_outside, Some((0x1003ff000, 4096)));
    }

    #[test]
    fn queues_are_dma_and_halves_are_joined() {
        let log = "pci_nvme_mmio_asqaddr wrote MMIO, admin submission queue address=0x7ffdd000\n\
            pci_nvme_mmio_asqaddr_hi wrote MMIO, admin submission queue high half=0x1, new_address=0x17ffdd000\n\
            pci_nvme_mmio_acqaddr wrote MMIO, admin completion queue address=0x17ffde000\n\
            pci_nvme_create_sq create submission queue, addr=0x2000, sqid=1, cqid=1, qsize=255, qflags=1\n\
            pci_nvme_create_cq create completion queue, addr=0x3000, cqid=1, vector=1, qsize=255, qflags=3, ien=1\n\
            pci_nvme_dbbuf_config dbs_addr=0x5000 eis_addr=0x6000\n";
        let dma: Vec<(u64, u64)> = parse(log)
            .iter()
            .map(|event| match event {
                Event::Dma { address, len } => (*address, *len),
                Event::ConfigWrite { .. } => panic!("no configuration write"),
            })
            .collect();
        let queues = [
            (0x1_7ffd_d000, 64),
            (0x1_7ffd_e000, 16),
            (0x2000, 0x4000),
            (0x3000, 0x1000),
        ];
        assert_eq!(dma[..4], queues);
        assert_eq!(dma[4..], [(0x5000, 4096), (0x6000, 4096)]);
    }

    #[test]
    fn dma_may_cross_neighbours_but_not_the_end() {
        let dma = |address, len| check_dma(&[Event::Dma { address, len }], &extents(LINES)).outside;
        assert_eq!(dma(0x1005ff000, 0x2000), 0);
        assert_eq!(dma(0x1007ff000, 0x1000), 0);
        assert_eq!(dma(0x1007ff000, 0x1001), 1);
        assert_eq!(dma(u64::MAX, 2), 1);
        assert_eq!(
            check_dma(&[Event::Dma { address: 0, len: 1 }], &[]).outside,
            1
        );
    }

    #[test]
    fn command_writes_are_distinguished_by_function() {
        let events = parse(LOG);
        assert_eq!(
            command_writes(&events, function("0000:01:00.0").unwrap()),
            [0x507]
        );
        assert!(command_writes(&events, function("02:00.0").unwrap()).is_empty());
    }
}
