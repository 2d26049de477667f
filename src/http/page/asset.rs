//! The style sheet and the scripts. They are part of the program; their addresses have the digest of their contents.

use crate::auth::hex;
use axum::http::header::{self, HeaderName};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const CSS: &str = include_str!("assets/page.css");
const JS: &str = include_str!("assets/page.js");
const MORPH: &str = include_str!("assets/idiomorph.min.js");

/// The folder of the assets.
pub(crate) static FOLDER: LazyLock<String> = LazyLock::new(|| {
    let digest = [CSS, JS, MORPH].iter().fold(Sha256::new(), |digest, text| digest.chain_update(text));
    format!("/a/{}", hex(&digest.finalize()[..8]))
});

/// An asset by its path: its text and the headers of its kind. `None`: there is none.
pub(crate) fn asset(path: &str) -> Option<([(HeaderName, &'static str); 2], &'static str)> {
    let name = path.strip_prefix(FOLDER.as_str())?.strip_prefix('/')?;
    let (kind, text) = match name {
        "page.css" => ("text/css; charset=utf-8", CSS),
        "page.js" => ("text/javascript; charset=utf-8", JS),
        "idiomorph.min.js" => ("text/javascript; charset=utf-8", MORPH),
        _ => return None,
    };
    Some(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")], text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `npm pack idiomorph@0.8.0`, `package/dist/idiomorph.min.js`.
    #[test]
    fn the_script_of_others_is_as_it_was_fetched() {
        let digest = hex(&Sha256::digest(MORPH));
        assert_eq!(digest, "4cbd535caf7663a51eda9bce6595371c384fc430d54b8d414e29a61167f19f96");
        for forbidden in ["eval(", "new Function", "innerHTML=", "document.write"] {
            assert!(!MORPH.contains(forbidden) && !JS.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn assets_are_found_by_their_digest_alone() {
        assert!(asset(&format!("{}/page.css", *FOLDER)).is_some());
        for path in ["/a/0000000000000000/page.css", "/page.css", &format!("{}/../mod.rs", *FOLDER), &FOLDER] {
            assert!(asset(path).is_none(), "{path}");
        }
    }
}
