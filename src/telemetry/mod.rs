//! The log of the server: events on standard error, filtered by `[log] level` or `WHARFINGER_LOG`.
//!
//! The filter may change while the server runs; the format may not. Levels are a contract. ERROR: a person must act. WARN: a problem that the server deals with. INFO: a change of state. DEBUG:
//! details for a reader of the code. No event has secrets.

pub(crate) mod audit_file;
pub mod metrics;

pub use audit_file::{AuditNews, AuditSettings};

use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The target of refusals. Each is a line of JSON, whatever the format and the filter of the other events.
pub const AUDIT: &str = "wharfinger::audit";

/// The variable with the filter: `info`, `wharfinger=debug,info`. It has precedence over `[log] level`.
pub const VARIABLE: &str = "WHARFINGER_LOG";

/// The filter of the process, to change it. Empty until the log starts.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// `[log]`: the filter and the format of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// The format. `None`: the default.
    pub format: Option<Format>,
    /// The filter, which was checked. `None`: `info`.
    pub level: Option<String>,
}

/// The format of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "agent", derive(clap::ValueEnum))]
pub enum Format {
    /// One line of text for each event.
    #[default]
    Text,
    /// One JSON object for each event.
    Json,
}

/// The reason why the log does not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The variable is not a valid filter.
    #[error("{VARIABLE}={text:?} is not a valid filter: {error}; write a level, as in info, or TARGET=LEVEL,…")]
    Filter {
        /// The value of the variable.
        text: String,
        /// The error in it.
        #[source]
        error: ParseError,
    },
}

/// The result of a change of the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The filter counts from now on.
    Yes,
    /// The variable has precedence, and nothing changed.
    VariableHolds,
    /// Another subscriber writes the events of this process, or the filter is not valid; nothing changed.
    No,
}

/// Starts to write events to standard error. Only the first call in a process has an effect. `format` has precedence over that of the
/// settings.
///
/// # Errors
/// [`TelemetryError::Filter`].
pub fn init(format: Option<Format>, settings: &LogSettings, color: bool) -> Result<(), TelemetryError> {
    let format = format.or(settings.format).unwrap_or_default();
    let variable = variable();
    let text = variable.as_deref().or(settings.level.as_deref());
    let (subscriber, handle) = subscriber(format, color && std::io::stderr().is_terminal(), text, std::io::stderr)?;
    match subscriber.try_init() {
        Ok(()) => {
            let _ = FILTER.set(handle);
        }
        Err(_) => tracing::debug!("another subscriber writes the events already"),
    }
    Ok(())
}

/// Changes the filter of the running process to that of the settings.
pub fn change(settings: &LogSettings) -> Changed {
    if variable().is_some() {
        return Changed::VariableHolds;
    }
    let (Some(handle), Ok(filter)) = (FILTER.get(), filter(settings.level.as_deref())) else { return Changed::No };
    match handle.reload(filter) {
        Ok(()) => Changed::Yes,
        Err(_) => Changed::No,
    }
}

/// The levels of a filter.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The fault of a filter, if it has one. A word alone must be a level: a misspelt one would be read as a target, with all its events.
pub fn filter_fault(text: &str) -> Option<String> {
    let word = |part: &&str| !part.contains(['=', '[', ':']) && !LEVELS.contains(&&*part.trim().to_lowercase());
    if let Some(part) = text.split(',').find(word) {
        return Some(format!("{:?} is no level", part.trim()));
    }
    filter(Some(text)).err().map(|TelemetryError::Filter { error, .. }| error.to_string())
}

fn variable() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|text| !text.is_empty())
}

