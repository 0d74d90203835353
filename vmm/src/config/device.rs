//! Which device is passed through, and how its DMA reaches guest memory.

use std::path::PathBuf;
use std::str::FromStr;

use address::Bdf;
use host::DmaMode;

use super::ConfigError;

/// A device to pass through:
/// `BDF[,dma=auto|iommu|identity|translate|mediate][,profile=FILE][,reset=none]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// The function on the host.
    pub bdf: Bdf,
    /// How its DMA reaches guest memory.
    pub dma: DmaMode,
    /// With [`DmaMode::Mediate`]: what its registers mean, if not the shipped profile for its IDs
    /// is to be used: the name of a shipped profile, or a file.
    pub profile: Option<PathBuf>,
    /// Whether it may be used although it cannot be reset.
    pub allow_no_reset: bool,
}

impl FromStr for DeviceConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut parts = text.split(',');
        let bdf = parts.next().unwrap_or_default();
        let bdf = bdf.parse().map_err(|error| ConfigError::Bdf {
            found: bdf.to_owned(),
            error,
        })?;
        let mut device = Self {
            bdf,
            dma: DmaMode::Auto,
            profile: None,
            allow_no_reset: false,
        };
        for part in parts {
            match part.split_once('=') {
                Some(("dma", "auto")) => device.dma = DmaMode::Auto,
                Some(("dma", "iommu")) => device.dma = DmaMode::Iommu,
                Some(("dma", "identity")) => device.dma = DmaMode::Identity,
                Some(("dma", "translate")) => device.dma = DmaMode::Translate,
                Some(("dma", "mediate")) => device.dma = DmaMode::Mediate,
                Some(("profile", path)) if !path.is_empty() => {
                    device.profile = Some(path.into());
                }
                Some(("reset", "none")) => device.allow_no_reset = true,
                // As other monitors spell it.
                Some(("iommu", "on")) => return Err(ConfigError::GuestIommu),
                _ => {
                    return Err(ConfigError::Key {
                        found: part.to_owned(),
                        expected: "dma=auto|iommu|identity|translate|mediate, profile=FILE or reset=none",
                    });
                }
            }
        }
        if device.profile.is_some() && device.dma != DmaMode::Mediate {
            return Err(ConfigError::ProfileWithoutMediate);
        }
        Ok(device)
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
