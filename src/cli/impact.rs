//! The effect of an operator's verb before it is given, and the condition on which it is given.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::json::Json;
use super::text;
use crate::client::Client;
use crate::pb;
use clap::Args;
use serde_json::json;

/// The minor version of the API in which servers know both.
const SINCE: i32 = 2;

/// Arguments of each verb.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct When {
    /// Print the leases and working copies that would end, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Refuse if a lease came since this revision: --dry-run prints it
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    if_revision: Option<u64>,
}

impl When {
    /// The fields `validate_only` and `if_revision` of a request.
    ///
    /// # Errors
    /// The server is of a release that would carry the verb out all the same.
    pub(crate) async fn fields(self, context: &Context, client: &Client) -> Result<(bool, u64), Failure> {
        let fields = (self.dry_run, self.if_revision.unwrap_or(0));
        if fields != (false, 0) {
            let server = client.server().await.map_err(|error| context.failure(error))?;
            if server.api_minor < SINCE {
                let version = text::one_line(&server.version);
                let message =
                    format!("the server has version {version}, which knows neither --dry-run nor --if-revision");
                return Err(
                    Failure::new(Exit::Unavailable, message).remedy("upgrade the server, or leave the option out")
                );
            }
        }
        Ok(fields)
    }
}

/// Prints what a verb would end.
pub(crate) fn tell(context: &Context, target: &str, impact: &pb::Impact) -> Result<(), Failure> {
    let ui = context.ui;
    if ui.json {
        return ui.document(&json!({ "target": target, "impact": impact.json() }));
    }
    ui.out(&format!("{}: {}", text::one_line(target), sentence(impact)))?;
    ui.event(&format!("--if-revision {} refuses the verb if a lease comes meanwhile", impact.revision));
    Ok(())
}

/// An impact in words: `would break 2 leases (lse_1, lse_2) and remove 1 working copy (res_3)`.
fn sentence(impact: &pb::Impact) -> String {
    let mut parts = Vec::new();
    if impact.broken_count > 0 {
        let leases = counted(impact.broken_count, "lease", "leases");
        parts.push(format!("break {leases}{}", names(&impact.broken_lease_ids, impact.broken_count)));
    }
    if impact.put_back_count > 0 {
        let leases = counted(impact.put_back_count, "lease", "leases");
        parts.push(format!("put {leases} in preparation back into the queue"));
    }
    if impact.copy_count > 0 {
        let copies = counted(impact.copy_count, "working copy", "working copies");
        parts.push(format!("remove {copies}{}", names(&impact.copy_ids, impact.copy_count)));
    }
    match &parts[..] {
        [] => "would end nothing".to_owned(),
        [one] => format!("would {one}"),
        [all @ .., last] => format!("would {} and {last}", all.join(", ")),
    }
}

fn counted(count: i32, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// The first ids, in parentheses, with the number of the rest.
fn names(ids: &[String], count: i32) -> String {
    let shown = ids.len().min(5);
    let rest = usize::try_from(count).unwrap_or(0).saturating_sub(shown);
    let list = ids.iter().take(shown).map(|id| text::one_line(id)).collect::<Vec<_>>().join(", ");
    match (shown, rest) {
        (0, _) => String::new(),
        (_, 0) => format!(" ({list})"),
        (_, rest) => format!(" ({list} and {rest} more)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impact_is_one_sentence() {
        let ids = |from: usize, to: usize| (from..=to).map(|number| format!("lse_{number}")).collect::<Vec<_>>();
        let cases = [
            (pb::Impact::default(), "would end nothing"),
            (
                pb::Impact { broken_count: 1, broken_lease_ids: ids(1, 1), ..Default::default() },
                "would break 1 lease (lse_1)",
            ),
            (
                pb::Impact { broken_count: 70, broken_lease_ids: ids(1, 64), put_back_count: 2, ..Default::default() },
                "would break 70 leases (lse_1, lse_2, lse_3, lse_4, lse_5 and 65 more) and put 2 leases in preparation back into the queue",
            ),
            (
                pb::Impact {
                    broken_count: 2,
                    put_back_count: 1,
                    copy_count: 1,
                    copy_ids: vec!["res_3".into()],
                    ..Default::default()
                },
                "would break 2 leases, put 1 lease in preparation back into the queue and remove 1 working copy (res_3)",
            ),
        ];
        for (impact, expected) in cases {
            assert_eq!(sentence(&impact), expected);
        }
    }
}
