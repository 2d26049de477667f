//! Calls and connections as strangers make them, for `src/fuzz.rs`.

use crate::pb;
use crate::rpc::connection::{First, judge, speaks_preface};
use crate::rpc::convert;
use crate::rpc::status::RpcError;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::{Code, Status};
use wharfinger_core::{Caller, Scope};

/// A message that a method takes.
pub(crate) trait Call {
    /// Converts the message as its method does.
    fn take(&self, caller: Caller) -> Result<(), RpcError>;
}

macro_rules! calls {
    ($($message:ty: |$request:ident, $caller:ident| $take:expr;)*) => {
        $(impl Call for $message {
            fn take(&self, $caller: Caller) -> Result<(), RpcError> {
                let $request = self;
                $take.map(drop)
            }
        })*
    };
}

calls! {
    pb::LeaseRequest: |request, caller| convert::lease(request, caller);
    pb::ReleaseRequest: |request, caller| convert::release(request, caller);
    pb::RenewRequest: |request, _caller| convert::renew(request);
    pb::ReportRequest: |request, caller| convert::report(request, caller);
    pb::WatchRequest: |request, caller| convert::watch(request, caller);
    pb::ListRequest: |request, _caller| convert::list(request, Scope::All);
    pb::ListQueueRequest: |request, _caller| convert::list_queue(request);
    pb::TimelineRequest: |request, _caller| convert::timeline(request);
    pb::EventsRequest: |request, _caller| convert::events(request);
    pb::BreakRequest: |request, caller| convert::break_lease(request, caller);
    pb::HoldRequest: |request, caller| convert::hold(request, caller);
    pb::DrainRequest: |request, caller| convert::drain(request, caller);
    pb::ListResourcesRequest: |request, _caller| convert::list_resources(request);
    pb::GetResourceRequest: |request, _caller| convert::get_resource(request);
}

/// Converts a message. A bad one is its caller's fault, whatever it has.
pub(crate) fn take_call(call: &impl Call) {
    if let Err(error) = call.take(Caller::sole_tenant("token:fuzz")) {
        let status = Status::from(error);
        assert!(matches!(status.code(), Code::InvalidArgument | Code::NotFound | Code::OutOfRange), "{status:?}");
    }
}

/// Looks at the first bytes of a connection in every way in which they may arrive.
pub(crate) fn first_bytes(data: &[u8]) {
    let mut decided = None;
    for length in 0..=data.len().min(32) {
        let first = judge(&data[..length.min(24)]);
        match decided {
            None if first != First::More => decided = Some(first),
            None => {}
            Some(before) => assert_eq!(first, before, "after {length} bytes"),
        }
    }
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let built = tokio::runtime::Builder::new_current_thread().enable_time().build();
        built.unwrap_or_else(|error| panic!("{error}"))
    });
    let read = runtime.block_on(speaks_preface(&mut &data[..], Duration::from_secs(5)));
    assert_eq!(read, decided == Some(First::Http2));
}
