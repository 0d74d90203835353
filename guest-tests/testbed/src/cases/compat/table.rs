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

/// Rows by their place in the table. A run of the cases is for one architecture.
static ROWS: Mutex<Vec<(usize, Row)>> = Mutex::new(Vec::new());

/// Adds rows by their place in the table of `arch`; when all `count` are there, prints the table, and writes it to the
/// documentation if every row is well.
///
/// # Errors
/// [`Error::File`](crate::Error::File).
pub fn add(arch: Arch, rows: impl Iterator<Item = (usize, Row)>, count: usize) -> Result<()> {
    let mut all = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    all.extend(rows);
    if all.len() < count {
        return Ok(());
    }
    let mut rows = std::mem::take(&mut *all);
    drop(all);
    rows.sort_by_key(|(place, _)| *place);
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    let table = render(&rows);
    println!("\n{table}");
    if rows.iter().any(|row| !row.problems.is_empty()) {
        println!("{FILE} stays as it is: not every row is well.\n");
        return Ok(());
    }
    let path = paths::checkout().join(FILE);
    let published = fs::read_to_string(&path).at("read", &path)?;
    let [mut pc, mut aarch64] =
        ["## x86-64", "## aarch64"].map(|heading| table_of(&published, heading));
    match arch {
        Arch::X86_64 => pc = table,
        Arch::Aarch64 => aarch64 = table,
    }
    fs::write(&path, document(&pc, &aarch64)).at("write", &path)
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

fn document(pc: &str, aarch64: &str) -> String {
    let or_none = |table: &str| match table {
        "" => "No row has been run yet.\n".to_owned(),
        rows => rows.to_owned(),
    };
    include_str!("compatibility.md")
        .replace("@PC@\n", &or_none(pc))
        .replace("@AARCH64@\n", &or_none(aarch64))
}

/// The table under a heading; empty if there is none.
fn table_of(document: &str, heading: &str) -> String {
    let section = document.lines().skip_while(|line| *line != heading).skip(1);
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
    fn the_document_holds_the_table() {
        let document = document("| x |\n| y |\n", "| z |\n");
        assert!(document.contains("\n| x |\n"));
        assert_eq!(table_of(&document, "## x86-64"), "| x |\n| y |\n");
        assert_eq!(table_of(&document, "## aarch64"), "| z |\n");
        assert_eq!(table_of(&document, "## other"), "");
        let empty = super::document("", "");
        assert_eq!(table_of(&empty, "## aarch64"), "");
        assert!(empty.contains("## aarch64\n\nNo row has been run yet.\n\n## Columns"));
    }

    #[test]
    fn the_documentation_is_this_text() {
        let path = paths::checkout().join(FILE);
        let published = fs::read_to_string(path).unwrap();
        let tables = ["## x86-64", "## aarch64"].map(|heading| table_of(&published, heading));
        assert_eq!(published, document(&tables[0], &tables[1]));
    }
}
