//! Output of git and of scripts on hosts, and parameters of leases, for `fuzz/` and the inputs that it kept.

use crate::checkout::CheckoutReport;
use crate::error::State;
use crate::mirror::Listing;
use crate::params::Wanted;
use std::collections::BTreeMap;

/// A listing of refs, a report, and one parameter as `KEY=VALUE`. No name of a ref that is taken is an option of git.
pub fn listing(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = (Listing::parse(&text), CheckoutReport::parse(&text), State::parse(&text));
    let Some((key, value)) = text.split_once('=') else { return };
    let params = BTreeMap::from([(key.to_string(), value.to_string())]);
    if let Ok(Wanted::Branch(name) | Wanted::Tag(name) | Wanted::Ref(name) | Wanted::Commit(name)) =
        Wanted::parse(&params)
    {
        assert!(!name.is_empty() && !name.starts_with('-'), "{name:?}");
        assert!(!name.contains("..") && !name.chars().any(|c| c.is_control() || c == ' '), "{name:?}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_input_finds_a_fault() {
        let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        wharfinger_testkit::replay(repository.as_ref(), "listing", super::listing);
    }
}
