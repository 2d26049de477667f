//! `tenants`: what each tenant holds, waits for and may have.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::{json, text};
use crate::pb;

/// Runs `tenants`.
pub(crate) async fn tenants(context: &Context) -> Result<Exit, Failure> {
    let mut admin = context.connect().await?.admin();
    let answer = context.ask(admin.list_tenants(pb::ListTenantsRequest::default())).await?;
    let ui = context.ui;
    if ui.json {
        ui.document(&json::listed("tenants", &answer.tenants, Some(answer.revision)))?;
        return Ok(Exit::Ok);
    }
    let mut table = ui.table(&["TENANT", "WEIGHT", "HOLDS", "SHARE", "WAITING", "LONGEST WAIT", "IN POOLS"]);
    for tenant in &answer.tenants {
        table.add_row(vec![
            comfy_table::Cell::from(text::one_line(&tenant.name)),
            tenant.weight.into(),
            within(tenant.slots, tenant.max_slots).into(),
            share(tenant.slots, tenant.weight).into(),
            within(tenant.waiting, tenant.max_queue).into(),
            text::span(tenant.oldest_wait.as_ref()).into(),
            by_pool(tenant).into(),
        ]);
    }
    ui.print(table, "no tenant is configured, holds a slot or waits")?;
    Ok(Exit::Ok)
}

/// A number, and its limit where there is one.
fn within(count: i32, most: Option<i64>) -> String {
    most.map_or_else(|| count.to_string(), |most| format!("{count} of {most}"))
}

/// Slots by weight, to a hundredth.
fn share(slots: i32, weight: i64) -> String {
    let hundredths = i64::from(slots) * 100 / weight.max(1);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn by_pool(tenant: &pb::Tenant) -> String {
    let mut pools: Vec<(&String, &i32)> = tenant.slots_by_pool.iter().collect();
    pools.sort();
    let texts: Vec<String> = pools.into_iter().map(|(pool, slots)| format!("{pool} {slots}")).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_limits_are_said_in_short() {
        assert_eq!((within(3, None), within(3, Some(60))), ("3".into(), "3 of 60".into()));
        assert_eq!((share(12, 3), share(1, 3), share(0, 0)), ("4.00".into(), "0.33".into(), "0.00".into()));
        let slots_by_pool = [("hosts".to_owned(), 2), ("copies".to_owned(), 1)].into();
        let tenant = pb::Tenant { slots_by_pool, ..Default::default() };
        assert_eq!((by_pool(&tenant), by_pool(&pb::Tenant::default())), ("copies 1, hosts 2".into(), "-".into()));
    }
}
