//! Names of callers and servers: `spiffe://DOMAIN/PATH`, as strict as the SPIFFE standard (SPIFFE-ID, section 2).

use std::fmt;

/// Maximum length of a name, in bytes (SPIFFE-ID, section 2.3).
const LONGEST: usize = 2048;

/// A name: a trust domain and a path in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uri(String);

/// The reason why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// It does not begin with `spiffe://`.
    #[error("does not begin with spiffe://")]
    Scheme,
    /// It is longer than 2,048 bytes.
    #[error("has more than 2048 bytes")]
    Length,
    /// The trust domain is empty, or has other characters than `a-z`, `0-9`, `.`, `-`, `_`.
    #[error("has a trust domain with other characters than a-z, 0-9, '.', '-' and '_', or none")]
    Domain,
    /// The path is empty, or has an empty segment, `.`, `..`, or other characters than letters, digits, `.`, `-`, `_`.
    #[error(
        "has no path, or a segment of it that is empty, '.', '..', or has other characters than letters, digits, '.', '-' and '_'"
    )]
    Path,
}

impl Uri {
    /// Reads a name.
    ///
    /// # Errors
    /// [`UriError`]: the text is not a name.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        if text.len() > LONGEST {
            return Err(UriError::Length);
        }
        let rest = text.strip_prefix("spiffe://").ok_or(UriError::Scheme)?;
        let (domain, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if !is_domain(domain) {
            return Err(UriError::Domain);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let segment = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(plain);
        match path.strip_prefix('/') {
            Some(path) if path.split('/').all(segment) => Ok(Uri(text.to_string())),
            Some(_) | None => Err(UriError::Path),
        }
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain.
    pub fn domain(&self) -> &str {
        let rest = &self.0["spiffe://".len()..];
        rest.split_once('/').map_or(rest, |(domain, _)| domain)
    }

    /// The path, which begins with `/`.
    pub fn path(&self) -> &str {
        let rest = &self.0["spiffe://".len()..];
        rest.find('/').map_or("", |at| &rest[at..])
    }
}

fn is_domain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    !text.is_empty() && text.len() <= 255 && text.chars().all(plain)
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names that an authority may sign: one name, or all that begin with a text that ends in `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This name.
    Exact(Uri),
    /// All names that begin with this text.
    Prefix(String),
}

impl Pattern {
    /// Reads `spiffe://DOMAIN/PATH`, or `spiffe://DOMAIN/` and more segments with a `/` at the end.
    ///
    /// # Errors
    /// [`UriError`]: the text is neither.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let Some(before) = text.strip_suffix('/') else { return Uri::parse(text).map(Pattern::Exact) };
        // A prefix is right if a name can stand behind it.
        Uri::parse(&format!("{before}/x")).map(|_| Pattern::Prefix(text.to_string()))
    }

    /// Whether the pattern has this name.
    pub fn has(&self, uri: &Uri) -> bool {
        match self {
            Pattern::Exact(exact) => exact == uri,
            Pattern::Prefix(prefix) => uri.as_str().starts_with(prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_strictly() {
        for (text, error) in [
            ("spiffe://farm/agent", None),
            ("spiffe://farm.example.org/agent/7", None),
            ("spiffe://farm_1/A.b-c_d", None),
            ("spiffe://farm", Some(UriError::Path)),
            ("spiffe://farm/", Some(UriError::Path)),
            ("spiffe://farm/a/", Some(UriError::Path)),
            ("spiffe://farm//a", Some(UriError::Path)),
            ("spiffe://farm/../a", Some(UriError::Path)),
            ("spiffe://farm/./a", Some(UriError::Path)),
            ("spiffe://farm/%2e%2e/a", Some(UriError::Path)),
            ("spiffe://farm/a?b", Some(UriError::Path)),
            ("spiffe://farm/a#b", Some(UriError::Path)),
            ("spiffe://farm/ü", Some(UriError::Path)),
            ("spiffe://Farm/a", Some(UriError::Domain)),
            ("spiffe:///a", Some(UriError::Domain)),
            ("spiffe://user@farm/a", Some(UriError::Domain)),
            ("spiffe://farm:80/a", Some(UriError::Domain)),
            ("SPIFFE://farm/a", Some(UriError::Scheme)),
            ("https://farm/a", Some(UriError::Scheme)),
            ("", Some(UriError::Scheme)),
        ] {
            assert_eq!(Uri::parse(text).err(), error, "{text}");
        }
        let long = format!("spiffe://farm/{}", "a".repeat(LONGEST));
        assert_eq!(Uri::parse(&long), Err(UriError::Length));
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let uri = |text: &str| Uri::parse(text).unwrap();
        let prefix = Pattern::parse("spiffe://farm/agents/").unwrap();
        assert!(prefix.has(&uri("spiffe://farm/agents/7")));
        assert!(!prefix.has(&uri("spiffe://farm/agents-of-others/7")));
        assert!(!prefix.has(&uri("spiffe://farm/agents")));
        let all = Pattern::parse("spiffe://farm/").unwrap();
        assert!(all.has(&uri("spiffe://farm/x/y")) && !all.has(&uri("spiffe://farm.evil/x")));
        let one = Pattern::parse("spiffe://farm/ops").unwrap();
        assert!(one.has(&uri("spiffe://farm/ops")) && !one.has(&uri("spiffe://farm/ops/x")));
        assert!(Pattern::parse("spiffe://").is_err() && Pattern::parse("/").is_err() && Pattern::parse("").is_err());
    }
}
