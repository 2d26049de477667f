//! The form to sign in, and the step from another site to the page.

use maud::{DOCTYPE, Markup, html};

/// The form. `to`: the address to go to. `refused`: why the last token was refused; empty: none was.
pub(crate) fn sign_in(to: &str, refused: &str) -> Markup {
    html! {
        h1 { "Sign in" }
        @if !refused.is_empty() { p.strip role="alert" { (refused) } }
        form.sign-in action="/sign-in" method="post" {
            input type="hidden" name="to" value=(to);
            label for="token" { "Token" }
            input #token name="token" type="password" autocomplete="off" required maxlength="16384";
            button { "Sign in" }
        }
        p { "The token of " code { "[[auth.token]]" } " that you use with " code { "WHARFINGER_TOKEN" }
            ", or one of an issuer. It stays at this server, and the session ends after twelve hours, with the token, or when the server stops." }
        p { "Client certificates and users of the Unix socket cannot sign in here: use the command line." }
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
