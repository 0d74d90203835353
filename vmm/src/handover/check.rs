// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a state is consistent, and fits the options of this run.

use std::ops::Range;

use address::Hpa;
use devices::pci::ECAM_SIZE;
use host::DmaMode;
use iommufd_backend::hugepages::HugepageSize;

use super::error::HandoverError;
use super::state::{Addresses, Device, Dma, Memory, Name, OwnPages, Reset, State};
use crate::config::{DeviceConfig, ValidConfig};
use crate::memory::backing::PAGE;
use crate::memory::plan::Extent;

/// Longest name of a reset, in bytes: the kernel's are shorter (drivers/pci/pci.c pci_reset_fn_methods).
const MOST_WORD: usize = 32;
/// Most functions on a bus, and most pages that a device's queues take, which is far less.
const MOST_FUNCTIONS: usize = 256;
const MOST_PAGES: usize = 1 << 16;
/// Most windows and ranges of a host.
const MOST_RANGES: usize = 4096;

/// Checks `state` by itself and by the options of this run.
///
/// # Errors
/// [`HandoverError::Handover`]
pub(crate) fn check(state: &State, config: &ValidConfig) -> Result<(), HandoverError> {
    let found: Vec<_> = state.devices.iter().map(|device| device.bdf).collect();
    let named: Vec<_> = config
        .devices
        .iter()
        .map(|device| Name(device.bdf))
        .collect();
    require(found == named, || {
        format!(
            "it has the devices {}, and --device names {}",
            list(&found),
            list(&named)
        )
    })?;
    for (device, named) in state.devices.iter().zip(&config.devices) {
        check_device(device, named)?;
    }
    let any = |iommu| state.devices.iter().any(|device| device.iommu == iommu);
    let (has_noiommu, has_iommu) = (any(false), any(true));
    require(!has_noiommu || config.noiommu, || {
        "it has a device in noiommu mode, and --noiommu is not given".to_owned()
    })?;
    let belongs = |present: bool, wanted: bool, what: &str| {
        require(present == wanted, || match wanted {
            true => format!("{what} is missing"),
            false => format!("{what} belongs to no device"),
        })
    };
    let has_devices = !state.devices.is_empty();
    belongs(state.iommufd.is_some(), has_devices, "/dev/iommu")?;
    belongs(state.addresses.is_some(), has_devices, "the address map")?;
    belongs(
        state.noiommu.is_some(),
        has_noiommu,
        "the address space for noiommu mode",
    )?;
    belongs(state.keeper.is_some(), has_noiommu, "the keeper")?;
    belongs(
        state.iommu_ioas.is_some(),
        has_iommu,
        "the address space for devices behind an IOMMU",
    )?;
    let needs_memory = has_devices || config.memory.hugepage_size.is_some();
    belongs(state.memory.is_some(), needs_memory, "guest memory")?;
    let is_identity = state
        .devices
        .iter()
        .any(|device| device.dma == Dma::Identity);
    let page = match (is_identity, config.memory.hugepage_size) {
        (true, _) => config.memory.page_size().bytes(),
        (false, size) => size.map_or(PAGE, HugepageSize::bytes),
    };
    if let Some(memory) = &state.memory {
        require(memory.page_size == page, || {
            format!(
                "guest memory is in pages of {} bytes, and is to be in pages of {page}",
                memory.page_size
            )
        })?;
    }
    if let Some(addresses) = &state.addresses {
        check_addresses(addresses)?;
    }
    Ok(())
}

