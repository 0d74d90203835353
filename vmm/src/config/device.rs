// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which device is passed through, and how its DMA reaches guest memory.

use std::path::PathBuf;
use std::str::FromStr;

use address::Bdf;
use host::DmaMode;
use serde::{Deserialize, Deserializer};
use strum::{EnumIter, IntoStaticStr};

use super::text::{self, Compact};
use super::{ConfigError, validate};

/// A device to pass through:
/// `BDF[,dma=auto|iommu|identity|translate|mediate][,profile=FILE][,poll=auto|on|off][,reset=none]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// The function on the host.
    pub bdf: Bdf,
    /// How its DMA reaches guest memory.
    pub dma: DmaMode,
    /// With [`DmaMode::Mediate`]: what its registers mean, if not the shipped profile for its IDs
    /// is to be used: the name of a shipped profile, or a file.
    pub profile: Option<PathBuf>,
    /// With [`DmaMode::Mediate`] and without a profile: how the thread of an NVMe controller waits, if
    /// not as [`Poll::Auto`].
    pub poll: Option<Poll>,
    /// Whether it may be used although it cannot be reset.
    pub allow_no_reset: bool,
}

/// The same in its textual form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceTable {
    #[serde(deserialize_with = "text::parsed")]
    bdf: Bdf,
    #[serde(default, deserialize_with = "text::one_of")]
    dma: DmaMode,
    #[serde(default, deserialize_with = "text::path")]
    profile: Option<PathBuf>,
    #[serde(default, deserialize_with = "text::given")]
    poll: Option<Poll>,
    #[serde(default, deserialize_with = "text::given")]
    reset: Option<Reset>,
}

/// Whether the thread of a guarded NVMe controller looks at queues all the time, instead of waiting for signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Poll {
    /// While there is work, if the host has a CPU for the thread besides those for the guest's CPUs.
    #[default]
    Auto,
    /// As long as the guest has I/O queues, even if no CPU is left for the guest meanwhile.
    On,
    /// Never.
    Off,
}

impl<'de> Deserialize<'de> for Poll {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::one_of(deserializer)
    }
}

#[derive(Clone, Copy, Debug, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
enum Reset {
    None,
}

impl<'de> Deserialize<'de> for Reset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::one_of(deserializer)
    }
}

impl Compact for DeviceConfig {
    const FIRST: &'static str = "bdf";
    type Table = DeviceTable;

    fn from_table(table: DeviceTable) -> Result<Self, ConfigError> {
        let device = Self {
            bdf: table.bdf,
            dma: table.dma,
            profile: table.profile,
            poll: table.poll,
            allow_no_reset: table.reset.is_some(),
        };
        validate::device(&device)?;
        Ok(device)
    }
}

impl FromStr for DeviceConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        // As other monitors spell it.
        if text.split(',').any(|word| word == "iommu=on") {
            return Err(ConfigError::GuestIommu);
        }
        text::compact(text)
    }
}

/// A string as on the command line, or a table of the same.
impl<'de> Deserialize<'de> for DeviceConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::compact_or_table(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_takes_options() {
        let device = |text: &str| text.parse::<DeviceConfig>();
        assert!(!device("01:00.0").unwrap().allow_no_reset);
        let both = device("0000:01:00.0,reset=none,dma=identity").unwrap();
        assert!(both.allow_no_reset);
        assert_eq!(both.dma, DmaMode::Identity);
        let mediated = device("01:00.0,dma=mediate,profile=a=b").unwrap();
        assert_eq!(mediated.profile, Some("a=b".into()));
        for (text, poll) in [
            ("", None),
            (",poll=auto", Some(Poll::Auto)),
            (",poll=on", Some(Poll::On)),
            (",poll=off", Some(Poll::Off)),
        ] {
            let guarded = device(&format!("01:00.0,dma=mediate{text}")).unwrap();
            assert_eq!(guarded.poll, poll, "{text}");
        }
        assert_eq!(
            device("01:00.0,dma=translate").unwrap().dma,
            DmaMode::Translate
        );
        for text in [
            "",
            "01:00",
            "01:00.0,reset=some",
            "01:00.0,reset=none,x",
            "01:00.0,dma=x",
            "01:00.0,profile=x",
            "01:00.0,dma=mediate,profile=",
            "01:00.0,dma=mediate,poll=",
            "01:00.0,dma=mediate,poll=yes",
            "01:00.0,dma=mediate,profile=x,poll=on",
            "01:00.0,dma=identity,poll=on",
            "01:00.0,poll=auto",
        ] {
            assert!(device(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_iommu_for_the_guest_is_refused_with_the_reason() {
        for mode in ["auto", "iommu", "identity", "translate", "mediate"] {
            let device = format!("01:00.0,dma={mode},iommu=on").parse::<DeviceConfig>();
            assert_eq!(device, Err(ConfigError::GuestIommu), "{mode}");
        }
        assert!(ConfigError::GuestIommu.to_string().contains("enforce"));
    }
}
