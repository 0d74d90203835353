// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stress run: listens to the guest, judges it, and reports.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stress_report::{Collector, Terminal, Verdict, text, write_html, write_json};

use pinvisor::{RunContext, launch};
use vmm::config::ValidConfig;
use vmm::console::Console;
use vmm::{Harness, Layout, RunLimit};

use crate::config::SoftwareConfig;
use crate::display::Display;
use crate::error::Error;
use crate::facts;
use crate::machine::{Refusals, SoftwareMachine};
use crate::screen;

/// A stress guest, and the processing of its output.
#[derive(Clone, Debug)]
pub struct StressConfig {
    /// The microVM; its serial port is listened to, wherever it would go.
    pub vm: ValidConfig,
    /// Software in place of devices and of physical memory.
    pub software: Option<SoftwareConfig>,
    /// How long the guest may take.
    pub limit: Duration,
    /// Where the report goes as a page.
    pub html: Option<PathBuf>,
    /// Where the report goes for programs.
    pub json: Option<PathBuf>,
    /// Where everything goes that the guest prints.
    pub log: Option<PathBuf>,
}

/// Runs the guest, with its RAM placed by `layout`, if there is one, where devices use physical addresses, prints the
/// report and returns its verdict.
///
/// # Errors
/// [`Error`] if the guest did not get to run, or the report cannot be written. What goes wrong in
/// the guest is in the report.
pub fn run(config: &StressConfig, layout: Option<&dyn Layout>) -> Result<Verdict, Error> {
    pinvisor::print_by(screen::print);
    let ear = Ear::open(config)?;
    let began = Instant::now();
    let mut console = Console::into_sink(Box::new(ear.clone()))?;
    let machine = config.software.as_ref().map(SoftwareMachine::new);
    let machine = machine.transpose().map_err(vmm::Error::from)?;
    let witness = machine.as_ref().map(SoftwareMachine::witness);
    let harness = Harness {
        layout,
        handover: None,
        machine: machine.map(|machine| Box::new(machine) as _),
    };
    let ended = launch(
        &config.vm,
        harness,
        &mut console,
        RunLimit::Time(config.limit),
        &mut RunContext::of_guest()?,
    )?;
    let refusals = witness.map_or_else(Refusals::default, |witness| witness.refusals());
    let outcome = facts::outcome(&ended, &refusals, began.elapsed());
    let setup = facts::setup(&config.vm, &ended.remains.info)?;
    let report = ear.finish().finish(setup, outcome);
    show(&text(&report, terminal()));
    let page = config.html.as_deref().map(|path| write_html(&report, path));
    let json = config.json.as_deref().map(|path| write_json(&report, path));
    if let (Some(path), Some(Ok(()))) = (&config.html, &page) {
        show(&format!("Report: {}\n", path.display()));
    }
    ended.remains.torn_down?;
    for written in [page, json].into_iter().flatten() {
        written?;
    }
    Ok(report.verdict())
}

/// The terminal that the report is for. Colours are taken out where it has none.
fn terminal() -> Terminal {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    Terminal {
        width: size.map_or(Terminal::default().width, |size| size.ws_col.into()),
        colour: true,
    }
}

/// Prints to standard output. A reader that has gone away has seen enough.
fn show(text: &str) {
    let mut out = anstream::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Reads the guest's output, and passes it to the collector, the display and the log.
#[derive(Clone, Debug)]
struct Ear(Arc<Mutex<Listening>>);

#[derive(Debug)]
struct Listening {
    collector: Collector,
    display: Display,
    log: Option<File>,
}

impl Ear {
    fn open(config: &StressConfig) -> Result<Self, Error> {
        let create = |path: &PathBuf| {
            File::create(path).map_err(|source| vmm::FileError {
                what: "the guest's log",
                path: path.clone(),
                source,
            })
        };
        Ok(Self(Arc::new(Mutex::new(Listening {
            collector: Collector::new(),
            display: Display::new(),
            log: config.log.as_ref().map(create).transpose()?,
        }))))
    }

    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the display and hands over what was heard.
    fn finish(&self) -> Collector {
        let mut listening = self.listening();
        listening.display.clear();
        std::mem::take(&mut listening.collector)
    }
}

impl Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut listening = self.listening();
        let Listening {
            collector,
            display,
            log,
        } = &mut *listening;
        collector.feed(bytes);
        if bytes.contains(&b'\n') {
            display.show(&collector.progress());
        }
        if let Some(file) = log
            && let Err(error) = file.write_all(bytes)
        {
            log::warn!("The guest's log ends here: {error}");
            *log = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
