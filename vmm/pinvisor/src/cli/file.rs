//! Options from a file: TOML, with the names of the command line.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::run::RunArgs;
use vmm::config::input_file;

/// Keys of the file.
const KEYS: [&str; 15] = [
    "cmdline",
    "cpus",
    "device",
    "event-fd",
    "event-file",
    "initramfs",
    "kernel",
    "log-file",
    "low-memory",
    "memory",
    "noiommu",
    "on-reset",
    "pidfile",
    "serial",
    "verbose",
];

/// Keys of a device's table; what the first one names comes first on the command line, without the name.
const DEVICE_KEYS: &[&str] = &["bdf", "dma", "profile", "reset"];
/// The same of `memory`.
const MEMORY_KEYS: &[&str] = &["size", "hugepage_size", "spare", "pieces"];

/// Names that are more alike than this are taken for one another: the measure and the limit of
/// clap. So are those that one slip makes the same.
const ALIKE: f64 = 0.7;

/// A file with options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("Cannot read the options in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, with the key where there is one.
        problem: String,
    },
}

/// Something wrong in a file's text.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    /// Where, in bytes.
    at: usize,
    text: String,
}

/// Reads the options in `path`.
///
/// # Errors
/// [`FileError`]
pub(super) fn read(path: &Path) -> Result<RunArgs, FileError> {
    let text = input_file::read_text(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|problem| FileError::Wrong {
        path: path.to_owned(),
        line: 1 + text
            .bytes()
            .take(problem.at)
            .filter(|byte| *byte == b'\n')
            .count(),
        problem: problem.text,
    })
}

fn parse(text: &str) -> Result<RunArgs, Problem> {
    let table = DeTable::parse(text).map_err(|error| Problem {
        at: error.span().map_or(0, |span| span.start),
        text: error.message().to_owned(),
    })?;
    let mut options = RunArgs::default();
    for (name, value) in in_order(table.get_ref()) {
        known(name, &KEYS)?;
        Entry {
            name: name.get_ref(),
            value,
        }
        .store(&mut options)?;
    }
    Ok(options)
}

type Pair<'a> = (
    &'a Spanned<toml::de::DeString<'a>>,
    &'a Spanned<DeValue<'a>>,
);

/// As they stand in the file, so that the first mistake is told first.
fn in_order<'a>(table: &'a DeTable<'a>) -> Vec<Pair<'a>> {
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_by_key(|(name, _)| name.span().start);
    pairs
}

/// Refuses a name that is not among `keys`, with the one that was probably meant.
fn known(name: &Spanned<toml::de::DeString<'_>>, keys: &[&str]) -> Result<(), Problem> {
    let found: &str = name.get_ref();
    if keys.contains(&found) {
        return Ok(());
    }
    let nearest = keys
        .iter()
        .map(|key| (strsim::jaro(found, key), key))
        .filter(|(likeness, key)| *likeness > ALIKE || strsim::damerau_levenshtein(found, key) == 1)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    let text = match nearest {
        Some((_, key)) => format!("unknown key {found:?}, did you mean {key:?}?"),
        None => format!("unknown key {found:?}, known are {}", keys.join(", ")),
    };
    Err(Problem {
        at: name.span().start,
        text,
    })
}

