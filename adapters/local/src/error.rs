//! Maps errors of the machine to those of the adapter.

use std::io;
use wharfinger_adapter::ShellError;

/// Returns the error of a command that could not be started.
pub(crate) fn not_started(program: &str, error: &io::Error) -> ShellError {
    ShellError::NotStarted(format!("{program:?} cannot be started on this machine: {error}"))
}

/// Returns the error of a file that could not be read or written. `action`: "read" or "write".
pub(crate) fn file(action: &str, path: &str, error: &io::Error) -> ShellError {
    ShellError::File(format!("cannot {action} {path:?} on this machine: {error}"))
}
