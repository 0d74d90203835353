//! What the user wants to run.

use std::path::PathBuf;
use std::str::FromStr;

use address::{Bdf, ParseBdfError};
use iommufd_backend::hugepages::HugepageSize;

/// A microVM to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The kernel: a bzImage or an ELF file.
    pub kernel: PathBuf,
    /// An initramfs for it.
    pub initramfs: Option<PathBuf>,
    /// The kernel's command line.
    pub command_line: String,
    /// Guest RAM.
    pub memory: MemoryConfig,
    /// CPUs of the guest, 1 to [`MOST_CPUS`].
    pub cpus: CpuCount,
    /// Devices to pass through.
    pub devices: Vec<DeviceConfig>,
    /// Whether devices may be used that no IOMMU keeps in check.
    pub noiommu: bool,
    /// Software in place of devices and of physical memory.
    pub software: Option<SoftwareConfig>,
    /// Where the first serial port goes.
    pub serial: SerialConfig,
}

/// CPUs that a guest can have.
pub const MOST_CPUS: u8 = 32;

/// How many CPUs a guest has, from 1 to [`MOST_CPUS`]: `N` or `boot=N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuCount(u8);

impl CpuCount {
    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for CpuCount {
    fn default() -> Self {
        Self(1)
    }
}

impl FromStr for CpuCount {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        text.strip_prefix("boot=")
            .unwrap_or(text)
            .parse()
            .ok()
            .filter(|count| (1..=MOST_CPUS).contains(count))
            .map(Self)
            .ok_or_else(|| ConfigError::Cpus(text.to_owned()))
    }
}

/// A machine whose physical memory is synthetic and whose only device is a DMA engine in
/// software, so that it needs nothing of the host but KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftwareConfig {
    /// Decides where memory is.
    pub seed: u64,
    /// What the engine does wrong, if anything.
    pub fault: Option<EngineFault>,
}

/// What a DMA engine can be made to do wrong, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineFault {
    /// It adds a page to every bus address.
    Offset,
    /// Now and then it does not interrupt.
    Interrupt,
    /// Now and then it flips a bit.
    Bit,
}

/// Guest RAM: `SIZE[,hugepage_size=2M|1G]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes of RAM above the first MiB; a multiple of the hugepage size, or of 2 MiB.
    pub size: u64,
    /// What it is made of, where the user said so.
    pub hugepage_size: Option<HugepageSize>,
}

/// How a device's DMA reaches guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DmaMode {
    /// By the IOMMU if there is one, else by identity.
    #[default]
    Auto,
    /// An IOMMU translates guest-physical addresses.
    Iommu,
    /// Guest-physical addresses are host-physical ones.
    Identity,
    /// The guest looks physical addresses up in a table that it is shown.
    Translate,
    /// The monitor checks and translates what the guest writes to the device's registers.
    Mediate,
}

/// A device to pass through:
/// `BDF[,dma=auto|iommu|identity|translate|mediate][,profile=FILE][,reset=none]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// The function on the host.
    pub bdf: Bdf,
    /// How its DMA reaches guest memory.
    pub dma: DmaMode,
    /// With [`DmaMode::Mediate`]: what its registers mean, if not one of the shipped profiles
    /// tells it.
    pub profile: Option<PathBuf>,
    /// Whether it may be used although it cannot be reset.
    pub allow_no_reset: bool,
}

/// Where the first serial port goes: `stdio`, `off` or `file=PATH`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SerialConfig {
    /// To standard output, and from standard input.
    #[default]
    Stdio,
    /// Nowhere.
    Off,
    /// To a file, which is emptied first.
    File(PathBuf),
}

/// An option's value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not a size.
    #[error("expected a size such as 512M or 2G, found {0:?}")]
    Size(String),
    /// Not a whole number of hugepages.
    #[error(
        "the size must be a multiple of the hugepage size {page_size} and not 0, found {found:?}"
    )]
    NotWholePages {
        /// The size as given.
        found: String,
        /// The hugepage size.
        page_size: HugepageSize,
    },
    /// A key that is not known.
    #[error("unknown option {found:?}, expected {expected}")]
    Key {
        /// The option as given.
        found: String,
        /// What there is.
        expected: &'static str,
    },
    /// Not the name of a PCI function.
    #[error("{error}, found {found:?}")]
    Bdf {
        /// The name as given.
        found: String,
        /// What is expected.
        error: ParseBdfError,
    },
    /// Not a number of CPUs.
    #[error("expected 1 to {MOST_CPUS} CPUs, found {0:?}")]
    Cpus(String),
    /// A profile for a device whose registers nobody looks at.
    #[error("profile=FILE goes with dma=mediate only")]
    ProfileWithoutMediate,
    /// A hugepage size that is not supported.
    #[error("hugepage_size is 2M or 1G, found {0:?}")]
    HugepageSize(String),
}

