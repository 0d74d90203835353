// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How values are read from text. `Deserialize` owns each type's grammar: a file is read by it directly, and a word of
//! the command line, which [`FromStr`] takes, is handed to it by [`word`] or [`compact`].

use std::fmt;
use std::iter;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use strum::IntoEnumIterator;

use super::ConfigError;

/// A type that is a table in a file, or there and on the command line a text `FIRST[,KEY=VALUE]...`.
pub(super) trait Compact: FromStr<Err = ConfigError> {
    /// The key of what comes first in the text, without its name.
    const FIRST: &'static str;

    /// The table in its textual form; its keys and values are the grammar of both forms.
    type Table: DeserializeOwned;

    /// The value, if it can be used.
    fn from_table(table: Self::Table) -> Result<Self, ConfigError>;
}

/// Reads the text form: the [`FromStr`] of a [`Compact`] type.
pub(super) fn compact<T: Compact>(text: &str) -> Result<T, ConfigError> {
    let mut words = text.split(',');
    let first = (T::FIRST, words.next().unwrap_or_default());
    let options = words.map(|word| word.split_once('=').unwrap_or((word, "")));
    let table = MapDeserializer::<_, ConfigError>::new(iter::once(first).chain(options));
    T::from_table(T::Table::deserialize(table)?)
}

/// Reads the text form or a table: the `Deserialize` of a [`Compact`] type.
pub(super) fn compact_or_table<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Compact,
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(CompactOrTable(PhantomData))
}

struct CompactOrTable<T>(PhantomData<T>);

impl<'de, T: Compact> Visitor<'de> for CompactOrTable<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a table")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
        let table = T::Table::deserialize(MapAccessDeserializer::new(map))?;
        T::from_table(table).map_err(M::Error::custom)
    }
}

/// Reads a single word.
pub(super) fn word<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    T::deserialize(deserializer(text))
}

/// What reads a single word.
pub(super) fn deserializer(text: &str) -> StrDeserializer<'_, ConfigError> {
    text.into_deserializer()
}

/// One of the names that `T` has.
pub(super) fn one_of<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: IntoEnumIterator + Into<&'static str> + Copy,
    D: Deserializer<'de>,
{
    let word = String::deserialize(deserializer)?;
    let found = T::iter().find(|value| (*value).into() == word);
    found.ok_or_else(|| {
        let names: Vec<&str> = T::iter().map(T::into).collect();
        unexpected(names.join("|"), &word)
    })
}

/// A value that is read from a string by its own [`FromStr`].
pub(super) fn parsed<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|error| D::Error::custom(format_args!("{error}, found {text:?}")))
}

/// A value that is given: serde's own reader of an `Option` takes no plain string.
pub(super) fn given<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// A path that is given, which must not be empty.
///
/// # Errors
/// That it is empty, or no string.
pub fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    match path.as_os_str().is_empty() {
        true => Err(D::Error::custom("expected a path, found nothing")),
        false => Ok(Some(path)),
    }
}

