// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Verdicts, line by line.

use std::io::{self, Write};

use address::Bdf;
use anstyle::{AnsiColor, Style};
use serde::{Serialize, Serializer};

use crate::checks::id::Id;

/// Version of the form of [`Report::write_json`].
const JSON_VERSION: u32 = 1;

/// How one check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Ok,
    /// A run is possible, with a reservation.
    Warn,
    /// A run is not possible.
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }

    fn style(self) -> Style {
        let color = match self {
            Self::Ok => AnsiColor::Green,
            Self::Warn => AnsiColor::Yellow,
            Self::Fail => AnsiColor::Red,
        };
        color.on_default().bold()
    }
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Which check.
    pub id: Id,
    /// The device that it is about, if it is about one.
    #[serde(serialize_with = "as_text")]
    pub device: Option<Bdf>,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
    /// The hint: the next command to type; `None` where the verdict is [`Verdict::Ok`]. JSON calls it `next`.
    #[serde(rename = "next")]
    pub hint: Option<String>,
}

fn as_text<S: Serializer>(bdf: &Option<Bdf>, serializer: S) -> Result<S::Ok, S::Error> {
    match bdf {
        Some(bdf) => serializer.collect_str(bdf),
        None => serializer.serialize_none(),
    }
}

impl Line {
    pub(crate) fn ok(id: Id, text: impl Into<String>) -> Self {
        Self {
            id,
            device: None,
            verdict: Verdict::Ok,
            text: text.into(),
            hint: None,
        }
    }

    pub(crate) fn warn(id: Id, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warn,
            hint: Some(hint.into()),
            ..Self::ok(id, text)
        }
    }

    pub(crate) fn fail(id: Id, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            hint: Some(hint.into()),
            ..Self::ok(id, text)
        }
    }

    pub(crate) fn of(mut self, bdf: Bdf) -> Self {
        self.device = Some(bdf);
        self
    }
}

/// All lines, in the order in which they matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The lines.
    pub lines: Vec<Line>,
}

#[derive(Serialize)]
struct Json<'a> {
    version: u32,
    ok: bool,
    checks: &'a [Line],
}

impl Report {
    /// Whether a run is possible.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.lines.iter().all(|line| line.verdict != Verdict::Fail)
    }

    /// Writes the lines for a person: `VERDICT ID: TEXT`, and below it the next command. Verdicts are
    /// coloured if `colour`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_text(&self, out: &mut dyn Write, colour: bool) -> io::Result<()> {
        let mut device = None;
        for line in &self.lines {
            if line.device != device {
                device = line.device;
                if let Some(bdf) = device {
                    writeln!(out, "\n{bdf}")?;
                }
            }
            let style = match colour {
                true => line.verdict.style(),
                false => Style::new(),
            };
            let word = line.verdict.word();
            let id = line.id.name();
            writeln!(out, "{style}{word:<4}{style:#} {id}: {}", line.text)?;
            if let Some(hint) = &line.hint {
                writeln!(out, "     next: {hint}")?;
            }
        }
        let count = |verdict| {
            let lines = self.lines.iter();
            lines.filter(|line| line.verdict == verdict).count()
        };
        let failed = count(Verdict::Fail);
        let warned = match count(Verdict::Warn) {
            1 => "1 warning".to_owned(),
            count => format!("{count} warnings"),
        };
        match failed {
            0 => writeln!(out, "\nReady, with {warned}"),
            _ => writeln!(out, "\nNot ready: {failed} failed, {warned}"),
        }
    }

    /// Writes the lines for a program: one object with `version` (1), `ok`, and `checks`, a list
    /// of objects with `id`, `device` (or null), `verdict` (`ok`, `warn` or `fail`), `text` and
    /// `next` (or null).
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let json = Json {
            version: JSON_VERSION,
            ok: self.is_ok(),
            checks: &self.lines,
        };
        serde_json::to_writer_pretty(&mut *out, &json)?;
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            lines: vec![
                Line::ok(Id::Kvm, "there"),
                Line::fail(Id::DeviceDriver, "nvme holds it", "pinvisor bind 01:00.0")
                    .of("01:00.0".parse().unwrap()),
            ],
        }
    }

    #[test]
    fn a_person_reads_the_next_command_below_the_line() {
        let text = |colour| {
            let mut out = Vec::new();
            report().write_text(&mut out, colour).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            text(false),
            "OK   kvm: there\n\n0000:01:00.0\nFAIL device-driver: nvme holds it\n     \
             next: pinvisor bind 01:00.0\n\nNot ready: 1 failed, 0 warnings\n"
        );
        assert!(text(true).contains("\u{1b}[31mFAIL\u{1b}[0m device-driver: "));
    }

    #[test]
    fn a_program_reads_the_same() {
        let mut out = Vec::new();
        report().write_json(&mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["ok"], false);
        assert_eq!(json["checks"][0]["device"], serde_json::Value::Null);
        let line = &json["checks"][1];
        assert_eq!(line["id"], "device-driver");
        assert_eq!(line["device"], "0000:01:00.0");
        assert_eq!(line["verdict"], "fail");
        assert_eq!(line["next"], "pinvisor bind 01:00.0");
    }
}