fn check_device(device: &Device, named: &DeviceConfig) -> Result<(), HandoverError> {
    let bdf = device.bdf;
    let fits = match (device.dma, named.dma) {
        (Dma::Iommu, DmaMode::Auto | DmaMode::Iommu)
        | (Dma::Identity, DmaMode::Auto | DmaMode::Identity)
        | (Dma::Translate, DmaMode::Translate) => true,
        (Dma::Mediate, DmaMode::Mediate) => named.poll.is_none(),
        (Dma::Guarded, DmaMode::Auto | DmaMode::Mediate) => named.profile.is_none(),
        _ => false,
    };
    require(fits && device.iommu == (device.dma == Dma::Iommu), || {
        format!("{bdf}: its DMA mode is not that of --device")
    })?;
    let words: Vec<_> = match &device.reset {
        Reset::Function(word) => vec![word],
        Reset::Bus { instead_of, .. } => instead_of.iter().collect(),
        Reset::None { .. } => Vec::new(),
    };
    let is_word = |word: &&String| {
        (1..=MOST_WORD).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let functions = match &device.reset {
        Reset::Function(_) => 0,
        Reset::Bus { functions, .. } => functions.len(),
        Reset::None { others } => others.len(),
    };
    require(
        words.iter().all(is_word) && functions <= MOST_FUNCTIONS,
        || format!("{bdf}: its reset is none that the kernel has"),
    )?;
    let can_be_reset = !matches!(device.reset, Reset::None { .. });
    let accepts_none = named.allow_no_reset && device.dma != Dma::Guarded;
    require(can_be_reset || accepts_none, || {
        format!("{bdf}: it has no reset, and that is not accepted")
    })?;
    let is_guarded = device.dma == Dma::Guarded;
    require(device.own_pages.is_some() == is_guarded, || {
        format!("{bdf}: queue memory is for guarded controllers, and each of them has some")
    })?;
    device.own_pages.as_ref().map_or(Ok(()), check_pages)
}

fn check_pages(pages: &OwnPages) -> Result<(), HandoverError> {
    let mut sorted = pages.hpas.clone();
    sorted.sort_unstable();
    let are_pages = sorted.iter().all(|hpa| hpa % PAGE == 0);
    let are_apart = sorted.windows(2).all(|pair| pair[0] < pair[1]);
    let last = sorted
        .last()
        .is_none_or(|last| last.checked_add(PAGE).is_some());
    let count = (1..=MOST_PAGES).contains(&sorted.len());
    require(are_pages && are_apart && last && count, || {
        "the addresses of queue memory are not those of pages".to_owned()
    })
}

fn check_addresses(addresses: &Addresses) -> Result<(), HandoverError> {
    let Addresses {
        windows,
        bus_windows,
        dma,
        ecam,
        ..
    } = addresses;
    let dma = dma.as_deref().unwrap_or_default();
    let lengths = [windows.len(), bus_windows.len(), dma.len()];
    let is_range =
        |(start, end, bus): &(u64, u64, u64)| start < end && bus.checked_add(end - start).is_some();
    let ecam = ecam.checked_add(ECAM_SIZE).map(|end| *ecam..end);
    let ecam = ecam.filter(|ecam| ecam.start % ECAM_SIZE == 0);
    let outside = |(start, end): &(u64, u64)| {
        ecam.as_ref()
            .is_some_and(|ecam| *end <= ecam.start || ecam.end <= *start)
    };
    let is_window = |window: &(u64, u64)| {
        let (start, end) = window;
        start < end && start % PAGE == 0 && end % PAGE == 0 && outside(window)
    };
    let is_right = lengths.iter().all(|length| *length <= MOST_RANGES)
        && ecam.is_some()
        && windows.iter().all(is_window)
        && windows.windows(2).all(|pair| pair[0].1 <= pair[1].0)
        && bus_windows.iter().chain(dma).all(is_range);
    require(is_right, || {
        "the ranges of the address map are empty, overlap or exceed 64 bits".to_owned()
    })
}

/// The extents of the guest memory of `state`, a [checked](check) one, whose file has `file_len` bytes and is to have `size`
/// bytes of guest memory: all of it if a device is in noiommu mode, and none otherwise.
///
/// # Errors
/// [`HandoverError::Handover`]
pub(crate) fn extents(
    state: &State,
    memory: &Memory,
    file_len: u64,
    size: u64,
) -> Result<Vec<Extent>, HandoverError> {
    require(file_len >= size, || {
        format!("the file of guest memory has {file_len} bytes, and --memory is {size}")
    })?;
    let all = &memory.extents;
    if state.noiommu.is_none() {
        require(all.is_empty(), || {
            "it has addresses of guest memory, and no device in noiommu mode".to_owned()
        })?;
        return Ok(Vec::new());
    }
    let page = memory.page_size;
    let end = |start: u64, len: u64| start.checked_add(len);
    let is_extent = |&(offset, hpa, len): &(u64, u64, u64)| {
        let is_whole = [offset, hpa, len].iter().all(|value| value % page == 0);
        let is_inside = end(offset, len).is_some_and(|end| end <= file_len);
        len > 0 && is_whole && is_inside && end(hpa, len).is_some()
    };
    for extent in all {
        require(is_extent(extent), || {
            let (offset, hpa, len) = extent;
            format!(
                "no extent in the file of guest memory: offset {offset:#x}, HPA {hpa:#x}, {len:#x} bytes"
            )
        })?;
    }
    let in_file = all.iter().map(|&(offset, _, len)| offset..offset + len);
    let mut in_memory: Vec<Range<u64>> = all.iter().map(|&(_, hpa, len)| hpa..hpa + len).collect();
    in_memory.sort_unstable_by_key(|range| range.start);
    require(
        are_apart(in_file) && are_apart(in_memory.into_iter()),
        || "extents of guest memory overlap or are not in order".to_owned(),
    )?;
    // None of them overlap in a file of this length.
    let total: u64 = all.iter().map(|&(_, _, len)| len).sum();
    require(total == size, || {
        format!("the extents of guest memory have {total} bytes, and --memory is {size}")
    })?;
    let extent = |&(offset, hpa, len): &(u64, u64, u64)| Extent {
        offset,
        hpa: Hpa(hpa),
        len,
    };
    Ok(all.iter().map(extent).collect())
}

fn are_apart(ranges: impl Iterator<Item = Range<u64>>) -> bool {
    let mut before = 0;
    for Range { start, end } in ranges {
        if start < before {
            return false;
        }
        before = end;
    }
    true
}

fn require(holds: bool, text: impl FnOnce() -> String) -> Result<(), HandoverError> {
    match holds {
        true => Ok(()),
        false => Err(HandoverError::wrong(text())),
    }
}

fn list(names: &[Name]) -> String {
    match names {
        [] => "none".to_owned(),
        names => {
            let names: Vec<_> = names.iter().map(Name::to_string).collect();
            names.join(" ")
        }
    }
}

#[cfg(test)]
mod tests;
