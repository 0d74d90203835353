// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kernel's command line: words `KEY=VALUE`. Words that are not for this program are left alone.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// What is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// NVMe disks.
    Nvme,
    /// Network interfaces.
    Net,
    /// Both at once, while memory is scarce.
    Mix,
}

/// An address of an interface, and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: Ipv4Addr,
    /// Bits of the network's prefix, up to 32.
    pub prefix: u8,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `stress=nvme|net|mix`.
    pub work: Work,
    /// `seconds=S`, 10 if not given, at most a day.
    pub time: Duration,
    /// `threads=N` of each disk, 4 if not given, from 1 to 64.
    pub threads: usize,
    /// `seed=N`, 1 if not given.
    pub seed: u64,
    /// `destroy=yes`: disks may be written to.
    pub may_write: bool,
    /// `server=IP/PORT` that network interfaces talk to; port 80 if not given.
    pub server: Option<SocketAddrV4>,
    /// `address=IP/PREFIX,…`: of each network interface, in the order of their names; 10.0.2.15/24 of the first
    /// if not given.
    pub addresses: Vec<Address>,
}

/// A word that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadWord {
    /// Its key.
    pub key: &'static str,
    /// Allowed values.
    pub wanted: &'static str,
}

impl std::fmt::Display for BadWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the command line has no valid {}=: {}",
            self.key, self.wanted
        )
    }
}

impl std::error::Error for BadWord {}

impl Options {
    /// Reads a command line. Of words with the same key, the last counts.
    ///
    /// # Errors
    /// [`BadWord`] for a value out of its range, or no `stress=`.
    pub fn parse(cmdline: &str) -> Result<Self, BadWord> {
        let work = Key("stress", "nvme, net or mix");
        let seconds = Key("seconds", "a number from 1 to 86400");
        let threads = Key("threads", "a number from 1 to 64");
        let server = Key("server", "IP/PORT");
        let addresses = Key("address", "IP/PREFIX,IP/PREFIX,...");
        let seed = Key("seed", "a number");
        Ok(Self {
            work: work.read(cmdline, parse_work)?.ok_or(work.bad())?,
            time: Duration::from_secs(
                seconds
                    .read(cmdline, |text| number(text, 1..=86_400))?
                    .unwrap_or(10),
            ),
            threads: threads
                .read(cmdline, |text| number(text, 1..=64))?
                .map_or(4, |threads| usize::try_from(threads).unwrap_or(1)),
            seed: seed
                .read(cmdline, |text| number(text, 0..=u64::MAX))?
                .unwrap_or(1),
            may_write: last_value(cmdline, "destroy") == Some("yes"),
            server: server.read(cmdline, parse_server)?,
            addresses: addresses
                .read(cmdline, |text| text.split(',').map(parse_address).collect())?
                .unwrap_or_else(|| {
                    vec![Address {
                        ip: Ipv4Addr::new(10, 0, 2, 15),
                        prefix: 24,
                    }]
                }),
        })
    }
}

/// A key and what its value may be.
#[derive(Clone, Copy)]
struct Key(&'static str, &'static str);

impl Key {
    fn bad(self) -> BadWord {
        BadWord {
            key: self.0,
            wanted: self.1,
        }
    }

    fn read<T>(
        self,
        cmdline: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, BadWord> {
        let value = last_value(cmdline, self.0);
        value.map(|text| parse(text).ok_or(self.bad())).transpose()
    }
}

fn last_value<'a>(cmdline: &'a str, key: &str) -> Option<&'a str> {
    let words = cmdline.split_ascii_whitespace();
    words
        .filter_map(|word| word.split_once('='))
        .filter_map(|(found, value)| (found == key).then_some(value))
        .next_back()
}

/// Decimal, or hexadecimal behind 0x.
fn number(text: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => text.parse().ok()?,
    };
    range.contains(&number).then_some(number)
}

fn parse_work(text: &str) -> Option<Work> {
    match text {
        "nvme" => Some(Work::Nvme),
        "net" => Some(Work::Net),
        "mix" => Some(Work::Mix),
        _ => None,
    }
}

