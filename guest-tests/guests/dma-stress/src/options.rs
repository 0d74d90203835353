// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the command line asks for.

use alloc::string::String;
use alloc::vec::Vec;

use stress_format::{Interrupt, Mode};

/// The options. Words of the command line that are none are for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Seed of the random generators.
    pub seed: u64,
    /// Least number of transfers for each engine.
    pub transfers: u64,
    /// Least number of bytes for each engine.
    pub bytes: u64,
    /// Names of the engines to run; all if there are none.
    pub engines: Vec<String>,
    /// The one way to signal completion of a transfer; every one that an engine has if `None`.
    pub interrupt: Option<Interrupt>,
    /// How DMA addresses are found; as the machine shows if `None`.
    pub mode: Option<Mode>,
    /// Attempts of a hostile guest.
    pub attempts: u64,
    /// Transfers among them that are right.
    pub accepted: u64,
    /// Whether what is on disks may be destroyed.
    pub destroy: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            transfers: 2000,
            bytes: 4 << 20,
            engines: Vec::new(),
            interrupt: None,
            mode: None,
            attempts: 100_000,
            accepted: 200,
            destroy: false,
        }
    }
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// The word whose value is none of those that it takes.
    pub fn parse(command_line: &str) -> Result<Self, &str> {
        let mut options = Self::default();
        for word in command_line.split_ascii_whitespace() {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            let number = || value.parse().map_err(|_| word);
            match key {
                "seed" => options.seed = number()?,
                "transfers" => {
                    options.transfers = number()?;
                    options.attempts = options.transfers;
                }
                "accepted" => options.accepted = number()?,
                "bytes" => options.bytes = number()?,
                "engines" => options.engines = value.split(',').map(String::from).collect(),
                "irq" => options.interrupt = interrupt(value).ok_or(word)?,
                "mode" => options.mode = Some(mode(value).ok_or(word)?),
                "destroy" => options.destroy = value == "yes",
                _ => (),
            }
        }
        Ok(options)
    }

    /// Whether engines of that name are to run.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.engines.is_empty() || self.names(name)
    }

    /// Whether engines of that name are asked for, and not just everything.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        self.engines.iter().any(|engine| engine == name)
    }
}

fn mode(value: &str) -> Option<Mode> {
    match value {
        "identity" => Some(Mode::Identity),
        "translate" => Some(Mode::Translate),
        "mediate" => Some(Mode::Mediate),
        _ => None,
    }
}

fn interrupt(value: &str) -> Option<Option<Interrupt>> {
    match value {
        "auto" | "all" => Some(None),
        "polling" => Some(Some(Interrupt::Polling)),
        "intx" => Some(Some(Interrupt::Intx)),
        "msi" => Some(Some(Interrupt::Msi)),
        "msix" => Some(Some(Interrupt::Msix)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_others_left_alone() {
        let options = Options::parse(
            "console=ttyS0 quiet seed=7 transfers=200 bytes=1 engines=edu,p2p irq=msi \
             mode=identity destroy=yes accepted=5",
        )
        .unwrap();
        assert_eq!(
            (options.seed, options.transfers, options.bytes),
            (7, 200, 1)
        );
        assert_eq!((options.attempts, options.accepted), (200, 5));
        assert!(options.wants("edu") && options.wants("p2p") && !options.wants("nvme"));
        assert_eq!(options.interrupt, Some(Interrupt::Msi));
        assert!(options.destroy);
        assert_eq!(options.mode, Some(Mode::Identity));
    }

    #[test]
    fn nothing_asked_for_is_everything_but_destruction() {
        let options = Options::parse("").unwrap();
        assert_eq!(options, Options::default());
        assert!(options.wants("nvme") && !options.names("nvme") && !options.destroy);
        assert_eq!((options.attempts, options.accepted), (100_000, 200));
        assert_eq!(Options::parse("irq=all destroy=no"), Ok(options));
    }

    #[test]
    fn wrong_values_are_named() {
        for word in [
            "seed=x",
            "transfers=-1",
            "bytes=",
            "irq=nmi",
            "mode=swiotlb",
        ] {
            assert_eq!(Options::parse(word), Err(word));
        }
    }
}
