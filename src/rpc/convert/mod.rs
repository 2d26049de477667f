//! Between messages and the core's types, each way in its own file. Nothing else reads or writes a message's fields.

mod asked;
mod told;

pub(crate) use asked::{
    Listing, ResourceListing, Target, Watching, admin, break_lease, drain, events, id, lease, list, list_resources,
    release, renew, watch,
};
pub(crate) use told::{
    Secrets, bookmark, event, explanation, lease as tell_lease, lease_state, pool as tell_pool,
    resource as tell_resource, resource_state,
};
