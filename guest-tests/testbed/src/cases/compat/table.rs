// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The compatibility table: rows come in as cases end, the last one publishes it.

use std::fmt::Write;
use std::fs;
use std::sync::{Mutex, PoisonError};

use crate::error::{AtPath, Result};
use crate::paths;
use crate::setup::Arch;

/// Where the table is published, in the checkout.
const FILE: &str = "docs/reference/compatibility.md";

/// A table of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// PCs.
    Pc,
    /// PCs whose kernel has VFIO groups only.
    Group,
    /// Machines of this architecture.
    Aarch64,
}

impl Section {
    const ALL: [Self; 3] = [Self::Pc, Self::Group, Self::Aarch64];

    /// That of the newest kernel of `arch`.
    pub fn of(arch: Arch) -> Self {
        match arch {
            Arch::X86_64 => Self::Pc,
            Arch::Aarch64 => Self::Aarch64,
        }
    }

    /// Its heading, which stands before its table.
    fn heading(self) -> &'static str {
        match self {
            Self::Pc => "## x86-64",
            Self::Group => "## x86-64, on Linux 6.12",
            Self::Aarch64 => "## aarch64",
        }
    }

    /// What stands for its table in the document's text.
    fn mark(self) -> &'static str {
        match self {
            Self::Pc => "@PC@\n",
            Self::Group => "@GROUP@\n",
            Self::Aarch64 => "@AARCH64@\n",
        }
    }
}

/// What is looked at in every row, as the table's columns name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// The guest's own driver claimed every function.
    Probe,
    /// Data and interrupts were right.
    Work,
    /// The same in the next guest.
    Again,
    /// Nothing was left behind, and the device was quiet before anything was released.
    End,
    /// No memory but the guest's was written.
    Canary,
}

impl Aspect {
    const ALL: [Self; 5] = [
        Self::Probe,
        Self::Work,
        Self::Again,
        Self::End,
        Self::Canary,
    ];
}

/// A row: what was done and what was found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The device or devices.
    pub name: &'static str,
    /// What the guest did.
    pub work: &'static str,
    /// Interrupts used.
    pub interrupts: String,
    /// Aspects that do not apply.
    pub without: &'static [Aspect],
    /// Everything that was wrong.
    pub problems: Vec<(Aspect, String)>,
}

impl Row {
    fn cell(&self, aspect: Aspect) -> &'static str {
        if self.problems.iter().any(|(of, _)| *of == aspect) {
            "**no**"
        } else if self.without.contains(&aspect) {
            "–"
        } else {
            "yes"
        }
    }
}

/// Rows by their place in their tables.
static ROWS: Mutex<Vec<(Section, usize, Row)>> = Mutex::new(Vec::new());

/// Adds rows by their place in the table of `section`; when all `count` are there, prints the table, and writes it to the
/// documentation if every row is well.
///
/// # Errors
/// [`Error::File`](crate::Error::File).
pub fn add(section: Section, rows: impl Iterator<Item = (usize, Row)>, count: usize) -> Result<()> {
    let mut all = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    all.extend(rows.map(|(place, row)| (section, place, row)));
    let is_here = |(of, ..): &&(Section, usize, Row)| *of == section;
    if all.iter().filter(is_here).count() < count {
        return Ok(());
    }
    let mut rows: Vec<_> = all.iter().filter(is_here).cloned().collect();
    rows.sort_by_key(|(_, place, _)| *place);
    let rows: Vec<Row> = rows.into_iter().map(|(.., row)| row).collect();
    let table = render(&rows);
    println!("\n{table}");
    if rows.iter().any(|row| !row.problems.is_empty()) {
        println!("{FILE} stays as it is: not every row is well.\n");
        return Ok(());
    }
    let path = paths::checkout().join(FILE);
    let published = fs::read_to_string(&path).at("read", &path)?;
    let document = document(|of| match of == section {
        true => table.clone(),
        false => table_of(&published, of),
    });
    fs::write(&path, document).at("write", &path)
}

fn render(rows: &[Row]) -> String {
    let mut text = String::from(
        "| Device (QEMU's model) | What the guest does | Interrupts | Probe | Work | After reset | Clean end | Canary |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let cells = Aspect::ALL.map(|aspect| row.cell(aspect)).join(" | ");
        let Row {
            name,
            work,
            interrupts,
            ..
        } = row;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {work} | {interrupts} | {cells} |");
    }
    text
}

/// The document with the table of each section; an empty one if it has no rows yet.
fn document(table: impl Fn(Section) -> String) -> String {
    let text = include_str!("compatibility.md").to_owned();
    Section::ALL.into_iter().fold(text, |text, section| {
        let table = Some(table(section)).filter(|table| !table.is_empty());
        let table = table.unwrap_or_else(|| "No row has been run yet.\n".to_owned());
        text.replace(section.mark(), &table)
    })
}

/// The table of a section in a document; empty if there is none.
fn table_of(document: &str, section: Section) -> String {
    let lines = document.lines();
    let section = lines.skip_while(|line| *line != section.heading()).skip(1);
    let section = section.take_while(|line| !line.starts_with('#'));
    let rows = section.filter(|line| line.starts_with('|'));
    rows.flat_map(|row| [row, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            name: "nvme",
            work: "disk",
            interrupts: "MSI-X".into(),
            without: &[Aspect::Again],
            problems: vec![(Aspect::Canary, "3 words changed".into())],
        }
    }

    #[test]
    fn a_problem_shows_in_its_column() {
        let table = render(&[row()]);
        let last = table.lines().last().unwrap();
        assert_eq!(
            last,
            "| nvme | disk | MSI-X | yes | yes | – | yes | **no** |"
        );
    }

    #[test]
    fn the_document_holds_the_tables() {
        let table = |section| match section {
            Section::Pc => "| x |\n| y |\n",
            Section::Group => "| w |\n",
            Section::Aarch64 => "",
        };
        let document = document(|section| table(section).to_owned());
        for section in Section::ALL {
            assert_eq!(table_of(&document, section), table(section));
        }
        assert!(document.contains("## aarch64\n\nNo row has been run yet.\n\n## Columns"));
        assert_eq!(table_of("", Section::Pc), "");
    }

    #[test]
    fn the_documentation_is_this_text() {
        let path = paths::checkout().join(FILE);
        let published = fs::read_to_string(path).unwrap();
        let again = document(|section| table_of(&published, section));
        assert_eq!(published, again);
    }
}
