//! The form to sign in, and the step from another site to the page.

use crate::http::page::part::clipped;
use form_urlencoded::Serializer;
use maud::{DOCTYPE, Markup, html};

/// The form. `to`: the address to go to. `refused`: why the last try failed; empty: there was none. `issuer`: the host of the issuer that
/// signs people in.
pub(crate) fn sign_in(to: &str, refused: &str, issuer: Option<&str>) -> Markup {
    html! {
        h1 { "Sign in" }
        @if !refused.is_empty() { p.strip role="alert" { (refused) } }
        @if let Some(issuer) = issuer {
            p { a.begin href=(begin(to)) { "Sign in with " bdi { (clipped(issuer)) } } }
            p { "Or with a token:" }
        }
        form.sign-in action="/sign-in" method="post" {
            input type="hidden" name="to" value=(to);
            label for="token" { "Token" }
            input #token name="token" type="password" autocomplete="off" required maxlength="16384";
            button { "Sign in" }
        }
        p { "The token of " code { "[[auth.token]]" } " that you use with " code { "WHARFINGER_AUTH_TOKEN" }
            ", or one of an issuer. It stays at this server, and the session ends after twelve hours, with the token, or when the server stops." }
    }
}

/// The step from a link on another site. The browser brings the session only to requests of the page itself.
pub(crate) struct Redirect<'r> {
    pub(crate) to: &'r str,
}

/// A page that leads to an address of the page itself.
pub(crate) fn redirect(step: &Redirect<'_>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="refresh" content=(format!("0;url={}", step.to));
                title { "Wharfinger" }
            }
            body { p { a href=(step.to) { "Go on to Wharfinger" } } }
        }
    }
}

/// The address at which a sign-in by the issuer begins.
fn begin(to: &str) -> String {
    format!("/sign-in/begin?{}", Serializer::new(String::new()).append_pair("to", to).finish())
}
