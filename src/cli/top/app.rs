//! The present screen of the terminal, and the effects of keys on it.

use super::ask::Answer;
use super::sheet::{Sheet, sheet};
use crate::cli::text::clock_now;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// A view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum View {
    Now,
    Pools,
    Resources {
        /// Only of this pool. Empty: of all.
        pool: String,
        /// Only those that need a look.
        trouble: bool,
    },
    /// One resource, by its id or the name of its machine.
    Resource(String),
    /// Requests that wait, for this pool by name. Empty: all.
    Queue(String),
    Leases,
    Lease(String),
    Events,
    Servers,
}

impl View {
    /// The views of the bar, with the key that follows `g`.
    pub(super) fn bar() -> [(char, &'static str, View); 7] {
        [
            ('n', "Now", View::Now),
            ('p', "Pools", View::Pools),
            ('r', "Resources", View::Resources { pool: String::new(), trouble: false }),
            ('q', "Queue", View::Queue(String::new())),
            ('l', "Leases", View::Leases),
            ('e', "Events", View::Events),
            ('s', "Servers", View::Servers),
        ]
    }

    /// The name of the entry of the bar that it belongs to.
    pub(super) fn belongs(&self) -> &'static str {
        match self {
            View::Now => "Now",
            View::Pools => "Pools",
            View::Resources { .. } | View::Resource(_) => "Resources",
            View::Queue(_) => "Queue",
            View::Leases | View::Lease(_) => "Leases",
            View::Events => "Events",
            View::Servers => "Servers",
        }
    }

    /// The view of what a text names: a lease, a resource or a machine.
    fn of_text(text: &str) -> Self {
        if text.starts_with("lse_") { View::Lease(text.to_owned()) } else { View::Resource(text.to_owned()) }
    }
}

/// The act that follows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    /// Another view is to be read.
    Read,
    Quit,
}

/// Keys that wait for another one, or for a line.
#[derive(Debug, Default)]
enum Mode {
    #[default]
    Rows,
    /// After `g`.
    Go,
    /// After `/`.
    Jump(String),
    Help,
}

/// The present screen of the terminal.
pub(super) struct App {
    /// The addresses that were asked for.
    pub(super) server: String,
    pub(super) color: bool,
    view: View,
    before: Vec<View>,
    mode: Mode,
    paused: bool,
    answer: Option<Answer>,
    /// The time of day of the latest answer.
    pub(super) read_at: String,
    /// Why the latest reading failed. What is shown is then older.
    pub(super) failure: Option<String>,
    /// The row that is selected.
    pub(super) row: usize,
    /// The number of rows of the sheet that was drawn last.
    rows: usize,
}

/// Maximum number of views that `Esc` goes back.
const BEFORE: usize = 32;
/// Rows of a page for the keys that go by pages.
const PAGE: usize = 10;

impl App {
    pub(super) fn new(server: &str, color: bool) -> Self {
        Self {
            server: server.to_owned(),
            color,
            view: View::Now,
            before: Vec::new(),
            mode: Mode::Rows,
            paused: false,
            answer: None,
            read_at: String::new(),
            failure: None,
            row: 0,
            rows: 0,
        }
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    pub(super) fn paused(&self) -> bool {
        self.paused
    }

    pub(super) fn help(&self) -> bool {
        matches!(self.mode, Mode::Help)
    }

    /// The line that is being written after `/`.
    pub(super) fn jump(&self) -> Option<&str> {
        match &self.mode {
            Mode::Jump(line) => Some(line),
            Mode::Rows | Mode::Go | Mode::Help => None,
        }
    }

    pub(super) fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// The rows of the answer for a terminal of this width.
    pub(super) fn sheet(&mut self, width: u16) -> Option<Sheet> {
        let sheet = self.answer.as_ref().filter(|answer| answer.view == self.view).map(|answer| sheet(answer, width));
        self.rows = sheet.as_ref().map_or(0, |sheet| sheet.rows.len());
        self.row = self.row.min(self.rows.saturating_sub(1));
        sheet
    }

    /// Takes an answer. An answer to another view than the present one is too late.
    pub(super) fn take(&mut self, answer: Result<Answer, String>) {
        match answer {
            Ok(answer) if answer.view == self.view => {
                self.answer = Some(answer);
                self.failure = None;
                self.read_at = clock_now();
            }
            Ok(_) => {}
            Err(message) => self.failure = Some(message),
        }
    }

    fn go(&mut self, view: View) -> Step {
        if view != self.view {
            if self.before.len() == BEFORE {
                self.before.remove(0);
            }
            self.before.push(std::mem::replace(&mut self.view, view));
            self.row = 0;
        }
        Step::Read
    }

    /// The effect of a key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Step {
        if key.kind == KeyEventKind::Release {
            return Step::Stay;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Step::Quit } else { Step::Stay };
        }
        match std::mem::take(&mut self.mode) {
            Mode::Rows => self.in_rows(key.code),
            Mode::Help => Step::Stay,
            Mode::Go => match View::bar().into_iter().find(|(known, ..)| key.code == KeyCode::Char(*known)) {
                Some((_, _, view)) => self.go(view),
                None => Step::Stay,
            },
            Mode::Jump(mut line) => {
                match key.code {
                    KeyCode::Esc => return Step::Stay,
                    KeyCode::Enter if line.trim().is_empty() => return Step::Stay,
                    KeyCode::Enter => return self.go(View::of_text(line.trim())),
                    KeyCode::Backspace => {
                        line.pop();
                    }
                    KeyCode::Char(c) => line.push(c),
                    _ => {}
                }
                self.mode = Mode::Jump(line);
                Step::Stay
            }
        }
    }

    fn in_rows(&mut self, code: KeyCode) -> Step {
        let last = self.rows.saturating_sub(1);
        match code {
            KeyCode::Char('q') => return Step::Quit,
            KeyCode::Char('g') => self.mode = Mode::Go,
            KeyCode::Char('/') => self.mode = Mode::Jump(String::new()),
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Char('p') => {
                self.paused = !self.paused;
                return if self.paused { Step::Stay } else { Step::Read };
            }
            KeyCode::Char('j') | KeyCode::Down => self.row = (self.row + 1).min(last),
            KeyCode::Char('k') | KeyCode::Up => self.row = self.row.saturating_sub(1),
            KeyCode::PageDown => self.row = (self.row + PAGE).min(last),
            KeyCode::PageUp => self.row = self.row.saturating_sub(PAGE),
            KeyCode::Home => self.row = 0,
            KeyCode::End => self.row = last,
            KeyCode::Esc | KeyCode::Backspace => {
                if let Some(view) = self.before.pop() {
                    (self.view, self.row) = (view, 0);
                    return Step::Read;
                }
            }
            KeyCode::Enter => {
                let link = self.answer.as_ref().filter(|answer| answer.view == self.view);
                let link = link.and_then(|answer| sheet(answer, 80).rows.into_iter().nth(self.row)?.link);
                if let Some(view) = link {
                    return self.go(view);
                }
            }
            _ => {}
        }
        Step::Stay
    }
}
