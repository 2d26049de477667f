//! Messages for Slack's incoming webhooks. All text is plain: no part of it is a mention or a format, and the one link is that of the operator's page.

use super::message::{Message, plain, rfc3339};
use serde_json::{Value, json};

/// Maximum number of entries that a message shows.
const SHOWN: usize = 5;
/// Maximum length of one line in characters.
const LINE: usize = 400;

/// The message.
pub(super) fn payload(message: &Message) -> Value {
    let mut lines = vec![format!("[{}] {}", message.severity, plain(&message.headline(), LINE))];
    if message.is_folded() {
        for line in message.lines.iter().take(SHOWN) {
            lines.push(format!("• {}", plain(&line.sentence(), LINE)));
        }
        let more = message.entries.saturating_sub(SHOWN as u64);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
    } else if let Some(line) = message.lines.first() {
        let facts = [("holder", &line.facts.holder), ("replacement", &line.facts.replacement)];
        for (name, value) in facts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            lines.push(format!("{name}: {}", plain(value, LINE)));
        }
    }
    if let Some(skipped) = &message.skipped {
        let (from, to) = (rfc3339(skipped.first_at), rfc3339(skipped.last_at));
        lines.push(format!("{} messages of {from} to {to} were given up", skipped.messages));
    }
    lines.extend(message.url.clone());
    // `mrkdwn` is off, and these three are escaped all the same: Slack reads <!channel> and <URL> in any text.
    let text = lines.join("\n").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({ "text": text, "mrkdwn": false, "unfurl_links": false, "unfurl_media": false })
}
