//! The log of the server: events on standard error, filtered by `WHARFINGER_LOG`.
//!
//! Levels are a contract. ERROR: a person must act. WARN: a problem that the server deals with. INFO: a change of state. DEBUG:
//! details for a reader of the code. No event has secrets.

pub mod metrics;

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The variable with the filter: `info`, `wharfinger=debug,info`.
pub const VARIABLE: &str = "WHARFINGER_LOG";

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

/// Starts to write events to standard error. Only the first call in a process has an effect.
///
/// # Errors
/// [`TelemetryError::Filter`].
pub fn init(format: Format, color: bool) -> Result<(), TelemetryError> {
    let filter = filter(std::env::var(VARIABLE).ok().as_deref())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        Format::Text => builder.with_ansi(color && std::io::stderr().is_terminal()).with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("another subscriber writes the events already");
    }
    Ok(())
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

    /// The text of three events with this filter.
    fn written(text: Option<&str>) -> String {
        let buffer: std::sync::Arc<std::sync::Mutex<Vec<u8>>> = std::sync::Arc::default();
        let sink = buffer.clone();
        let writer = move || Sink(sink.clone());
        let filter = filter(text).expect("a filter");
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "wharfinger::engine", "ours");
            tracing::warn!(target: "aws_runtime::env_config", "no file");
            tracing::error!(target: "aws_config", "broken");
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

    #[test]
    fn an_invalid_filter_is_refused() {
        assert!(filter(None).is_ok());
        assert!(filter(Some("wharfinger=debug,info")).is_ok());
        let error = filter(Some("wharfinger=loud")).expect_err("loud is no level");
        assert!(error.to_string().starts_with("WHARFINGER_LOG=\"wharfinger=loud\" is not a valid filter: "), "{error}");
    }
}
