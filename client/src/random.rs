//! The source of random numbers: the operating system.

/// A random number that cannot be predicted.
///
/// # Panics
/// If the operating system has no random numbers. The standard library's maps panic then too.
pub fn random() -> u64 {
    getrandom::u64().expect("the operating system returns random numbers")
}

/// An id for a request that no other request has.
pub fn request_id() -> String {
    format!("{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ() {
        let ids: std::collections::BTreeSet<_> = (0..1000).map(|_| request_id()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
