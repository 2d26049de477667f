//! The configuration that a server uses: its digest, and whether a later text of the file was refused.

use crate::clock::wall;
use crate::links::Links;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// A text of the configuration file that was refused at a reload. The text before it stays in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedConfiguration {
    /// The first refusal after the text in use was read.
    pub since: SystemTime,
    /// The reason, and the remedy. It has no part of the file's text, since each caller with a role may read it.
    pub why: Arc<str>,
}

#[derive(Debug, Default)]
struct Known {
    digest: Arc<str>,
    page: Links,
    refused: Option<RefusedConfiguration>,
}

/// The configuration of a server. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct ConfigurationStatus(Arc<RwLock<Known>>);

impl ConfigurationStatus {
    /// Stores the digest of a text that was taken over, and the page by which people see this server.
    pub fn taken(&self, digest: &str, page: Links) {
        let known = Known { digest: Arc::from(digest), page, refused: None };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Stores that a text was refused. The time of the first refusal in a row stays.
    pub fn refused(&self, why: &str) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let since = known.refused.as_ref().map_or_else(wall, |refused| refused.since);
        known.refused = Some(RefusedConfiguration { since, why: Arc::from(why) });
    }

    /// The digest of the text in use. Empty: it is not known.
    pub(crate) fn digest(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).digest.to_string()
    }

    /// The page by which people see this server.
    pub(crate) fn page(&self) -> Links {
        self.0.read().unwrap_or_else(PoisonError::into_inner).page.clone()
    }

    /// The text that was refused after the one in use.
    pub(crate) fn problem(&self) -> Option<RefusedConfiguration> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).refused.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_first_time_and_ends_with_a_text_that_is_taken_over() {
        let status = ConfigurationStatus::default();
        status.taken("aa", Links::new("https://a.example"));
        assert_eq!((status.digest(), status.problem()), ("aa".to_owned(), None));
        status.refused("1 mistake");
        let first = status.problem().unwrap();
        status.refused("2 mistakes");
        let second = status.problem().unwrap();
        assert_eq!((second.since, &*second.why), (first.since, "2 mistakes"));
        assert_eq!(
            (&*status.digest(), status.page().page()),
            ("aa", Some("https://a.example")),
            "the text before stays"
        );
        status.taken("bb", Links::default());
        assert_eq!((status.digest(), status.problem()), ("bb".to_owned(), None));
    }
}
