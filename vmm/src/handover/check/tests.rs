// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::state::{FORMAT, VERSION};
use super::*;
use crate::bus::address_map::AddressMap;
use crate::config::{BackendChoice, Config, LowMemory, SerialConfig};
use crate::memory::plan::regions;

const MIB: u64 = 1 << 20;

/// A run of 64 MiB in hugepages, or else, with these devices.
fn config(memory: &str, devices: &[&str]) -> ValidConfig {
    let config = Config {
        kernel: "kernel".into(),
        initramfs: None,
        command_line: String::new(),
        memory: memory.parse().unwrap(),
        low_memory: LowMemory::Auto,
        cpus: Default::default(),
        devices: devices.iter().map(|text| text.parse().unwrap()).collect(),
        noiommu: true,
        backend: BackendChoice::Auto,
        serial: SerialConfig::Stdio,
    };
    config.validate().unwrap()
}

fn identity() -> ValidConfig {
    config("64M", &["01:00.0"])
}

/// What suits [`identity`].
fn state() -> Value {
    json!({
        "iommufd": 1,
        "devices": [{
            "bdf": "0000:01:00.0", "file": 2, "id": 3, "iommu": false, "dma": "identity",
            "regions": [{"ports": false, "start": 0xfe00_0000_u64, "size": 0x4000}, null, null, null, null, null, null],
            "dma-width": 64, "reset": {"function": "flr"}, "parent": "0000:00:01.0",
            "seen-in-slot": false, "own-pages": null,
        }],
        "noiommu": {"ioas": 1, "hwpt": 2},
        "iommu-ioas": null,
        "keeper": {"channel": 3, "process": 4, "pid": 77},
        "helper": null,
        "memory": {
            "file": 5, "page-size": 2 * MIB,
            "extents": [
                [0, 0x2_4000_0000_u64, 32 * MIB],
                [32 * MIB, 0x1_8000_0000_u64, 16 * MIB],
                [64 * MIB, 0x1_0000_0000_u64, 16 * MIB],
            ],
        },
        "addresses": {
            "windows": [[0x8000_0000_u64, 0xb000_0000_u64], [0xc000_0000_u64, 0xfec0_0000_u64]],
            "bus-windows": [], "dma": null, "ecam": 0xb000_0000_u64, "is-coherent": true,
        },
    })
}

/// What comes of `state` for `config` with a memory file of 96 MiB.
fn taken(state: Value, config: &ValidConfig) -> Result<Vec<Extent>, String> {
    let state: State = serde_json::from_value(state).map_err(|error| error.to_string())?;
    check(&state, config).map_err(|error| error.to_string())?;
    let Some(memory) = &state.memory else {
        return Ok(Vec::new());
    };
    extents(&state, memory, 96 * MIB, config.memory.size).map_err(|error| error.to_string())
}

/// The same with `value` in place of what `pointer` points to.
fn with(pointer: &str, value: Value) -> Result<Vec<Extent>, String> {
    let mut state = state();
    *state.pointer_mut(pointer).unwrap() = value;
    taken(state, &identity())
}

#[test]
fn a_consistent_state_is_taken() {
    let extents = taken(state(), &identity()).unwrap();
    assert_eq!(extents.len(), 3);
    let without = json!({
        "iommufd": null, "devices": [], "noiommu": null, "iommu-ioas": null, "keeper": null,
        "helper": null, "memory": null, "addresses": null,
    });
    assert_eq!(taken(without, &config("64M", &[])), Ok(Vec::new()));
}

