//! Addresses of screens of the operator's page, for messages that lead there: of hooks, of the command line.

use std::sync::Arc;

/// The screens of a page, by the address by which people reach it (`url` of `[page]`). Without one there are no addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links(Option<Arc<str>>);

impl Links {
    /// The screens below this address, which has no path. Empty: there is none.
    pub fn new(url: &str) -> Self {
        Self((!url.is_empty()).then(|| Arc::from(url.trim_end_matches('/'))))
    }

    /// The address itself.
    pub fn page(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// The screen of a lease.
    pub fn lease(&self, id: &str) -> Option<String> {
        self.screen("leases", id)
    }

    /// The screen of a resource, by its id or its machine.
    pub fn resource(&self, id: &str) -> Option<String> {
        self.screen("resources", id)
    }

    /// The screen of a pool.
    pub fn pool(&self, name: &str) -> Option<String> {
        self.screen("pools", name)
    }

    /// The queue of a pool; of all with an empty name.
    pub fn queue(&self, pool: &str) -> Option<String> {
        let of = if pool.is_empty() { String::new() } else { format!("?pool={}", encoded(pool)) };
        self.page().map(|page| format!("{page}/queue{of}"))
    }

    fn screen(&self, list: &str, name: &str) -> Option<String> {
        self.page().map(|page| format!("{page}/{list}/{}", encoded(name)))
    }
}

/// A text as one part of a path.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    let mut path = String::with_capacity(text.len());
    for b in text.bytes() {
        if plain(b) { path.push(char::from(b)) } else { path.push_str(&format!("%{b:02X}")) }
    }
    // A browser takes these two for steps.
    if matches!(&*path, "." | "..") { path.replace('.', "%2E") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_address_there_are_no_links() {
        let none = Links::new("");
        assert_eq!((none.lease("lse_1"), none.resource("res_1"), none.pool("a")), (None, None, None));
        assert_eq!(none.queue("a"), None);
    }
}
