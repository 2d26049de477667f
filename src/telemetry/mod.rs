//! What the server says of itself: events on standard error, chosen by `WHARFINGER_LOG`.
//!
//! Levels are a contract: ERROR, a person must act; WARN, something is not as it should be and is being dealt with; INFO,
//! changes of state; DEBUG, for whoever reads the code beside it. Secrets stand in none of them.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The variable that chooses: `info`, `wharfinger=debug,info`.
pub const VARIABLE: &str = "WHARFINGER_LOG";

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Format {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The variable makes no sense.
    #[error("{VARIABLE}={text:?} chooses nothing: {error}; write a level, as in info, or TARGET=LEVEL,…")]
    Filter {
        /// What it says.
        text: String,
        /// What is wrong with it.
        #[source]
        error: ParseError,
    },
}

/// Starts to write events to standard error; once in a process, later calls change nothing.
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
        tracing::debug!("events are written by someone else already");
    }
    Ok(())
}

fn filter(text: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    match text {
        None | Some("") => Ok(EnvFilter::new("info")),
        Some(text) => {
            // What the AWS SDK says below a warning is dozens of lines a call, and its requests hold user data. Who names it gets it.
            let quiet = "aws_smithy_runtime=warn,aws_config=warn,aws_runtime=warn,aws_sdk_ec2=warn,aws_sdk_sqs=warn,aws_sigv4=warn";
            EnvFilter::try_new(format!("{quiet},{text}"))
                .map_err(|error| TelemetryError::Filter { text: text.to_string(), error })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        assert!(filter(None).is_ok());
        assert!(filter(Some("wharfinger=debug,info")).is_ok());
        let error = filter(Some("wharfinger=loud")).expect_err("loud is no level");
        assert!(error.to_string().starts_with("WHARFINGER_LOG=\"wharfinger=loud\" chooses nothing: "), "{error}");
    }
}
