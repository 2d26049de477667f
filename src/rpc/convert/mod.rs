//! Conversions between messages and the core's types, each way in its own file. Nothing else reads or writes the fields of a message.

mod asked;
mod told;

pub(crate) use asked::{
    About, Listing, MAX_CLAIMS, MAX_COUNT, MAX_PAGE, OnResource, OnResourceOrPool, ResourceListing, Target, Watching,
    break_lease, drain, events, hold, id, lease, list, list_resources, on_resource, on_resource_or_pool, release,
    renew, report, timeline, watch,
};
pub(crate) use told::{
    bookmark, credentials, entry, event, explanation, lease as tell_lease, lease_state, pool as tell_pool,
    resource as tell_resource, resource_state,
};
