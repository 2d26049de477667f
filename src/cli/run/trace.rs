//! The trace of the caller: from the environment of `run` into that of the command.

use crate::traces::{TraceParent, hold_of};

/// The variables of OpenTelemetry's environment carriers.
const PARENT: &str = "TRACEPARENT";
const STATE: &str = "TRACESTATE";

/// The place in a trace at which this program was started. `None`: there is none, or it is not valid.
pub(crate) fn caller() -> Option<TraceParent> {
    TraceParent::parse(&std::env::var(PARENT).ok()?)
}

/// The variables of a command that works under this lease: its spans are children of the time in which the lease is held.
pub(crate) fn variables(lease: &str) -> Vec<(String, String)> {
    of(lease, caller(), std::env::var(STATE).ok())
}

fn of(lease: &str, caller: Option<TraceParent>, state: Option<String>) -> Vec<(String, String)> {
    let Some(caller) = caller else { return Vec::new() };
    let parent = (PARENT.to_owned(), hold_of(lease, caller).to_string());
    let state = state.filter(|state| !state.is_empty()).map(|state| (STATE.to_owned(), state));
    [parent].into_iter().chain(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_in_the_trace_of_its_caller_under_its_lease() {
        let caller = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let variables = of("lse_1", caller, Some("vendor=1".into()));
        assert_eq!(variables[1], ("TRACESTATE".into(), "vendor=1".into()));
        let (name, value) = &variables[0];
        let hold = TraceParent::parse(value).unwrap();
        assert_eq!((name.as_str(), Some(hold.trace), hold.sampled), ("TRACEPARENT", caller.map(|one| one.trace), true));
        assert_ne!(Some(hold.span), caller.map(|one| one.span));
        assert_eq!(of("lse_1", None, Some("vendor=1".into())), []);
    }
}
