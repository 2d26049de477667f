//! Calls of the gRPC port, under the names of go-grpc-prometheus, for which boards exist.

use super::book::Book;
use super::{Labels, short};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use std::time::Duration;

type Names = Labels<2>;

/// Counts calls by service and method. Cheap to clone.
#[derive(Clone)]
pub struct Calls {
    started: Family<Names, Counter>,
    handled: Family<Labels<3>, Counter>,
    handling: Family<Names, Histogram>,
    turned_away: Family<Labels<1>, Counter>,
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
        let calls = Self {
            started: Family::default(),
            handled: Family::default(),
            handling: Family::new_with_constructor(short),
            turned_away: Family::default(),
        };
        book.add_plain("grpc_server_started", "Calls that began", calls.started.clone());
        book.add_plain("grpc_server_handled", "Calls that ended, by code", calls.handled.clone());
        book.add_plain(
            "grpc_server_handling_seconds",
            "Time from the begin of a call to its end; of unary calls alone",
            calls.handling.clone(),
        );
        book.add(
            "turned_away",
            "Connections and calls that were refused before it was known who calls, by reason",
            calls.turned_away.clone(),
        );
        calls
    }

    /// A connection or a call was refused before it was known who calls.
    pub fn turned_away(&self, reason: &'static str) {
        self.turned_away.get_or_create_owned(&[("reason", reason.to_string())]).inc();
    }

    /// A call has begun.
    pub fn started(&self, service: &str, method: &str) {
        self.started.get_or_create_owned(&names(service, method)).inc();
    }

    /// A call has ended. `code`: the number of its gRPC status. `took`: for unary calls.
    pub fn handled(&self, service: &str, method: &str, code: i32, took: Option<Duration>) {
        let code = usize::try_from(code).ok().and_then(|code| CODES.get(code)).unwrap_or(&"Unknown");
        let [service_label, method_label] = names(service, method);
        let labels = [service_label, method_label, ("grpc_code", (*code).to_string())];
        self.handled.get_or_create_owned(&labels).inc();
        if let Some(took) = took {
            self.handling.get_or_create_owned(&names(service, method)).observe(took.as_secs_f64());
        }
    }
}

fn names(service: &str, method: &str) -> Names {
    [("grpc_service", service.to_string()), ("grpc_method", method.to_string())]
}
