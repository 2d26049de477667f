//! Between messages and the core's types, each way in its own file. Nothing else reads or writes a message's fields.

mod asked;
mod told;

pub(crate) use asked::{
    About, Listing, ResourceListing, Target, Watching, admin, break_lease, drain, events, hold, id, lease, list,
    list_resources, release, renew, report, timeline, watch,
};
pub(crate) use told::{
    bookmark, entry, event, explanation, lease as tell_lease, lease_state, pool as tell_pool,
    resource as tell_resource, resource_state,
};
