//! Machine types that EC2 sold, by zone and market, and how they ended.

use super::{cell, head};
use crate::http::page::part::{clipped, counted, span, time};
use crate::pb;
use maud::{Markup, html};

/// Minimum number of launches from which on a share of interruptions is named.
const ENOUGH: i64 = 5;

/// The screen at this time, in seconds of the Unix epoch. What rests stands first, then what is taken away most often.
pub(crate) fn spot_stats(mut lines: Vec<pb::WeatherLine>, now: i64) -> Markup {
    lines.sort_by_key(|line| (line.resting.is_none(), -share(line)));
    let worst =
        lines.iter().filter(|line| line.launches >= ENOUGH && line.interruptions > 0).max_by_key(|line| share(line));
    let resting = lines.iter().filter(|line| line.resting.is_some()).count();
    html! {
        h1 { "Spot" }
        @if lines.is_empty() { p.none { "No pool has bought a machine." } }
        @else {
            p.lead {
                @match worst {
                    Some(line) => { bdi { (clipped(&line.instance_type)) } " in " bdi { (clipped(&line.zone)) } ": " (line.interruptions) " of " (line.launches) " were taken away. " }
                    None => { "No machine type was taken away often. " }
                }
                @if resting > 0 { (counted(resting, "place rests", "places rest")) " and " @if resting == 1 { "is" } @else { "are" } " not bought until then." }
            }
            table {
                caption.unseen { "Machine types by zone and market" }
                (head(&["Zone", "Type", "Market", "Launched", "Taken away", "None to be had", "Mean life", "Rests until"]))
                tbody {
                    @for line in &lines {
                        tr {
                            (cell("Zone", &html! { bdi { (clipped(&line.zone)) } @if !line.region.is_empty() { span.said { " " bdi { (clipped(&line.region)) } } } }))
                            (cell("Type", &html! { bdi { (clipped(&line.instance_type)) } }))
                            (cell("Market", &html! { (market(line.market())) }))
                            (cell("Launched", &html! { (line.launches) }))
                            (cell("Taken away", &html! { (line.interruptions) @if line.launches >= ENOUGH { " (" (share(line) / 10) " %)" } }))
                            (cell("None to be had", &html! { (line.capacity_errors) }))
                            (cell("Mean life", &html! { @match &line.mean_life { Some(life) => { (span(life.seconds)) }, None => { span.none { "–" } } } }))
                            (cell("Rests until", &rest(line, now)))
                        }
                    }
                }
            }
            p.none { "In a shell: " code { "wharfinger spot-stats" } }
        }
    }
}

/// Interruptions per 1,000 launches.
fn share(line: &pb::WeatherLine) -> i64 {
    line.interruptions.saturating_mul(1_000) / line.launches.max(1)
}

/// The end of a rest. It is rounded up to ten seconds, so that the screen mostly stays as it is.
fn rest(line: &pb::WeatherLine, now: i64) -> Markup {
    const ROUND: i64 = 10;
    let end = |resting: &prost_types::Duration| (now + resting.seconds).div_euclid(ROUND) * ROUND + ROUND;
    let at = line.resting.as_ref().map(|resting| prost_types::Timestamp { seconds: end(resting), nanos: 0 });
    time(at.as_ref())
}

fn market(market: pb::Market) -> &'static str {
    match market {
        pb::Market::Unspecified => "unknown",
        pb::Market::Spot => "spot",
        pb::Market::OnDemand => "on demand",
    }
}
