//! What clap makes of the grammar: manual pages and completions.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, written};
use crate::Error;

/// Options of `pinvisor man`.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Write the pages of all commands to this directory; without one, the page of pinvisor
    /// itself goes to standard output
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Options of `pinvisor completions`.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

impl ManArgs {
    /// Writes the pages.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Process`]
    pub fn write(&self) -> Result<(), Error> {
        let Some(folder) = &self.folder else {
            let mut page = Vec::new();
            // Memory takes everything.
            let _ = Man::new(Cli::command()).render(&mut page);
            return print(&page);
        };
        Ok(
            pages(Cli::command(), folder).map_err(|source| vmm::FileError {
                what: "the directory for manual pages",
                path: folder.clone(),
                source,
            })?,
        )
    }
}

impl CompletionsArgs {
    /// Prints the script.
    ///
    /// # Errors
    /// [`Error::Process`]
    pub fn write(&self) -> Result<(), Error> {
        print(&script(self.shell))
    }
}

fn pages(command: Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pinvisor", &mut script);
    script
}

fn print(text: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout();
    written(out.write_all(text).and_then(|()| out.flush()))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    fn commands() -> Vec<String> {
        let cli = Cli::command();
        let names = cli.get_subcommands().filter(|one| !one.is_hide_set());
        names.map(|one| one.get_name().to_owned()).collect()
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        pages(Cli::command(), folder.path()).unwrap();
        let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let main = page("pinvisor.1");
        assert!(main.contains("Exit codes"), "{main}");
        assert!(commands().contains(&"run".to_owned()));
        for name in commands() {
            assert!(main.contains(&format!("pinvisor\\-{name}(1)")), "{name}");
            assert!(page(&format!("pinvisor-{name}.1")).contains(".SH SYNOPSIS"));
        }
        assert!(page("pinvisor-run.1").contains("\\-\\-event\\-fd"));
    }

    #[test]
    fn every_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            for name in commands() {
                assert!(script.contains(&name), "{shell}: {name}");
            }
            assert!(script.contains("event-fd"), "{shell}");
        }
    }
}
