//! Wharfinger
