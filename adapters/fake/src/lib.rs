//! A scriptable in-memory adapter
