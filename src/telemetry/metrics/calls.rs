//! Calls of the gRPC port, under the names of go-grpc-prometheus, for which boards exist.

use super::table::meters;
use super::{Labels, short};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use std::time::Duration;

type Names = Labels<2>;

meters! {
    by add_plain;
    /// Counts calls by service and method. Cheap to clone.
    #[derive(Clone)]
    pub struct Calls {
        started: Family<Names, Counter> = Family::default(), "grpc_server_started", "Calls that began";
        handled: Family<Labels<3>, Counter> = Family::default(), "grpc_server_handled", "Calls that ended, by code";
        handling: Family<Names, Histogram> = Family::new_with_constructor(short), "grpc_server_handling_seconds", "Time from the begin of a call to its end; of unary calls alone";
    }
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
