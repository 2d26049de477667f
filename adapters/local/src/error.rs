//! How the errors of this machine map to the adapter's.

use std::io;
use wharfinger_adapter::ShellError;

/// A command that could not be started.
pub(crate) fn not_started(program: &str, error: &io::Error) -> ShellError {
    ShellError::NotStarted(format!("{program:?} cannot be started on this machine: {error}"))
}

/// A file that could not be read or written.
pub(crate) fn file(action: &str, path: &str, error: &io::Error) -> ShellError {
    ShellError::File(format!("cannot {action} {path:?} on this machine: {error}"))
}
