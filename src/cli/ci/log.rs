//! The log of a CI product: sections that fold, annotations, and text of others that must be neither.

use super::Product;
use crate::cli::text::one_line;

/// The log of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log(Option<Product>);

/// The weight of an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Warning,
    Error,
}

impl Log {
    pub(crate) fn new(product: Option<Product>) -> Self {
        Self(product)
    }

    /// Whether lines of the log may be commands to the product: `::error::`, `##[error]`.
    pub(crate) fn has_commands(self) -> bool {
        matches!(self.0, Some(Product::Github | Product::Forgejo | Product::Gitea))
    }

    /// The line that opens a section, if the product folds. `name`: letters and digits, of ours. `at_s`: seconds since the Unix epoch.
    pub(crate) fn open(self, name: &str, title: &str, folded: bool, at_s: u64) -> Option<String> {
        let title = one_line(title);
        match self.0? {
            Product::Github | Product::Forgejo | Product::Gitea => folded.then(|| format!("::group::{}", data(&title))),
            Product::Gitlab => {
                let how = if folded { "[collapsed=true]" } else { "" };
                Some(format!("\u{1b}[0Ksection_start:{at_s}:{name}{how}\r\u{1b}[0K{title}"))
            }
            Product::Buildkite => Some(format!("{} {title}", if folded { "---" } else { "+++" })),
            Product::Jenkins | Product::Buildbot | Product::Zuul | Product::Woodpecker => None,
        }
    }

    /// The line that closes it.
    pub(crate) fn close(self, name: &str, folded: bool, at_s: u64) -> Option<String> {
        match self.0? {
            Product::Github | Product::Forgejo | Product::Gitea => folded.then(|| "::endgroup::".to_string()),
            Product::Gitlab => Some(format!("\u{1b}[0Ksection_end:{at_s}:{name}\r\u{1b}[0K")),
            // The next one closes it.
            Product::Buildkite | Product::Jenkins | Product::Buildbot | Product::Zuul | Product::Woodpecker => None,
        }
    }

    /// The line of an annotation, if the product has them.
    pub(crate) fn annotation(self, level: Level, title: &str, message: &str) -> Option<String> {
        let level = match level {
            Level::Warning => "warning",
            Level::Error => "error",
        };
        self.has_commands()
            .then(|| format!("::{level} title={}::{}", property(&one_line(title)), data(&one_line(message))))
    }
}

/// The data of a command of GitHub.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of a command of GitHub.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// A text of which no line is a command to GitHub: neither the old form, anywhere in a line, nor the new one at its start.
pub(crate) fn without_commands(text: &str) -> String {
    let lines = text.split('\n').map(|line| {
        let line = line.replace("##[", "## [");
        let start = line.len() - line.trim_start().len();
        if line[start..].starts_with("::") { format!("{} {}", &line[..=start], &line[start + 1..]) } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLE: &str = "a%b:c,d\u{1b}[2J\n::error::x";

    #[test]
    fn each_product_folds_in_its_own_way() {
        let lines = |product, folded| {
            let log = Log::new(product);
            (log.open("attempt_1", TITLE, folded, 7), log.close("attempt_1", folded, 8))
        };
        let some = |open: &str, close: &str| (Some(open.to_string()), Some(close.to_string()));
        let github = some("::group::a%25b:c,d[2J ::error::x", "::endgroup::");
        for product in [Product::Github, Product::Forgejo, Product::Gitea] {
            assert_eq!(lines(Some(product), true), github);
            assert_eq!(lines(Some(product), false), (None, None), "an open section is none");
        }
        let text = "a%b:c,d[2J ::error::x";
        assert_eq!(
            lines(Some(Product::Gitlab), true),
            some(
                &format!("\u{1b}[0Ksection_start:7:attempt_1[collapsed=true]\r\u{1b}[0K{text}"),
                "\u{1b}[0Ksection_end:8:attempt_1\r\u{1b}[0K"
            )
        );
        assert_eq!(lines(Some(Product::Buildkite), true), (Some(format!("--- {text}")), None));
        assert_eq!(lines(Some(Product::Buildkite), false), (Some(format!("+++ {text}")), None));
        for product in [Product::Jenkins, Product::Buildbot, Product::Zuul, Product::Woodpecker] {
            assert_eq!(lines(Some(product), true), (None, None));
        }
        assert_eq!(lines(None, true), (None, None));
    }

    #[test]
    fn an_annotation_is_one_command() {
        let line = Log::new(Some(Product::Github)).annotation(Level::Error, TITLE, "100%\n::set-env::y");
        assert_eq!(line.as_deref(), Some("::error title=a%25b%3Ac%2Cd[2J %3A%3Aerror%3A%3Ax::100%25 ::set-env::y"));
        assert_eq!(Log::new(Some(Product::Gitlab)).annotation(Level::Error, "t", "m"), None);
    }

    #[test]
    fn text_of_others_commands_nothing() {
        for (text, plain) in [
            ("error: ::warning::x", "error: ::warning::x"),
            ("a\n  ::add-mask::b", "a\n  : :add-mask::b"),
            ("::stop-commands::x", ": :stop-commands::x"),
            ("host says ##[error]x", "host says ## [error]x"),
            ("", ""),
        ] {
            assert_eq!(without_commands(text), plain);
        }
    }
}