fn parse_server(text: &str) -> Option<SocketAddrV4> {
    let (ip, port) = text.split_once('/').unwrap_or((text, "80"));
    Some(SocketAddrV4::new(ip.parse().ok()?, port.parse().ok()?))
}

fn parse_address(text: &str) -> Option<Address> {
    let (ip, prefix) = text.split_once('/').unwrap_or((text, "24"));
    let prefix = prefix.parse().ok().filter(|bits| *bits <= 32)?;
    Some(Address {
        ip: ip.parse().ok()?,
        prefix,
    })
}

impl Address {
    /// The mask of its network.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        let ones = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32)));
        Ipv4Addr::from(ones.unwrap_or(0))
    }
}

/// Parameters for a module: of `NAME.PARAMETER=VALUE` what follows the point, joined by blanks. `-` and `_` are the
/// same in a module's name.
#[must_use]
pub fn module_parameters(cmdline: &str, module: &str) -> String {
    let plain = |name: &str| name.replace('-', "_");
    let words = cmdline.split_ascii_whitespace();
    let own: Vec<&str> = words
        .filter_map(|word| word.split_once('.'))
        .filter_map(|(name, rest)| (plain(name) == plain(module)).then_some(rest))
        .collect();
    own.join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_command_line_shared_with_linux_is_understood() {
        let options = Options::parse(
            "console=ttyS0 quiet stress=mix seconds=60 seconds=5 threads=2 seed=0xff destroy=yes \
             server=10.0.2.2/8080 address=10.0.2.15/24,192.168.1.9/16 nvme.poll_queues=1",
        )
        .unwrap();
        assert_eq!(options.work, Work::Mix);
        assert_eq!(options.time, Duration::from_secs(5));
        assert_eq!(
            (options.threads, options.seed, options.may_write),
            (2, 255, true)
        );
        assert_eq!(options.server, "10.0.2.2:8080".parse().ok());
        assert_eq!(options.addresses[1].mask(), Ipv4Addr::new(255, 255, 0, 0));
    }

    #[test]
    fn what_is_not_given_is_careful() {
        let options = Options::parse("stress=nvme destroy=no").unwrap();
        assert!(!options.may_write);
        assert_eq!((options.threads, options.seed), (4, 1));
        assert_eq!(options.addresses[0].mask(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(options.server, None);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let key = |cmdline: &str| Options::parse(cmdline).map_err(|bad| bad.key).unwrap_err();
        assert_eq!(key("quiet"), "stress");
        assert_eq!(key("stress=disk"), "stress");
        assert_eq!(key("stress=nvme seconds=0"), "seconds");
        assert_eq!(key("stress=nvme threads=65"), "threads");
        assert_eq!(key("stress=net server=x"), "server");
        assert_eq!(key("stress=net address=10.0.2.15/33"), "address");
        assert_eq!(key("stress=net seed="), "seed");
    }

    #[test]
    fn masks_of_all_lengths() {
        let mask = |prefix| {
            Address {
                ip: Ipv4Addr::LOCALHOST,
                prefix,
            }
            .mask()
        };
        assert_eq!(mask(0), Ipv4Addr::UNSPECIFIED);
        assert_eq!(mask(32), Ipv4Addr::BROADCAST);
        assert_eq!(mask(25), Ipv4Addr::new(255, 255, 255, 128));
    }

    #[test]
    fn parameters_go_to_their_module() {
        let cmdline = "quiet nvme.poll_queues=1 nvme-core.io_timeout=5 nvme.x=y";
        assert_eq!(module_parameters(cmdline, "nvme"), "poll_queues=1 x=y");
        assert_eq!(module_parameters(cmdline, "nvme_core"), "io_timeout=5");
        assert_eq!(module_parameters(cmdline, "e1000e"), "");
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line: String) {
            let _ = Options::parse(&line);
            let _ = Options::parse(&format!("stress=net {line}"));
            let _ = module_parameters(&line, "a");
        }
    }
}