/// A key and its value.
struct Entry<'a> {
    name: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Entry<'a> {
    fn store(&self, options: &mut RunArgs) -> Result<(), Problem> {
        let RunArgs { guest, host } = options;
        match self.name {
            "cmdline" => guest.cmdline = Some(self.text()?.to_owned()),
            "cpus" => guest.vm.cpus = Some(self.parsed(self.value, &self.text_or_number()?)?),
            "device" => {
                for one in self.array()? {
                    let words = self.words(one, DEVICE_KEYS)?;
                    guest.devices.push(self.parsed(one, &words)?);
                }
            }
            "initramfs" => guest.vm.initramfs = Some(self.path()?),
            "kernel" => guest.vm.kernel = Some(self.path()?),
            "memory" => {
                let words = self.words(self.value, MEMORY_KEYS)?;
                guest.vm.memory = Some(self.parsed(self.value, &words)?);
            }
            "low-memory" => guest.vm.low_memory = Some(self.parsed(self.value, self.text()?)?),
            "noiommu" => guest.vm.noiommu = self.boolean()?,
            "event-fd" => host.event_fd = Some(self.number()?),
            "event-file" => host.event_file = Some(self.path()?),
            "log-file" => host.log_file = Some(self.path()?),
            "on-reset" => host.on_reset = Some(self.parsed(self.value, self.text()?)?),
            "pidfile" => host.pidfile = Some(self.path()?),
            "serial" => host.serial = Some(self.parsed(self.value, self.text()?)?),
            "verbose" => host.verbose = Some(self.number()?),
            _ => {}
        }
        Ok(())
    }

    fn wrong(&self, value: &Spanned<DeValue<'_>>, text: impl Display) -> Problem {
        Problem {
            at: value.span().start,
            text: format!("{}: {text}", self.name),
        }
    }

    fn unexpected(&self, value: &Spanned<DeValue<'_>>, expected: &str) -> Problem {
        let found = value.get_ref().type_str();
        self.wrong(value, format_args!("expected {expected}, found {found}"))
    }

    fn text(&self) -> Result<&'a str, Problem> {
        let text = self.value.get_ref().as_str();
        text.ok_or_else(|| self.unexpected(self.value, "a string"))
    }

    fn path(&self) -> Result<PathBuf, Problem> {
        match self.text()? {
            "" => Err(self.wrong(self.value, "expected a path, found nothing")),
            path => Ok(path.into()),
        }
    }

    fn boolean(&self) -> Result<bool, Problem> {
        let value = self.value.get_ref().as_bool();
        value.ok_or_else(|| self.unexpected(self.value, "true or false"))
    }

    fn array(&self) -> Result<&'a [Spanned<DeValue<'a>>], Problem> {
        let array = self.value.get_ref().as_array();
        array
            .map(|array| &array[..])
            .ok_or_else(|| self.unexpected(self.value, "an array of strings or tables"))
    }

    /// A whole number as the command line would have it.
    fn digits(&self) -> Option<String> {
        let number = self.value.get_ref().as_integer()?;
        let value = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
        Some(value.to_string())
    }

    fn number<T: FromStr>(&self) -> Result<T, Problem> {
        let digits = self.digits();
        digits
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| match self.value.get_ref() {
                DeValue::Integer(_) => self.wrong(self.value, "the number is too large or small"),
                _ => self.unexpected(self.value, "a number"),
            })
    }

    fn text_or_number(&self) -> Result<String, Problem> {
        if let Some(digits) = self.digits() {
            return Ok(digits);
        }
        let text = self.value.get_ref().as_str();
        text.map(str::to_owned)
            .ok_or_else(|| self.unexpected(self.value, "a number or a string"))
    }

    /// A string as on the command line, or a table with the same in `keys`.
    fn words(&self, value: &Spanned<DeValue<'_>>, keys: &[&str]) -> Result<String, Problem> {
        let table = match value.get_ref() {
            DeValue::String(text) => return Ok(text.clone().into_owned()),
            DeValue::Table(table) => table,
            _ => return Err(self.unexpected(value, "a string or a table")),
        };
        let mut first = None;
        let mut words = String::new();
        for (name, value) in in_order(table) {
            known(name, keys)?;
            let text = value.get_ref().as_str();
            let text = text.ok_or_else(|| self.unexpected(value, "a string"))?;
            if text.contains(',') {
                return Err(self.wrong(value, format_args!("a comma cannot be in {text:?}")));
            }
            if keys.first() == Some(&name.get_ref().as_ref()) {
                first = Some(text);
            } else {
                words.push_str(&format!(",{}={text}", name.get_ref()));
            }
        }
        let first =
            first.ok_or_else(|| self.wrong(value, format_args!("{} is missing", keys[0])))?;
        Ok(first.to_owned() + &words)
    }

    fn parsed<T: FromStr<Err: Display>>(
        &self,
        value: &Spanned<DeValue<'_>>,
        words: &str,
    ) -> Result<T, Problem> {
        words.parse().map_err(|error| self.wrong(value, error))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use proptest::prelude::*;

    use super::super::Cli;
    use super::*;
    use vmm::config::{DmaMode, SerialConfig};

    /// The sample, with the options that are left out in it.
    fn sample() -> String {
        let lines = include_str!("../../../../docs/reference/config.toml").lines();
        lines
            .map(|line| match line.strip_prefix('#') {
                Some(option) if !option.starts_with(' ') => format!("{option}\n"),
                _ => format!("{line}\n"),
            })
            .collect()
    }

    #[test]
    fn there_is_a_key_for_every_option_of_run() {
        let cli = Cli::command();
        let run = cli.find_subcommand("run").unwrap();
        let mut options: Vec<_> = run
            .get_arguments()
            .chain(cli.get_arguments())
            .filter_map(clap::Arg::get_long)
            .filter(|name| !["config", "help", "version"].contains(name))
            .collect();
        options.sort_unstable();
        options.dedup();
        assert_eq!(options, KEYS);
    }

    #[test]
    fn the_sample_has_every_key_and_is_right() {
        let sample = sample();
        let table = DeTable::parse(&sample).unwrap();
        let keys: Vec<_> = table
            .get_ref()
            .iter()
            .map(|(key, _)| key.get_ref().as_ref())
            .collect();
        assert_eq!(keys, KEYS);
        let options = parse(&sample).unwrap();
        assert_eq!(options.guest.devices.len(), 3);
        assert_eq!(options.guest.devices[2].dma, DmaMode::Mediate);
        assert_eq!(options.host.serial, Some(SerialConfig::Stdio));
        assert!(options.guest.complete().is_ok());
    }

    #[test]
    fn a_device_is_a_string_or_a_table() {
        let devices = |text: &str| parse(text).map(|options| options.guest.devices);
        let written = [
            "device = ['01:00.0,dma=mediate,profile=p,reset=none']",
            "[[device]]\nbdf = '01:00.0'\nreset = 'none'\nprofile = 'p'\ndma = 'mediate'\n",
            "device = [{ bdf = '01:00.0', dma = 'mediate', profile = 'p', reset = 'none' }]",
        ];
        for text in &written[1..] {
            assert_eq!(devices(text), devices(written[0]), "{text}");
        }
        assert_eq!(devices("device = []"), Ok(Vec::new()));
    }

    #[test]
    fn mistakes_are_named_with_line_and_key() {
        for (text, line, words) in [
            (
                "\nmemroy = '1G'",
                2,
                &["\"memroy\"", "did you mean \"memory\"?"][..],
            ),
            (
                "kernel = 'k'\nlog_file = 'x'",
                2,
                &["did you mean \"log-file\"?"],
            ),
            (
                "qqq = 1",
                1,
                &["unknown key \"qqq\"", "known are cmdline, cpus"],
            ),
            ("config = 'other'", 1, &["unknown key \"config\""]),
            ("[run]\nkernel = 'k'", 1, &["unknown key \"run\""]),
            ("memory = '12Q'", 1, &["memory: expected a size", "\"12Q\""]),
            (
                "memory = 12",
                1,
                &["memory: expected a string or a table, found integer"],
            ),
            (
                "memory = { size = '1G', hugepages = '2M' }",
                1,
                &["did you mean \"hugepage_size\"?"],
            ),
            (
                "memory = { hugepage_size = '2M' }",
                1,
                &["memory: size is missing"],
            ),
            ("cpus = 33", 1, &["cpus: expected 1 to 32", "33"]),
            ("cpus = -1", 1, &["cpus", "-1"]),
            (
                "cpus = 1.5",
                1,
                &["cpus: expected a number or a string, found float"],
            ),
            ("device = '01:00.0'", 1, &["device: expected an array"]),
            ("device = [\n'01:00.0',\n'zz']", 3, &["device: ", "\"zz\""]),
            (
                "device = [{ dma = 'auto' }]",
                1,
                &["device: bdf is missing"],
            ),
            (
                "device = [{ bdf = '01:00.0', dam = 'auto' }]",
                1,
                &["did you mean \"dma\"?"],
            ),
            ("device = [{ bdf = '01:00.0,reset=none' }]", 1, &["comma"]),
            (
                "device = [{ bdf = '01:00.0', reset = true }]",
                1,
                &["device: expected a string"],
            ),
            (
                "low-memory = 'all'",
                1,
                &["low-memory: low memory is auto, ram or reserved"],
            ),
            ("serial = 'tty'", 1, &["serial: ", "pty or socket=PATH"]),
            (
                "noiommu = 'yes'",
                1,
                &["noiommu: expected true or false, found string"],
            ),
            ("event-fd = 99999999999", 1, &["event-fd: ", "too large"]),
            ("verbose = -1", 1, &["verbose: "]),
            ("kernel = ''", 1, &["kernel: expected a path"]),
            ("kernel = 'a'\nkernel = 'b'", 2, &["duplicate key"]),
            ("kernel = ", 1, &[""]),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let error = read(file.path()).unwrap_err().to_string();
            let place = format!("{}:{line}: ", file.path().display());
            assert!(error.starts_with(&place), "{text}: {error}");
            for word in words {
                assert!(error.contains(word), "{text}: {error}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("options");
        let refused = || matches!(read(&path), Err(FileError::Read { .. }));
        assert!(refused(), "missing");
        std::fs::write(&path, b"kernel = '\xff'").unwrap();
        assert!(refused(), "not UTF-8");
        std::fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
        assert!(refused(), "too long");
    }

    proptest! {
        #[test]
        fn nothing_in_a_file_makes_this_panic(text in "(([a-z-]{1,9}|device|memory|cpus) ?= ?([0-9.x-]{1,20}|'.{0,9}'|\\[.{0,9}\\]|\\{.{0,20}\\})\n){0,4}.{0,9}") {
            let _ = parse(&text);
        }
    }
}