#[test]
fn what_the_options_do_not_say_is_refused() {
    let refused = |config: &ValidConfig, text: &str| {
        let error = taken(state(), config).unwrap_err();
        assert!(error.contains(text), "{error}");
    };
    refused(&config("64M", &["02:00.0"]), "--device names 0000:02:00.0");
    refused(&config("64M", &[]), "--device names none");
    let two = ["01:00.0", "02:00.0"];
    refused(&config("64M", &two), "it has the devices 0000:01:00.0, and");
    refused(&config("64M", &["01:00.0,dma=translate"]), "DMA mode");
    refused(&config("64M", &["01:00.0,dma=mediate"]), "DMA mode");
    refused(&config("32M", &["01:00.0"]), "--memory is 33554432");
    refused(&config("128M", &["01:00.0"]), "--memory is 134217728");
    let giant = config("1G,hugepage_size=1G", &["01:00.0"]);
    refused(&giant, "pages of 1073741824");
    let mut not_accepted = Config::clone(&identity());
    not_accepted.noiommu = false;
    refused(&not_accepted.validate().unwrap(), "--noiommu");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let extents = |all: Value| ("/memory/extents", all);
    let high = u64::MAX - MIB + 1;
    for ((pointer, value), text) in [
        (("/iommufd", Value::Null), "/dev/iommu is missing"),
        (("/addresses", Value::Null), "the address map is missing"),
        (("/noiommu", Value::Null), "noiommu mode is missing"),
        (("/keeper", Value::Null), "the keeper is missing"),
        (("/memory", Value::Null), "guest memory is missing"),
        (("/iommu-ioas", json!(5)), "belongs to no device"),
        (("/devices/0/iommu", json!(true)), "DMA mode"),
        (("/devices/0/bdf", json!("../x")), ""),
        (
            ("/devices/0/reset", json!({"function": "a\u{1b}b"})),
            "reset is none",
        ),
        (
            ("/devices/0/reset", json!({"function": ""})),
            "reset is none",
        ),
        (
            ("/devices/0/reset", json!({"none": {"others": []}})),
            "no reset",
        ),
        (
            ("/devices/0/own-pages", json!({"file": 5, "hpas": [4096]})),
            "queue memory",
        ),
        (("/memory/page-size", json!(4096)), "pages of 4096"),
        (("/memory/page-size", json!(0)), "pages of 0"),
        (extents(json!([])), "have 0 bytes"),
        (extents(json!([[0, 0, 0]])), "no extent"),
        (extents(json!([[0, 4096, 2 * MIB]])), "no extent"),
        (extents(json!([[0, 0, 98 * MIB]])), "no extent"),
        (extents(json!([[high, 0, 2 * MIB]])), "no extent"),
        (
            extents(json!([[0, u64::MAX - 2 * MIB + 1, 4 * MIB]])),
            "no extent",
        ),
        (
            extents(json!([[0, 0, 32 * MIB], [16 * MIB, 1_u64 << 32, 32 * MIB]])),
            "overlap",
        ),
        (
            extents(json!([[32 * MIB, 0, 32 * MIB], [0, 1_u64 << 32, 32 * MIB]])),
            "overlap",
        ),
        (
            extents(json!([[0, 0, 32 * MIB], [32 * MIB, 16 * MIB, 32 * MIB]])),
            "overlap",
        ),
        (("/addresses/ecam", json!(u64::MAX)), "address map"),
        (("/addresses/ecam", json!(0x8000_0000_u64)), "address map"),
        (("/addresses/windows", json!([[8192, 4096]])), "address map"),
        (
            ("/addresses/windows", json!([[0, 8192], [4096, 12288]])),
            "address map",
        ),
        (("/addresses/dma", json!([[0, u64::MAX, 2]])), "address map"),
        (
            ("/addresses/bus-windows", json!([[4096, 4096, 0]])),
            "address map",
        ),
    ] {
        let error = with(pointer, value).unwrap_err();
        assert!(error.contains(text), "{pointer}: {error}");
    }
}

#[test]
fn guarded_controllers_bring_their_pages() {
    let config = config("64M", &["01:00.0,dma=mediate"]);
    let with = |hpas: Value| {
        let mut state = state();
        let device = &mut state["devices"][0];
        device["dma"] = json!("guarded");
        device["own-pages"] = json!({"file": 5, "hpas": hpas});
        state["memory"]["page-size"] = json!(4096);
        taken(state, &config)
    };
    assert!(with(json!([0x7000, 0x2000])).is_ok());
    for hpas in [
        json!([]),
        json!([0x7001]),
        json!([0x7000, 0x7000]),
        json!([u64::MAX - 4095]),
    ] {
        assert!(with(hpas).unwrap_err().contains("queue memory"));
    }
}

#[test]
fn an_address_map_arrives_as_it_was() {
    let map = AddressMap::conventional();
    let mut state: State = serde_json::from_value(state()).unwrap();
    state.addresses = Some(Addresses::from(&map));
    check(&state, &identity()).unwrap();
    assert_eq!(state.addresses.map(AddressMap::from), Some(map));
}

#[test]
fn every_key_is_documented() {
    let text = include_str!("../../../../docs/reference/handover.md");
    let mut all = Vec::new();
    places(&state(), "", &mut all);
    let names = all.iter().filter_map(|place| place.rsplit('/').next());
    for name in names.filter(|name| !name.is_empty() && name.parse::<u8>().is_err()) {
        let is_documented =
            text.contains(&format!("`{name}`")) || text.contains(&format!("\"{name}\""));
        assert!(is_documented, "{name}");
    }
    assert!(text.contains(FORMAT) && text.contains(&format!("\"version\": {VERSION}}}")));
}

/// All places in a value, as JSON pointers.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{index}"), all);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                places(field, &format!("{at}/{name}"), all);
            }
        }
        _ => {}
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0..64_u32).prop_map(|shift| json!(1_u64 << shift)),
        (0..64_u32).prop_map(|shift| json!(u64::MAX << shift)),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!("0000:01:00.0")),
        prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..4)
            .prop_map(|all| json!(all)),
    ]
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = serde_json::from_slice::<State>(&bytes);
    }

    /// What is taken makes a plan without overlaps that covers guest memory.
    #[test]
    fn no_change_of_a_state_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 1..4),
    ) {
        let mut changed = state();
        for (place, value) in changes {
            let mut all = Vec::new();
            places(&changed, "", &mut all);
            let place = place.get(&all);
            *changed.pointer_mut(place).unwrap() = value;
        }
        if let Ok(extents) = taken(changed, &identity()) {
            let regions = regions(&extents);
            let total: u64 = regions.iter().map(|region| region.len).sum();
            prop_assert_eq!(total, 64 * MIB);
        }
    }
}
