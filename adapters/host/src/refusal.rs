//! Failures that several scripts share.

use wharfinger_adapter::{Exit, Failure, Output, ShellError};

/// The failure for an exit of `processes.sh`; `None` for other exits.
pub(crate) fn left(exit: &Exit, whose: &str, output: &Output) -> Option<Failure> {
    let complaint = output.complaint();
    match exit {
        Exit::Code(3) => Some(Failure::resource(
            "PROCESSES_LEFT",
            format!("processes of {whose} do not end: {complaint}; look at them on the host, or restart it"),
        )),
        Exit::Code(4) => Some(Failure::configuration(
            "PROC_MISSING",
            format!(
                "{complaint}, so a lease's processes cannot be found; hosts must run Linux with /proc mounted without hidepid"
            ),
        )),
        Exit::Code(7) => Some(Failure::resource(
            "CONTAINMENT_LOST",
            format!("it cannot be shown that {whose} left nothing: {complaint}; mount it again, or restart the host"),
        )),
        Exit::Code(6) => Some(Failure::resource(
            "PROCESSES_UNREADABLE",
            format!(
                "processes began during {whose} and during another lease of the same user, and the kernel does not show whose \
                 they are: {complaint}; end them on the host, or wait for the other lease's end"
            ),
        )),
        _ => None,
    }
}

/// The failure of a call whose shell does not work.
pub(crate) fn failure(error: ShellError) -> Failure {
    match error {
        ShellError::NotReached(text) | ShellError::Unreachable(text) => Failure::resource("UNREACHABLE", text),
        ShellError::Closed(text) => Failure::resource("SESSION_CLOSED", text),
        ShellError::WrongHost(text) => Failure::configuration("HOST_KEY_MISMATCH", text),
        ShellError::Refused(text) => Failure::configuration("AUTH_FAILED", text),
        ShellError::NotStarted(text) => Failure::resource("COMMAND_NOT_STARTED", text),
        ShellError::File(text) => Failure::resource("FILE_FAILED", text),
    }
}
