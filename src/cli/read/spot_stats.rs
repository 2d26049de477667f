//! `spot-stats`: what EC2 sold, and how it ended.

use crate::cli::connect::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::{json, text};
use crate::pb;

/// Runs `spot-stats`.
pub(crate) async fn spot_stats(context: &Context) -> Result<Exit, Failure> {
    let mut admin = context.connect().await?.admin();
    let answer = context.ask(admin.weather(pb::WeatherRequest {})).await?;
    let ui = context.ui;
    if ui.json {
        ui.document(&json::listed("lines", &answer.lines, None))?;
        return Ok(Exit::Ok);
    }
    let header = ["ZONE", "TYPE", "MARKET", "LAUNCHED", "INTERRUPTED", "NO CAPACITY", "MEAN LIFE", "RESTS FOR"];
    let mut table = ui.table(&header);
    for line in &answer.lines {
        table.add_row(vec![
            comfy_table::Cell::from(line.zone.as_str()),
            line.instance_type.as_str().into(),
            text::market(line.market()).into(),
            line.launches.into(),
            line.interruptions.into(),
            line.capacity_errors.into(),
            text::span(line.mean_life.as_ref()).into(),
            text::span(line.resting.as_ref()).into(),
        ]);
    }
    ui.print(table, "nothing was bought since the broker's start")?;
    Ok(Exit::Ok)
}
