//! The terminal: what goes to standard output, what to standard error, in colour or not, and the spinner.

use super::error::Failure;
use super::exit::Exit;
use clap::ValueEnum;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::time::Instant;

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Colours always.
    Always,
    /// Colours never.
    Never,
}

/// The way to print for the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ui {
    pub(crate) json: bool,
    /// Nothing of a lease's life, only errors and warnings.
    pub(crate) quiet: bool,
    /// The reader takes some lines for commands (see `ci::Log`).
    pub(crate) reader_obeys: bool,
    /// Nothing at all on standard error.
    mute: bool,
    pub(crate) color_out: bool,
    pub(crate) color_err: bool,
    out_is_terminal: bool,
    err_is_terminal: bool,
}

impl Ui {
    pub(crate) fn new(json: bool, choice: ColorChoice) -> Self {
        let out_is_terminal = std::io::stdout().is_terminal();
        let err_is_terminal = std::io::stderr().is_terminal();
        // https://no-color.org: set and not empty.
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let color = |terminal: bool| match choice {
            ColorChoice::Auto => terminal && wanted,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        Self {
            json,
            quiet: false,
            reader_obeys: false,
            mute: false,
            color_out: color(out_is_terminal) && !json,
            color_err: color(err_is_terminal),
            out_is_terminal,
            err_is_terminal,
        }
    }

    /// For a caller that reads no messages.
    pub(crate) fn mute() -> Self {
        Self { quiet: true, mute: true, ..Self::new(false, ColorChoice::Never) }
    }

    /// Prints to standard output. A reader that has gone away ends the program without a word.
    pub(crate) fn out(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::silent(Exit::Command(141))),
            Err(error) => Err(Failure::new(Exit::Internal, format!("standard output can not be written: {error}"))),
        }
    }

    /// A document for programs.
    pub(crate) fn document(&self, value: &Value) -> Result<(), Failure> {
        self.out(&format!("{value:#}"))
    }

    /// A line of a stream for programs.
    pub(crate) fn record(&self, value: &Value) -> Result<(), Failure> {
        self.out(&value.to_string())
    }

    /// An event of a lease's life, on standard error. What a command prints comes between such lines, so they are marked.
    pub(crate) fn event(&self, text: &str) {
        if !self.quiet {
            self.err(&format!("{} {text}", self.dim("wharfinger:")));
        }
    }

    /// The same, also for those who asked for silence.
    pub(crate) fn always(&self, text: &str) {
        self.err(&format!("{} {text}", self.dim("wharfinger:")));
    }

    /// Something that is not as it should be, on standard error.
    pub(crate) fn warn(&self, text: &str) {
        let mark = if self.color_err { "\u{1b}[33mwarning:\u{1b}[0m" } else { "warning:" };
        self.err(&format!("{} {mark} {text}", self.dim("wharfinger:")));
    }

    /// A line on standard error. A closed standard error is no failure.
    pub(crate) fn err(&self, text: &str) {
        if self.reader_obeys {
            self.raw(&super::ci::without_commands(text));
        } else {
            self.raw(text);
        }
    }

    /// A line on standard error, as it is.
    pub(crate) fn raw(&self, text: &str) {
        if !self.mute {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    fn dim(&self, text: &str) -> String {
        if self.color_err { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text.to_string() }
    }

    /// A table without lines, as wide as it needs to be.
    pub(crate) fn table(&self, header: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.color_out {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        // Off a terminal a row is a line, whatever its length: it goes to grep and awk.
        let arrangement = if self.out_is_terminal { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
        table.set_content_arrangement(arrangement);
        if !header.is_empty() {
            table.set_header(header.iter().map(|name| self.strong(name)));
        }
        table
    }

    /// Prints a table; `nothing` if it has no rows.
    pub(crate) fn print(&self, table: Table, nothing: &str) -> Result<(), Failure> {
        if table.is_empty() {
            return self.out(nothing);
        }
        let mut table = table;
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.out(&table.trim_fmt())
    }

    fn strong(&self, text: &str) -> Cell {
        let cell = Cell::new(text);
        if self.color_out { cell.add_attribute(Attribute::Bold) } else { cell }
    }

    /// A cell with a state, in the colour of how things stand.
    pub(crate) fn state(&self, name: &str) -> Cell {
        let cell = Cell::new(name);
        if self.color_out { cell.fg(tone(name)) } else { cell }
    }

    /// A state for a line on standard output.
    pub(crate) fn state_text(&self, name: &str) -> String {
        if !self.color_out {
            return format!("{name:<9}");
        }
        let code = match tone(name) {
            Color::Green => 32,
            Color::Yellow => 33,
            Color::Red => 31,
            Color::Cyan => 36,
            _ => 90,
        };
        format!("\u{1b}[{code}m{name:<9}\u{1b}[0m")
    }

    /// Something that turns while we wait; shown on a terminal only.
    pub(crate) fn spinner(&self) -> Spinner {
        if !self.err_is_terminal || self.quiet {
            return Spinner::none();
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        let mut spinner = Spinner::none();
        spinner.bar = Some(bar);
        spinner
    }
}

/// Where a state belongs.
fn tone(name: &str) -> Color {
    match name {
        "ACTIVE" | "READY" | "RELEASED" | "yes" => Color::Green,
        "QUEUED" | "PREPARING" | "PROVISIONING" => Color::Cyan,
        "SUSPECT" | "REPAIRING" | "DRAINING" | "QUARANTINED" | "EXPIRED" | "cordoned" | "no" | "DRY RUN" => {
            Color::Yellow
        }
        "BROKEN" | "FAILED" | "ORPHANED" | "BRAKE ON" => Color::Red,
        _ => Color::DarkGrey,
    }
}

/// Minimum time between lines with a changed reason, off a terminal.
const QUIET_FOR: Duration = Duration::from_secs(5);

/// Turns until it is dropped.
#[derive(Debug)]
pub(crate) struct Spinner {
    bar: Option<ProgressBar>,
    said: String,
    said_at: Option<Instant>,
}

impl Spinner {
    /// One that does not turn.
    pub(crate) fn none() -> Self {
        Self { bar: None, said: String::new(), said_at: None }
    }

    /// Says what we do, on a terminal only: it will not take long.
    pub(crate) fn turn(&mut self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_string());
        }
    }

    /// Says why we wait. Without a terminal each new reason is a line.
    pub(crate) fn say(&mut self, ui: &Ui, text: &str) {
        if self.said == text {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(text.to_string()),
            None if self.said_at.is_some_and(|at| at.elapsed() < QUIET_FOR) => return,
            None => ui.event(text),
        }
        self.said = text.to_string();
        self.said_at = Some(Instant::now());
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
