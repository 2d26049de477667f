//! Typed ids. Made by the core from the time, the store's salt and the revision, so that the same inputs give the same
//! ids; their text is `lse_` and the like with 26 Crockford characters, which sort by age.

use alloc::string::String;
use core::fmt;
use core::num::NonZeroU64;
use core::str::FromStr;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The value of each character; 255: none.
const DIGITS: [u8; 256] = {
    let mut digits = [255u8; 256];
    let mut value = 0;
    while value < 32 {
        digits[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

/// An id's text could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdError {
    /// What the text should start with.
    pub prefix: &'static str,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an id: expected \"{}\" and 26 characters", self.prefix)
    }
}

impl core::error::Error for IdError {}

fn write_text(f: &mut fmt::Formatter<'_>, prefix: &str, value: u128) -> fmt::Result {
    let mut text = [0u8; 26];
    for (i, slot) in text.iter_mut().enumerate() {
        let shift = 5 * (25 - i);
        *slot = ALPHABET[((value >> shift) & 31) as usize];
    }
    f.write_str(prefix)?;
    f.write_str(core::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn read_text(prefix: &'static str, text: &str) -> Result<u128, IdError> {
    let err = IdError { prefix };
    let digits = text.strip_prefix(prefix).ok_or(err)?;
    if digits.len() != 26 || digits.as_bytes()[0] > b'7' {
        return Err(err);
    }
    let mut value = 0u128;
    for byte in digits.bytes() {
        let digit = DIGITS[byte as usize];
        if digit > 31 {
            return Err(err);
        }
        value = (value << 5) | u128::from(digit);
    }
    Ok(value)
}

/// 128 bits in two halves: an optional id takes no more room than an id, and none asks for the alignment of a `u128`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Bits {
    high: u64,
    /// The lower half plus 1: numbers are counted from 1 and never reach the end, so what is lost is none of ours.
    low_and_one: NonZeroU64,
}

impl Bits {
    const fn new(value: u128) -> Option<Self> {
        match NonZeroU64::new((value as u64).wrapping_add(1)) {
            Some(low_and_one) => Some(Self { high: (value >> 64) as u64, low_and_one }),
            None => None,
        }
    }

    const fn value(self) -> u128 {
        (self.high as u128) << 64 | (self.low_and_one.get() - 1) as u128
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Bits);

        impl $name {
            /// What its text starts with.
            pub const PREFIX: &'static str = $prefix;

            /// The id with these bits.
            ///
            /// # Panics
            /// If the lower 64 are all ones: that number is never reached.
            pub const fn new(value: u128) -> Self {
                Self(Bits::new(value).expect("the lower half of an id is not all ones"))
            }

            /// Its bits.
            pub const fn value(self) -> u128 {
                self.0.value()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_text(f, $prefix, self.value())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_text(f, $prefix, self.value())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Bits::new(read_text($prefix, text)?).map(Self).ok_or(IdError { prefix: $prefix })
            }
        }
    };
}

id!(
    /// A lease.
    LeaseId, "lse_"
);
id!(
    /// A resource.
    ResourceId, "res_"
);
id!(
    /// A request for several leases at once.
    GroupId, "grp_"
);

/// Builds the 128 bits of an id: 48 bits of milliseconds, 16 of salt, 64 of a number that never comes twice.
pub(crate) fn mint(now: crate::Timestamp, salt: u16, number: u64) -> u128 {
    ((now.0.max(0) as u128 & 0xffff_ffff_ffff) << 80) | (u128::from(salt) << 64) | u128::from(number)
}

/// The number of a change: +1 per committed change, over the whole deployment, for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of an operation on the outside world; a result that carries another number than the row is stale.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Op(pub u64);

/// Whom an event or a cause is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// A pool, by name.
    Pool(alloc::sync::Arc<str>),
    /// A resource.
    Resource(ResourceId),
    /// A lease.
    Lease(LeaseId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Pool(name) => write!(f, "pool {name}"),
            Subject::Resource(id) => id.fmt(f),
            Subject::Lease(id) => id.fmt(f),
        }
    }
}

impl Subject {
    /// The text that identifies it in a table of events.
    pub fn key(&self) -> String {
        match self {
            Subject::Pool(name) => String::from(&**name),
            Subject::Resource(id) => alloc::format!("{id}"),
            Subject::Lease(id) => alloc::format!("{id}"),
        }
    }
}
