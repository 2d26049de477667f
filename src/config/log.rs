//! `[log]`: the format of the server's log, and its filter.

use super::problem::Problems;
use super::reader::Reader;
use crate::telemetry::{Format, LogSettings, filter_fault};
use toml::Spanned;
use wharfinger_adapter::settings::closest;

/// Maximum length of a filter in bytes.
const MAX_FILTER: usize = 4096;

/// `[log]` as read.
#[derive(Debug, Default)]
pub(crate) struct LogSection {
    format: Option<Spanned<String>>,
    level: Option<Spanned<String>>,
}

pub(super) fn read(file: &mut Reader<'_>, problems: &mut Problems) -> LogSection {
    let mut log = file.table("log", "[log]", problems);
    let section = LogSection { format: log.text("format", problems), level: log.text("level", problems) };
    log.finish(problems);
    section
}

pub(super) fn check(section: &LogSection, problems: &mut Problems) -> LogSettings {
    let format = section.format.as_ref().and_then(|format| match format.get_ref().as_str() {
        "text" => Some(Format::Text),
        "json" => Some(Format::Json),
        other => {
            let remedy = match closest(other, &["text", "json"]) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "write \"text\" or \"json\"".to_owned(),
            };
            problems.add(format.span(), format!("`format` is {other:?}"), remedy).label("not known");
            None
        }
    });
    let level = section.level.as_ref().and_then(|level| {
        let text = level.get_ref();
        let fault = match text.len() {
            0 => Some("it is empty".to_owned()),
            MAX_FILTER.. => Some(format!("it has more than {MAX_FILTER} bytes")),
            _ => filter_fault(text),
        };
        let Some(fault) = fault else { return Some(text.clone()) };
        let remedy =
            "write error, warn, info, debug or trace, or TARGET=LEVEL,…, as in \"info,wharfinger::trail=warn\"";
        problems.add(level.span(), format!("`level` is not a filter of the log: {fault}"), remedy);
        None
    });
    LogSettings { format, level }
}
