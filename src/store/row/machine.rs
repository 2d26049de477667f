//! The table of machines: the orders and the note of operators on each, and its latest losses.

use super::encode::{Int, Json, Text};
use super::intern::Interner;
use super::table::wrong;
use super::{Columns, Sink};
use crate::store::StoreError;
use std::sync::Arc;
use wharfinger_core::{Machine, MachineKey, Order, Timestamp};

table! {
    "machines" as MACHINE;
    text machine_columns!, machine_places!, machine_update!;
    fn write(machine: Machine, name: NameColumn, cordoned: OrderColumns, drained: OrderColumns, held: OrderColumns);
    fn read(machine: Machine, name: NameColumn, cordoned: OrderColumns, drained: OrderColumns, held: OrderColumns);
    name: Text = name.text;
    revision: Int = machine.revision;
    pool: Text = machine.key.pool;
    item: Text = machine.key.item;
    cordoned_by: Text = cordoned.by;
    cordon_reason: Text = cordoned.reason;
    cordoned_at: Int = cordoned.at;
    cordoned_until: Int = cordoned.until;
    drained_by: Text = drained.by;
    drain_reason: Text = drained.reason;
    drained_at: Int = drained.at;
    drained_until: Int = drained.until;
    held_by: Text = held.by;
    hold_reason: Text = held.reason;
    held_at: Int = held.at;
    held_until: Int = held.until;
    losses: Json = machine.losses;
    note: Json = machine.note;
}

/// The key of the table: `pool/item`.
struct NameColumn {
    text: Arc<str>,
}

/// An order in columns.
#[derive(Default)]
struct OrderColumns {
    by: Option<Arc<str>>,
    reason: Option<Arc<str>>,
    at: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl OrderColumns {
    fn of(order: Option<&Order>) -> Self {
        OrderColumns {
            by: order.map(|order| order.by.clone()),
            reason: order.map(|order| order.reason.clone()),
            at: order.map(|order| order.at),
            until: order.and_then(|order| order.until),
        }
    }

    /// The error is what is wrong with the columns.
    fn order(self) -> Result<Option<Order>, String> {
        match (self.by, self.reason, self.at) {
            (Some(by), Some(reason), Some(at)) => Ok(Some(Order { by, reason, at, until: self.until })),
            (None, None, None) if self.until.is_none() => Ok(None),
            _ => Err("goes only together with its reason and its time".to_owned()),
        }
    }
}

/// Writes the row of a machine, in the order of [`MACHINE`].
pub(in crate::store) fn encode_machine(machine: &Machine, sink: &mut impl Sink) {
    let name = NameColumn { text: Arc::from(machine.key.to_string()) };
    let [cordoned, drained, held] =
        [&machine.cordoned, &machine.drained, &machine.held].map(|order| OrderColumns::of(order.as_ref()));
    write(machine, &name, &cordoned, &drained, &held, sink);
}

/// Reads the row of a machine.
pub(in crate::store) fn decode_machine(row: &impl Columns, interner: &mut Interner) -> Result<Machine, StoreError> {
    let mut machine = Machine::new(MachineKey { pool: Arc::default(), item: Arc::default() });
    let mut name = NameColumn { text: Arc::default() };
    let (mut cordoned, mut drained, mut held) =
        (OrderColumns::default(), OrderColumns::default(), OrderColumns::default());
    read(&mut machine, &mut name, &mut cordoned, &mut drained, &mut held, row, interner)?;
    let order = |columns: OrderColumns, column| columns.order().map_err(|what| wrong("machines", row, column, &what));
    machine.cordoned = order(cordoned, "cordoned_by")?;
    machine.drained = order(drained, "drained_by")?;
    machine.held = order(held, "held_by")?;
    if *name.text != *machine.key.to_string() {
        return Err(wrong("machines", row, "name", "is not that of its pool and item"));
    }
    Ok(machine)
}
