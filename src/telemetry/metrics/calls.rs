//! Calls of the gRPC port, under the names of go-grpc-prometheus, for which boards exist.

use super::book::Book;
use super::table::meters;
use super::{Labels, short};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use std::time::Duration;

type Names = Labels<2>;

meters! {
    by add_plain;
    /// Counts by service and method.
    #[derive(Clone)]
    struct ByMethod {
        started: Family<Names, Counter> = Family::default(), "grpc_server_started", "Calls that began";
        handled: Family<Labels<3>, Counter> = Family::default(), "grpc_server_handled", "Calls that ended, by code";
        handling: Family<Names, Histogram> = Family::new_with_constructor(short), "grpc_server_handling_seconds", "Time from the begin of a call to its end; of unary calls alone";
    }
}

meters! {
    by add;
    /// Counts what is refused before the caller is known.
    #[derive(Clone)]
    struct Early {
        turned_away: Family<Labels<1>, Counter> = Family::default(), "turned_away", "Connections and calls that were refused before it was known who calls, by reason";
    }
}

/// Counts calls, and what is refused before there is one. Cheap to clone.
#[derive(Clone)]
pub struct Calls {
    by_method: ByMethod,
    early: Early,
}

/// The names of codes, as go-grpc-prometheus writes them, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

impl Calls {
    pub(super) fn registered(book: &mut Book) -> Self {
        Self { by_method: ByMethod::registered(book), early: Early::registered(book) }
    }

    /// A connection or a call was refused before it was known who calls.
    pub fn turned_away(&self, reason: &'static str) {
        self.early.turned_away.get_or_create_owned(&[("reason", reason.to_string())]).inc();
    }

    /// A call has begun.
    pub fn started(&self, service: &str, method: &str) {
        self.by_method.started.get_or_create_owned(&names(service, method)).inc();
    }

    /// A call has ended. `code`: the number of its gRPC status. `took`: for unary calls.
    pub fn handled(&self, service: &str, method: &str, code: i32, took: Option<Duration>) {
        let code = usize::try_from(code).ok().and_then(|code| CODES.get(code)).unwrap_or(&"Unknown");
        let [service_label, method_label] = names(service, method);
        let labels = [service_label, method_label, ("grpc_code", (*code).to_string())];
        self.by_method.handled.get_or_create_owned(&labels).inc();
        if let Some(took) = took {
            self.by_method.handling.get_or_create_owned(&names(service, method)).observe(took.as_secs_f64());
        }
    }
}

fn names(service: &str, method: &str) -> Names {
    [("grpc_service", service.to_string()), ("grpc_method", method.to_string())]
}
