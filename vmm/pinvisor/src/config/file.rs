// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options from a file: TOML, with the names of the command line.

use std::io;
use std::path::{Path, PathBuf};

use super::RunOptions;
use vmm::config::input_file;

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

impl RunOptions {
    /// Reads the options in `path`.
    ///
    /// # Errors
    /// [`FileError`]
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = input_file::read_text(path).map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|error| FileError::Wrong {
            path: path.to_owned(),
            line: line(&text, &error),
            problem: problem(error),
        })
    }
}

/// The line of `text` that `error` is about, from 1.
fn line(text: &str, error: &toml::de::Error) -> usize {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.bytes().take(start);
    1 + before.filter(|byte| *byte == b'\n').count()
}

/// What is wrong and in which key, on one line.
fn problem(mut error: toml::de::Error) -> String {
    // With its text an error prints an excerpt of several lines, without it the key.
    error.set_input(None);
    error.to_string().trim_end().replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use vmm::config::{BackendChoice, DmaMode, Poll, SerialConfig};

    use super::*;

    fn read(text: &[u8]) -> Result<RunOptions, FileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        RunOptions::read(file.path())
    }

    fn options(text: &str) -> RunOptions {
        read(text.as_bytes()).unwrap()
    }

    /// The line and what is wrong there.
    fn refusal(text: &str) -> (usize, String) {
        match read(text.as_bytes()).unwrap_err() {
            FileError::Wrong { line, problem, .. } => (line, problem),
            error => panic!("{error}"),
        }
    }

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
    fn the_sample_has_every_key_and_is_right() {
        let sample = sample();
        let table: toml::Table = sample.parse().unwrap();
        let keys: Vec<_> = table.keys().map(String::as_str).collect();
        let (_, known) = refusal("no-key = 1");
        for key in &keys {
            assert!(known.contains(&format!("`{key}`")), "{key}: {known}");
        }
        // Two for each, two for the key that is not known.
        assert_eq!(known.matches('`').count(), 2 * keys.len() + 2, "{known}");
        let options = options(&sample);
        assert_eq!(options.devices.len(), 4);
        assert_eq!(options.devices[1].dma, DmaMode::Identity);
        assert!(options.devices[1].allow_no_reset);
        let profile = Some("/etc/pinvisor/card.toml".into());
        assert_eq!(options.devices[2].dma, DmaMode::Mediate);
        assert_eq!(options.devices[2].profile, profile);
        assert_eq!(options.devices[3].poll, Some(Poll::Auto));
        assert_eq!(options.serial, Some(SerialConfig::Stdio));
        assert_eq!(options.backend, Some(BackendChoice::Auto));
        let config = options.complete().unwrap();
        assert_eq!(config.guest.kernel, Path::new("/boot/vmlinuz"));
        assert_eq!(config.guest.memory.size, 2 << 30);
        assert_eq!(config.guest.cpus.get(), 4);
        assert_eq!((config.host.verbose, config.host.event_fd), (1, Some(3)));
    }

    #[test]
    fn a_device_is_a_string_or_a_table() {
        let written = [
            "device = ['01:00.0,dma=mediate,profile=p,reset=none']",
            "[[device]]\nbdf = '01:00.0'\nreset = 'none'\nprofile = 'p'\ndma = 'mediate'\n",
            "device = [{ bdf = '01:00.0', dma = 'mediate', profile = 'p', reset = 'none' }]",
        ];
        for text in &written[1..] {
            assert_eq!(options(text), options(written[0]), "{text}");
        }
        assert_eq!(options(written[0]).devices.len(), 1);
        assert_eq!(options("device = []"), RunOptions::default());
    }

    #[test]
    fn memory_is_a_string_or_a_table() {
        let table = "memory = { size = '1G', hugepage_size = '1G', spare = '0', pieces = 'any' }";
        let text = "memory = '1G,hugepage_size=1G,spare=0,pieces=any'";
        assert_eq!(options(table), options(text));
        assert!(options(text).memory.is_some());
    }

    #[test]
    fn unknown_keys_are_named_with_the_valid_ones() {
        for (text, line, words) in [
            (
                "\nmemroy = '1G'",
                2,
                "unknown field `memroy`, expected one of `kernel`, `initramfs`",
            ),
            (
                "kernel = 'k'\nlog_file = 'x'",
                2,
                "unknown field `log_file`",
            ),
            ("config = 'other'", 1, "unknown field `config`"),
            ("[run]\nkernel = 'k'", 1, "unknown field `run`"),
            (
                "memory = { size = '1G', hugepages = '2M' }",
                1,
                "`hugepages`, expected one of `size`, `hugepage_size`, `spare`, `pieces`, `layout` in `memory`",
            ),
            (
                "device = [\n{ bdf = '01:00.0' },\n{ bdf = '02:00.0', dam = 'auto' }]",
                3,
                "`dam`, expected one of `bdf`, `dma`, `profile`, `poll`, `reset` in `device`",
            ),
            ("kernel = 'a'\nkernel = 'b'", 2, "duplicate key"),
            ("kernel = ", 1, ""),
        ] {
            let (found, problem) = refusal(text);
            assert_eq!(found, line, "{text}: {problem}");
            assert!(problem.contains(words), "{text}: {problem}");
        }
    }

    #[test]
    fn values_that_cannot_be_used_are_named_with_line_and_key() {
        for (key, value, words) in [
            (
                "memory",
                "'12Q'",
                "expected a size such as 512M or 2G, found \"12Q\"",
            ),
            ("memory", "'3M'", "multiple of the hugepage size 2M"),
            (
                "memory",
                "12",
                "invalid type: integer `12`, expected a string or a table",
            ),
            ("memory", "{ hugepage_size = '2M' }", "missing field `size`"),
            ("cpus", "33", "expected 1 to 32 CPUs, found \"33\""),
            ("cpus", "-1", "expected 1 to 32 CPUs, found \"-1\""),
            ("cpus", "1.5", "expected a number or a string"),
            ("device", "'01:00.0'", "invalid type: string \"01:00.0\""),
            (
                "device",
                "[\n'zz']",
                "expected a PCI address such as 0000:01:00.0 or 01:00.0, found \"zz\"",
            ),
            ("device", "[\n{ dma = 'auto' }]", "missing field `bdf`"),
            (
                "device",
                "[\n{ bdf = '01:00.0,reset=none' }]",
                "expected a PCI address",
            ),
            ("device", "[\n{ bdf = '01:00.0', reset = true }]", "boolean"),
            (
                "device",
                "[\n'01:00.0,profile=p']",
                "profile=FILE requires dma=mediate",
            ),
            (
                "device",
                "[\n'01:00.0,poll=on']",
                "poll=auto|on|off requires dma=mediate without profile=FILE",
            ),
            (
                "device",
                "[\n{ bdf = '01:00.0', dma = 'mediate', poll = 'yes' }]",
                "expected auto|on|off, found \"yes\"",
            ),
            ("device", "[\n'01:00.0,iommu=on']", "guests get no IOMMU"),
            (
                "low-memory",
                "'all'",
                "expected auto|ram|reserved, found \"all\"",
            ),
            ("low-memory", "{ ram = {} }", "expected a string"),
            ("backend", "'x'", "expected auto|cdev|group, found \"x\""),
            ("on-reset", "'x'", "expected exit|restart, found \"x\""),
            ("serial", "'tty'", "pty or socket=PATH, found \"tty\""),
            ("noiommu", "'yes'", "expected a boolean"),
            ("event-fd", "99999999999", "99999999999"),
            ("verbose", "-1", "-1"),
            ("kernel", "''", "expected a path, found nothing"),
            ("pidfile", "''", "expected a path, found nothing"),
            ("kernel", "1979-05-27", "invalid type"),
        ] {
            let text = format!("\n{key} = {value}\nlog-file = 'log'\n");
            let (line, problem) = refusal(&text);
            assert!(problem.contains(words), "{text}: {problem}");
            assert!(
                problem.contains(&format!(" in `{key}")),
                "{text}: {problem}"
            );
            assert_eq!(line, 2 + value.matches('\n').count(), "{text}: {problem}");
        }
    }

    #[test]
    fn an_error_is_one_line_that_begins_with_file_and_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "\n\"a\\nb\\u001b[2J\" = 1").unwrap();
        let error = RunOptions::read(file.path()).unwrap_err().to_string();
        let place = format!("{}:2: unknown field `a b [2J`", file.path().display());
        assert!(error.starts_with(&place), "{error}");
        assert!(!error.contains(char::is_control), "{error}");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = RunOptions::read(&folder.path().join("options"));
        assert!(matches!(missing, Err(FileError::Read { .. })));
        let refused = |bytes: &[u8]| matches!(read(bytes), Err(FileError::Read { .. }));
        assert!(refused(b"kernel = '\xff'"), "not UTF-8");
        assert!(refused(&vec![b'#'; 2 << 20]), "too long");
    }

    proptest! {
        #[test]
        fn nothing_in_a_file_makes_this_panic(text in "(([a-z-]{1,9}|device|memory|cpus) ?= ?([0-9.x-]{1,20}|'.{0,9}'|\\[.{0,9}\\]|\\{.{0,20}\\})\n){0,4}.{0,9}") {
            if let Err(error) = toml::from_str::<RunOptions>(&text) {
                let lines = text.bytes().filter(|byte| *byte == b'\n').count();
                prop_assert!((1..=1 + lines).contains(&line(&text, &error)));
                prop_assert!(!problem(error).is_empty());
            }
        }
    }
}
