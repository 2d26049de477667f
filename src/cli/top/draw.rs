//! Draws the state of `top` on a terminal.

use super::app::{App, View};
use super::sheet::{Part, Row, Sheet, standing};
use crate::overview::{Tone, clipped};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Clear, Paragraph, Row as Drawn, Table, TableState, Wrap};

/// The keys, as on the page where that has them.
const HELP: [(&str, &str); 9] = [
    ("g n|p|r|q|l|e|s", "go to Now, Pools, Resources, Queue, Leases, Events, Servers"),
    ("j k, arrows", "next row, row before; PageUp, PageDown, Home, End"),
    ("Enter", "open the row"),
    ("Esc", "back"),
    ("/", "jump to a lease, a resource or a machine"),
    ("p", "pause, go on"),
    ("?", "these keys"),
    ("q, Control-C", "quit"),
    ("", "nothing here changes the farm: the last line has the command that goes on"),
];

fn style(part: &Part, color: bool) -> Style {
    let mut style = Style::default();
    if part.strong {
        style = style.add_modifier(Modifier::BOLD);
    }
    if !color {
        return style;
    }
    match part.tone {
        Some(Tone::Good) => style.fg(Color::Green),
        Some(Tone::Busy) => style.fg(Color::Blue),
        Some(Tone::Bad) => style.fg(Color::Red),
        Some(Tone::Kept) => style.fg(Color::Yellow),
        Some(Tone::None) => style.fg(Color::DarkGray),
        Some(Tone::Said) => style.fg(Color::Magenta),
        None => style,
    }
}

fn line(parts: &[Part], color: bool) -> Line<'static> {
    Line::from(parts.iter().map(|part| Span::styled(part.text.clone(), style(part, color))).collect::<Vec<_>>())
}

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let [bar, title, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Paragraph::new(bar_line(app)), bar);
    let sheet = app.sheet(body.width);
    frame.render_widget(Paragraph::new(title_line(app, sheet.as_ref())), title);
    match &sheet {
        Some(sheet) => draw_sheet(frame, body, app, sheet),
        None => frame.render_widget(Paragraph::new("Reading …"), body),
    }
    let selected = sheet.as_ref().and_then(|sheet| sheet.rows.get(app.row));
    frame.render_widget(Paragraph::new(foot_line(app, selected)), foot);
    if app.help() {
        draw_help(frame, body);
    }
}

fn bar_line(app: &App) -> Line<'static> {
    let mut spans = vec![Span::styled("Wharfinger ", Style::default().add_modifier(Modifier::BOLD))];
    for (_, name, _) in View::bar() {
        let style = match app.view().belongs() == name {
            true => Style::default().add_modifier(Modifier::REVERSED),
            false => Style::default(),
        };
        spans.push(Span::styled(format!(" {name} "), style));
    }
    let place = app.answer().map_or_else(String::new, |answer| standing(&answer.server));
    spans.push(Span::raw(format!("  {} · {place}", clipped(&app.server))));
    Line::from(spans)
}

fn title_line(app: &App, sheet: Option<&Sheet>) -> Line<'static> {
    if let Some(failure) = &app.failure {
        let style = if app.color { Style::default().fg(Color::Red) } else { Style::default() };
        let text = format!("✕ as of {}: {}", app.read_at, clipped(failure));
        return Line::from(Span::styled(text, style.add_modifier(Modifier::BOLD)));
    }
    let title = sheet.map_or_else(String::new, |sheet| sheet.title.clone());
    let read = if app.paused() { format!("paused at {}", app.read_at) } else { format!("read at {}", app.read_at) };
    Line::from(vec![Span::styled(title, Style::default().add_modifier(Modifier::BOLD)), Span::raw(format!("  {read}"))])
}

fn foot_line(app: &App, selected: Option<&Row>) -> Line<'static> {
    if let Some(text) = app.jump() {
        return Line::from(format!("jump to: {}█", clipped(text)));
    }
    match selected.and_then(|row| row.command.clone()) {
        Some(command) => Line::from(format!("{command}    ? keys")),
        None => Line::from("? keys  q quit"),
    }
}

fn draw_sheet(frame: &mut Frame<'_>, area: Rect, app: &App, sheet: &Sheet) {
    // The lines above leave the rows at least a third of the height.
    let most = area.height.saturating_sub((area.height / 3).max(4));
    let height = u16::try_from(sheet.above.len()).unwrap_or(u16::MAX).min(most);
    let [above, rows] = Layout::vertical([Constraint::Length(height), Constraint::Min(1)]).areas(area);
    let lines: Vec<Line<'_>> = sheet.above.iter().map(|parts| line(parts, app.color)).collect();
    frame.render_widget(Paragraph::new(lines), above);
    if sheet.rows.is_empty() {
        frame.render_widget(Paragraph::new(sheet.empty), rows);
        return;
    }
    let head = Drawn::new(sheet.head.clone()).style(Style::default().add_modifier(Modifier::UNDERLINED));
    let drawn = sheet
        .rows
        .iter()
        .map(|row| Drawn::new(row.cells.iter().map(|parts| Cell::from(line(parts, app.color))).collect::<Vec<_>>()));
    let table = Table::new(drawn, sheet.widths.iter().map(|part| Constraint::Fill(*part)))
        .header(head)
        .row_highlight_style(Style::default().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(Some(app.row));
    frame.render_stateful_widget(table, rows, &mut state);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<Line<'_>> = HELP.iter().map(|(keys, what)| Line::from(format!("{keys:<18}{what}"))).collect();
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).min(area.height);
    let place = Rect { height, ..area };
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), place);
}

#[cfg(test)]
mod tests;
