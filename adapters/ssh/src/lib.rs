//! SSH machines as hosts
