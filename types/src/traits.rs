//! The abilities of an adapter.

/// The calls that an adapter supports; the broker makes no others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Traits {
    /// A slot must be prepared before its holder may use it.
    pub prepares: bool,
    /// A slot must be cleaned before the next lease gets it.
    pub cleans: bool,
    /// A mangled resource may be repaired; otherwise it is recycled.
    pub repairs: bool,
    /// The resource is probed while it is in order (hosts: yes; working copies: no, a check follows a failure).
    pub probes: bool,
}
