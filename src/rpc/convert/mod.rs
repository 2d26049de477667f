//! Conversions between messages and the core's types, each way in its own file. Nothing else reads or writes the fields of a message.

mod from_proto;
pub(crate) mod session;
mod to_proto;

pub(crate) use from_proto::{
    About, Command, Listing, MAX_CLAIMS, MAX_COUNT, MAX_PAGE, OnResource, OnResourceOrPool, QueueListing, Renewal,
    ResourceListing, ResourceWatching, Target, Watching, break_lease, drain, events, get_resource, hold, id, lease,
    list, list_queue, list_resources, note, on_resource, on_resource_or_pool, release, renew, report, timeline, watch,
    watch_resources,
};
pub(crate) use session::Opening;
pub(crate) use to_proto::{
    bookmark, credentials, entry, event, explanation, impact, is_of_states, item as tell_item, lease as tell_lease,
    lease_state, likely_start, pool as tell_pool, queue_class, queued_request, resource as tell_resource,
    tenant as tell_tenant,
};
