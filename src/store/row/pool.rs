//! The table of pools: what an operator set for each, and how its uses went.

use super::encode::{Int, Json, Text};
use super::intern::Interner;
use super::table::wrong;
use super::{Columns, Sink};
use crate::store::StoreError;
use std::sync::Arc;
use wharfinger_core::{Cordon, PoolRow, Record, Revision};

table! {
    "pools" as POOL;
    text pool_columns!, pool_places!, pool_update!;
    fn write(pool: PoolRow, cordon: CordonColumns);
    fn read(pool: PoolRow, cordon: CordonColumns);
    name: Text = pool.name;
    revision: Int = pool.revision;
    cordoned_by: Text = cordon.by;
    cordon_reason: Text = cordon.reason;
    record: Json = pool.record;
    losses: Json = pool.losses;
}

/// A cordon in columns.
#[derive(Default)]
pub(super) struct CordonColumns {
    pub(super) by: Option<Arc<str>>,
    pub(super) reason: Option<Arc<str>>,
}

impl CordonColumns {
    pub(super) fn of(cordon: Option<&Cordon>) -> Self {
        CordonColumns { by: cordon.map(|cordon| cordon.by.clone()), reason: cordon.map(|cordon| cordon.reason.clone()) }
    }

    /// The error names the column and what is wrong with it.
    pub(super) fn cordon(self) -> Result<Option<Cordon>, (&'static str, String)> {
        match (self.by, self.reason) {
            (Some(by), Some(reason)) => Ok(Some(Cordon { by, reason })),
            (None, None) => Ok(None),
            _ => Err(("cordon_reason", "goes only together with cordoned_by".to_owned())),
        }
    }
}

/// Writes the row of a pool, in the order of [`POOL`].
pub(in crate::store) fn encode_pool(pool: &PoolRow, sink: &mut impl Sink) {
    write(pool, &CordonColumns::of(pool.cordoned.as_ref()), sink);
}

/// Reads the row of a pool.
pub(in crate::store) fn decode_pool(row: &impl Columns, interner: &mut Interner) -> Result<PoolRow, StoreError> {
    let mut pool = PoolRow {
        name: Arc::default(),
        revision: Revision(0),
        cordoned: None,
        record: Record::default(),
        losses: None,
    };
    let mut cordon = CordonColumns::default();
    read(&mut pool, &mut cordon, row, interner)?;
    pool.cordoned = cordon.cordon().map_err(|(column, what)| wrong("pools", row, column, &what))?;
    Ok(pool)
}
