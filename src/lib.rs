//! Wharfinger: leases build infrastructure over gRPC, and notices when it is gone.

pub mod pb;
