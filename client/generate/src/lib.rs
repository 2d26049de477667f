//! Holds the test that generates the client's code from `proto/` and compares it: `tests/generated.rs`. It is a crate of its own, so that
//! the code can be generated while the client does not compile for lack of it.
