//! Typed ids and their text: a prefix such as `lse_` and 26 Crockford characters, which sort by age.
//!
//! An id has 48 bits of time, 16 bits of the store's salt and 64 bits of a number. The core mints ids from its inputs
//! alone, so that the same inputs give the same ids.

use core::fmt;
use core::num::NonZeroU64;
use core::str::FromStr;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The value of each character; 255 marks a character outside the alphabet.
const DIGITS: [u8; 256] = {
    let mut digits = [255u8; 256];
    let mut value = 0;
    while value < 32 {
        digits[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

/// A text is not an id of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdError {
    /// The prefix of the wanted kind.
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

/// 128 bits in two halves: an optional id has the size of an id, and the alignment is that of a `u64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Bits {
    high: u64,
    /// The lower half plus 1. Numbers count from 1 and never reach the end, so no minted id has a lower half of all ones.
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
            /// The prefix of its text.
            pub const PREFIX: &'static str = $prefix;

            /// The id with these bits.
            ///
            /// # Panics
            /// If the lower 64 bits are all ones: no minted id has that number.
            pub const fn new(value: u128) -> Self {
                Self(Bits::new(value).expect("the lower half of an id is not all ones"))
            }

            /// Its bits.
            pub const fn value(self) -> u128 {
                self.0.value()
            }

            /// The store's salt, which distinguishes deployments.
            pub const fn salt(self) -> u16 {
                self.0.high as u16
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
    /// Identifies a lease.
    LeaseId, "lse_"
);
id!(
    /// Identifies a resource.
    ResourceId, "res_"
);
id!(
    /// Identifies a group: the leases of one request.
    GroupId, "grp_"
);
id!(
    /// Identifies a session: the stream over which an agent keeps its leases.
    SessionId, "ses_"
);

/// Builds the 128 bits of an id from a time, the store's salt and a number that no other id of the deployment has.
pub const fn mint(unix_ms: i64, salt: u16, number: u64) -> u128 {
    let time = if unix_ms < 0 { 0 } else { unix_ms as u128 & 0xffff_ffff_ffff };
    (time << 80) | ((salt as u128) << 64) | number as u128
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::string::ToString;

    #[test]
    fn an_id_is_read_back_from_its_text() {
        let id = ResourceId::new(mint(1_763_000_000_000, 0xbeef, 42));
        let text = id.to_string();
        assert!(text.starts_with("res_") && text.len() == 30, "{text}");
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.parse::<LeaseId>(), Err(IdError { prefix: "lse_" }));
    }

    #[test]
    fn the_salt_is_read_from_an_id() {
        for (text, salt) in [
            ("res_01KAV9FT00QVQG00000000001A", 0xbeef),
            ("res_01KAV9FT01QVQG00000000001B", 0xbeef),
            ("res_01KAV9FT01000FZZZZZZZZZZZY", 0),
        ] {
            assert_eq!(text.parse().map(ResourceId::salt), Ok(salt), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_ids_are_refused() {
        let all_ones = "res_7ZZZZZZZZZZZZZZZZZZZZZZZZZ";
        let too_large = "res_8ZZZZZZZZZZZZZZZZZZZZZZZZZ";
        for text in
            ["", "res_1", "lse_01KAV9FT00QVQG00000000001A", "res_01KAV9FT00QVQG0000000000iA", all_ones, too_large]
        {
            assert_eq!(text.parse::<ResourceId>(), Err(IdError { prefix: "res_" }), "{text}");
        }
    }

    #[test]
    fn an_optional_id_is_as_small_as_an_id() {
        assert_eq!(size_of::<Option<LeaseId>>(), size_of::<LeaseId>());
    }
}