impl FromStr for MemoryConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut parts = text.split(',');
        let size_text = parts.next().unwrap_or_default();
        let size = size(size_text)?;
        let mut hugepage_size = None;
        for part in parts {
            match part.split_once('=') {
                Some(("hugepage_size", "2M")) => hugepage_size = Some(HugepageSize::Mib2),
                Some(("hugepage_size", "1G")) => hugepage_size = Some(HugepageSize::Gib1),
                Some(("hugepage_size", other)) => {
                    return Err(ConfigError::HugepageSize(other.to_owned()));
                }
                _ => {
                    return Err(ConfigError::Key {
                        found: part.to_owned(),
                        expected: "hugepage_size=2M|1G",
                    });
                }
            }
        }
        let page_size = hugepage_size.unwrap_or(HugepageSize::Mib2);
        if size == 0 || size % page_size.bytes() != 0 {
            return Err(ConfigError::NotWholePages {
                found: size_text.to_owned(),
                page_size,
            });
        }
        Ok(Self {
            size,
            hugepage_size,
        })
    }
}

/// Bytes that a number with the suffix K, M, G or T means; without one, bytes.
fn size(text: &str) -> Result<u64, ConfigError> {
    let error = || ConfigError::Size(text.to_owned());
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        Some(b'T' | b't') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(error());
    }
    let number: u64 = digits.parse().map_err(|_| error())?;
    number.checked_mul(1 << shift).ok_or_else(error)
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

impl FromStr for SerialConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text.split_once('=') {
            None if text == "stdio" => Ok(Self::Stdio),
            None if text == "off" => Ok(Self::Off),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(ConfigError::Key {
                found: text.to_owned(),
                expected: "stdio, off or file=PATH",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_takes_sizes_and_hugepage_sizes() {
        for (text, size, hugepage_size) in [
            ("512M", 512 << 20, None),
            ("1G,hugepage_size=1G", 1 << 30, Some(HugepageSize::Gib1)),
            ("4194304", 4 << 20, None),
            ("1t,hugepage_size=2M", 1 << 40, Some(HugepageSize::Mib2)),
        ] {
            assert_eq!(
                text.parse(),
                Ok(MemoryConfig {
                    size,
                    hugepage_size
                }),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_memory_is_refused_with_the_reason() {
        let refusal = |text: &str| text.parse::<MemoryConfig>().unwrap_err();
        for text in [
            "",
            "M",
            "-1M",
            "+1M",
            "1.5G",
            "99999999999999999999",
            "17179869184T",
            "1é",
        ] {
            assert!(matches!(refusal(text), ConfigError::Size(_)), "{text}");
        }
        for text in ["0", "3M", "513M,hugepage_size=1G"] {
            assert!(
                matches!(refusal(text), ConfigError::NotWholePages { .. }),
                "{text}"
            );
        }
        assert!(matches!(
            refusal("2M,hugepage_size=4K"),
            ConfigError::HugepageSize(_)
        ));
        assert!(matches!(refusal("2M,hugepages"), ConfigError::Key { .. }));
    }

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
    fn cpus_are_counted_with_and_without_the_word() {
        let count = |text: &str| text.parse::<CpuCount>().map(CpuCount::get);
        assert_eq!(count("1"), Ok(1));
        assert_eq!(count("boot=4"), Ok(4));
        assert_eq!(count("32"), Ok(MOST_CPUS));
        for text in ["0", "33", "256", "-1", "", "boot=", "max=4"] {
            assert!(count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn serial_goes_to_three_places() {
        assert_eq!("stdio".parse(), Ok(SerialConfig::Stdio));
        assert_eq!("off".parse(), Ok(SerialConfig::Off));
        assert_eq!("file=a=b".parse(), Ok(SerialConfig::File("a=b".into())));
        for text in ["", "file", "file=", "stdio=x", "pty"] {
            assert!(text.parse::<SerialConfig>().is_err(), "{text}");
        }
    }
}