/// The subscriber that writes events there, and the handle on its filter.
fn subscriber<W>(
    format: Format,
    ansi: bool,
    text: Option<&str>,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + 'static, reload::Handle<EnvFilter, Registry>), TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Clone + Send + Sync + 'static,
{
    let json = || tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer.clone());
    // The filter is changed, never the filtered layer: that panics (tokio-rs/tracing#1629).
    let (changeable, handle) = reload::Layer::new(filter(text)?);
    let others =
        changeable.and(filter_fn(|event: &Metadata<'_>| !is_audit(event)).with_max_level_hint(LevelFilter::TRACE));
    let others: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Text => {
            let layer = tracing_subscriber::fmt::layer().with_writer(writer.clone());
            layer.with_ansi(ansi).with_target(false).with_filter(others).boxed()
        }
        Format::Json => json().with_filter(others).boxed(),
    };
    let to_file = audit_file::Refused { other: writer.clone() };
    let refusals = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(to_file)
        .with_filter(filter_fn(is_audit).with_max_level_hint(LevelFilter::WARN))
        .boxed();
    Ok((tracing_subscriber::registry().with(vec![others, refusals]), handle))
}

fn is_audit(event: &Metadata<'_>) -> bool {
    event.target() == AUDIT
}

/// The AWS SDK warns of normal conditions (no file of profiles) and of each failed call, which the adapter reports with its meaning.
/// Below that level it writes dozens of lines for each call, with the user data of requests. A filter that names a crate of the SDK
/// has precedence.
const QUIET: &str = "aws_config=error,aws_runtime=error,aws_types=error,aws_sigv4=error,aws_smithy_runtime=error,\
                     aws_smithy_http_client=error,aws_sdk_ec2=error,aws_sdk_sqs=error,aws_sdk_autoscaling=error,\
                     aws_sdk_sts=error,aws_sdk_sso=error,aws_sdk_ssooidc=error";

fn filter(text: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let text = text.filter(|text| !text.is_empty()).unwrap_or("info");
    EnvFilter::try_new(format!("{QUIET},{text}"))
        .map_err(|error| TelemetryError::Filter { text: text.to_string(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of four events with this filter.
    fn written(text: Option<&str>) -> String {
        written_as(Format::Text, text)
    }

    fn written_as(format: Format, text: Option<&str>) -> String {
        let buffer: std::sync::Arc<std::sync::Mutex<Vec<u8>>> = std::sync::Arc::default();
        let sink = buffer.clone();
        let writer = move || Sink(sink.clone());
        let (subscriber, _) = subscriber(format, false, text, writer).expect("a filter");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "wharfinger::engine", "ours");
            tracing::warn!(target: "aws_runtime::env_config", "no file");
            tracing::error!(target: "aws_config", "broken");
            tracing::warn!(target: AUDIT, reason = "TOKEN_UNKNOWN", detail = "a\n\u{1b}[31mb", "refused");
        });
        let bytes = buffer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        String::from_utf8(bytes).expect("text")
    }

    struct Sink(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn warnings_of_the_aws_sdk_are_written_only_if_the_filter_names_it() {
        for text in [None, Some(""), Some("info"), Some("wharfinger=debug,info")] {
            let log = written(text);
            assert!(log.contains("ours") && log.contains("broken") && !log.contains("no file"), "{text:?}: {log}");
        }
        assert!(written(Some("info,aws_runtime=warn")).contains("no file"));
    }

    /// Whatever the format and the filter: one line, once, with no character that a terminal obeys.
    #[test]
    fn a_refusal_is_one_line_of_json() {
        for format in [Format::Text, Format::Json] {
            for text in [None, Some("error"), Some("off"), Some("wharfinger::audit=trace,debug")] {
                let log = written_as(format, text);
                let lines: Vec<&str> = log.lines().filter(|line| line.contains("TOKEN_UNKNOWN")).collect();
                let [line] = lines[..] else { panic!("{format:?} {text:?}: {log}") };
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                assert_eq!(value["target"], AUDIT, "{line}");
                assert_eq!((&value["reason"], &value["detail"]), (&"TOKEN_UNKNOWN".into(), &"a\n\u{1b}[31mb".into()));
                assert!(!line.contains('\u{1b}'));
            }
            assert!(!written_as(format, Some("off")).contains("ours"));
        }
    }

    #[test]
    fn the_filter_changes_while_events_are_written() {
        let buffer: std::sync::Arc<std::sync::Mutex<Vec<u8>>> = std::sync::Arc::default();
        let sink = buffer.clone();
        let writer = move || Sink(sink.clone());
        let (subscriber, handle) = subscriber(Format::Json, false, Some("warn"), writer).expect("a filter");
        tracing::subscriber::with_default(subscriber, || {
            for (level, number) in [("warn", 1), ("debug", 2), ("info", 3)] {
                handle.reload(filter(Some(level)).expect("a filter")).expect("it is there");
                tracing::debug!(number, "detail");
                tracing::info!(number, "change");
            }
        });
        let bytes = buffer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let lines: Vec<(String, u64)> = String::from_utf8(bytes)
            .expect("text")
            .lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                (line["message"].as_str().unwrap_or_default().to_string(), line["number"].as_u64().unwrap_or(0))
            })
            .collect();
        assert_eq!(lines, [("detail".to_string(), 2), ("change".to_string(), 2), ("change".to_string(), 3)]);
    }

    #[test]
    fn an_invalid_filter_is_refused() {
        assert!(filter(None).is_ok());
        assert!(filter(Some("wharfinger=debug,info")).is_ok());
        let error = filter(Some("wharfinger=loud")).expect_err("loud is no level");
        for (text, faulty) in
            [("info", false), ("a::b=warn,Info", false), ("loud", true), ("info,", true), ("a=loud", true)]
        {
            assert_eq!(filter_fault(text).is_some(), faulty, "{text}");
        }
        assert!(error.to_string().starts_with("WHARFINGER_LOG=\"wharfinger=loud\" is not a valid filter: "), "{error}");
    }
}