/// The error of a value that is something other than `expected`.
pub(super) fn unexpected<E: Error>(expected: impl fmt::Display, found: &str) -> E {
    E::custom(format_args!("expected {expected}, found {found:?}"))
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;
    use serde_json::{Value, from_value, json};

    use super::super::{CpuCount, DeviceConfig, MemoryConfig, OnReset, SerialConfig};
    use super::*;

    fn refusal<T: DeserializeOwned + fmt::Debug>(value: Value) -> String {
        from_value::<T>(value).unwrap_err().to_string()
    }

    #[test]
    fn what_is_neither_valid_text_nor_a_table_is_refused() {
        for value in [json!(1), json!(["01:00.0"]), json!(null), json!(true)] {
            let device = refusal::<DeviceConfig>(value.clone());
            assert!(device.ends_with("expected a string or a table"), "{device}");
            let memory = refusal::<MemoryConfig>(value);
            assert!(memory.ends_with("expected a string or a table"), "{memory}");
        }
        let iommu = refusal::<DeviceConfig>(json!("01:00.0,iommu=on"));
        assert_eq!(iommu, ConfigError::GuestIommu.to_string());
        let serial = refusal::<SerialConfig>(json!({"file": "x"}));
        assert!(serial.ends_with("expected a string"), "{serial}");
        assert!(from_value::<OnReset>(json!(1)).is_err());
    }

    #[test]
    fn a_table_lists_what_it_can_have() {
        let device = refusal::<DeviceConfig>(json!({"bdf": "01:00.0", "dam": "auto"}));
        assert_eq!(
            device,
            "unknown field `dam`, expected one of `bdf`, `dma`, `profile`, `poll`, `reset`"
        );
        let memory = refusal::<MemoryConfig>(json!({"hugepage_size": "2M"}));
        assert_eq!(memory, "missing field `size`");
        let empty =
            refusal::<DeviceConfig>(json!({"bdf": "01:00.0", "dma": "mediate", "profile": ""}));
        assert_eq!(empty, "expected a path, found nothing");
        let unmediated = refusal::<DeviceConfig>(json!({"bdf": "01:00.0", "profile": "p"}));
        assert_eq!(unmediated, ConfigError::ProfileWithoutMediate.to_string());
        // Where words are not separated by commas a path can have one.
        let device: DeviceConfig =
            from_value(json!({"bdf": "01:00.0", "dma": "mediate", "profile": "a,b"})).unwrap();
        assert_eq!(device.profile, Some("a,b".into()));
    }

    #[test]
    fn a_count_is_a_number_or_a_string() {
        let count = |value| from_value::<CpuCount>(value).map(CpuCount::get).ok();
        assert_eq!(count(json!(4)), Some(4));
        assert_eq!(count(json!("boot=4")), Some(4));
        for value in [json!(0), json!(-1), json!(33), json!(1.5), json!(u64::MAX)] {
            assert_eq!(count(value.clone()), None, "{value}");
        }
    }

    fn agree<T: Compact + DeserializeOwned + PartialEq + fmt::Debug>(
        options: &[(&str, Option<String>)],
    ) {
        let given = options
            .iter()
            .filter_map(|(key, value)| Some((*key, value.as_ref()?)));
        let table: serde_json::Map<_, _> = given
            .clone()
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect();
        let words: Vec<_> = given
            .map(|(key, value)| match key == T::FIRST {
                true => value.clone(),
                false => format!("{key}={value}"),
            })
            .collect();
        let text = words.join(",");
        let (by_line, by_file) = (text.parse::<T>().ok(), from_value::<T>(table.into()).ok());
        assert_eq!(by_line, by_file, "{text}");
        assert_eq!(from_value::<T>(json!(text)).ok(), by_line, "{text}");
    }

    proptest! {
        #[test]
        fn the_command_line_and_a_table_mean_the_same(
            bdf in "0[0-2]:0[0-9]\\.[0-8]",
            dma in option::of("auto|identity|mediate|none"),
            profile in option::of("[a-z=]{0,4}"),
            poll in option::of("auto|on|off|yes"),
            reset in option::of("none|some"),
            size in "[0-9]{1,4}[KMGT]?",
            hugepage_size in option::of("2M|1G|4K"),
            spare in option::of("[0-9]{1,2}[MG]|M"),
            pieces in option::of("any|one"),
        ) {
            agree::<DeviceConfig>(&[
                ("bdf", Some(bdf)),
                ("dma", dma),
                ("profile", profile),
                ("poll", poll),
                ("reset", reset),
            ]);
            agree::<MemoryConfig>(&[
                ("size", Some(size)),
                ("hugepage_size", hugepage_size),
                ("spare", spare),
                ("pieces", pieces),
            ]);
        }

        #[test]
        fn no_text_makes_this_panic(text in ".{0,20}|[0-9a-z:.,=]{0,40}") {
            let _ = text.parse::<DeviceConfig>();
            let _ = text.parse::<MemoryConfig>();
            let _ = text.parse::<CpuCount>();
            let _ = text.parse::<OnReset>();
            let _ = text.parse::<SerialConfig>();
        }
    }
}
