//! Tests of the tables: values survive the way to columns and back, and an unreadable value is reported with its place.

use super::*;
use crate::store::samples::{LEASE_STATES, RESOURCE_STATES, Samples};

/// A row in a vector.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Int(i64),
    Text(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Values(Vec<Value>);

impl Values {
    /// One value for each column, of the type that is declared.
    fn fits(&self, columns: &[Column]) {
        assert_eq!(self.0.len(), columns.len());
        for (value, column) in self.0.iter().zip(columns) {
            match value {
                Value::Null => {}
                Value::Int(_) => assert_eq!(column.sql, SqlType::Number, "{column:?}"),
                Value::Text(_) => assert_eq!(column.sql, SqlType::Text, "{column:?}"),
            }
        }
    }
}

impl Sink for Values {
    fn int(&mut self, value: Option<i64>) {
        self.0.push(value.map_or(Value::Null, Value::Int));
    }
    fn text(&mut self, value: Option<&Arc<str>>) {
        self.0.push(value.map_or(Value::Null, |text| Value::Text(text.to_string())));
    }
    fn string(&mut self, value: Option<String>) {
        self.0.push(value.map_or(Value::Null, Value::Text));
    }
}

impl Columns for Values {
    fn int(&self, column: usize) -> Result<Option<i64>, String> {
        match &self.0[column] {
            Value::Null => Ok(None),
            Value::Int(number) => Ok(Some(*number)),
            Value::Text(text) => Err(format!("{text:?} is not a number")),
        }
    }
    fn text(&self, column: usize) -> Result<Option<&str>, String> {
        match &self.0[column] {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            Value::Int(number) => Err(format!("{number} is not a text")),
        }
    }
}

const SEEDS: u64 = 200;

#[test]
fn every_lease_comes_back_as_it_went() {
    let mut interner = Interner::new();
    for seed in 0..SEEDS {
        for state in 0..LEASE_STATES {
            let lease = Samples::new(seed * 100 + state).lease(state, seed);
            let mut row = Values::default();
            encode_lease(&lease, &mut row);
            row.fits(LEASE);
            assert_eq!(decode_lease(&row, &mut interner).unwrap(), lease, "seed {seed}, state {state}");
        }
    }
}

#[test]
fn every_resource_comes_back_as_it_went() {
    let mut interner = Interner::new();
    for seed in 0..SEEDS {
        for state in 0..RESOURCE_STATES {
            let resource = Samples::new(seed * 100 + state).resource(state, seed);
            let mut row = Values::default();
            encode_resource(&resource, &mut row);
            row.fits(RESOURCE);
            assert_eq!(decode_resource(&row, &mut interner).unwrap(), resource, "seed {seed}, state {state}");
        }
    }
}

#[test]
fn every_pool_comes_back_as_it_went() {
    for seed in 0..SEEDS {
        let pool = Samples::new(seed).pool("linux", seed);
        let mut row = Values::default();
        encode_pool(&pool, &mut row);
        row.fits(POOL);
        assert_eq!(decode_pool(&row, &mut Interner::new()).unwrap(), pool);
    }
}

#[test]
fn every_machine_comes_back_as_it_went() {
    for seed in 0..SEEDS {
        let machine = Samples::new(seed).machine("builder-1", seed);
        let mut row = Values::default();
        encode_machine(&machine, &mut row);
        row.fits(MACHINE);
        assert_eq!(decode_machine(&row, &mut Interner::new()).unwrap(), machine);
    }
}

#[test]
fn every_session_comes_back_as_it_went() {
    for seed in 0..SEEDS {
        let session = Samples::new(seed).session(seed);
        let mut row = Values::default();
        encode_session(&session, &mut row);
        row.fits(SESSION);
        assert_eq!(decode_session(&row, &mut Interner::new()).unwrap(), session);
    }
}

fn message<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Corrupt(message)) => message,
        other => panic!("expected a corrupt row, got {other:?}"),
    }
}

fn column(columns: &[Column], name: &str) -> usize {
    columns.iter().position(|known| known.name == name).unwrap()
}

#[test]
fn an_unknown_state_is_named_with_table_row_and_column() {
    let lease = Samples::new(1).lease(0, 1);
    let mut row = Values::default();
    encode_lease(&lease, &mut row);
    row.0[column(LEASE, "state")] = Value::Text("DREAMING".to_owned());
    let said = message(decode_lease(&row, &mut Interner::new()));
    for part in ["table leases", &lease.id.to_string(), "column state", "\"DREAMING\"", "restore a backup"] {
        assert!(said.contains(part), "{part:?} is missing in {said:?}");
    }

    let resource = Samples::new(1).resource(1, 1);
    let mut row = Values::default();
    encode_resource(&resource, &mut row);
    row.0[column(RESOURCE, "state")] = Value::Text("LOST".to_owned());
    let said = message(decode_resource(&row, &mut Interner::new()));
    assert!(said.contains("table resources") && said.contains("column state"), "{said}");
}

#[test]
fn unknown_names_within_json_are_refused() {
    for (state, from, to) in [(5, "\"reason\":\"", "\"reason\":\"NEW_"), (6, "\"OK\"", "\"FINE\""), (10, "WAIT", "NAP")]
    {
        let lease = Samples::new(7).lease(state, 1);
        let mut row = Values::default();
        encode_lease(&lease, &mut row);
        let ended = column(LEASE, "ended");
        let Value::Text(text) = &row.0[ended] else { panic!("{row:?}") };
        assert!(text.contains(from), "{text}");
        row.0[ended] = Value::Text(text.replace(from, to));
        let said = message(decode_lease(&row, &mut Interner::new()));
        assert!(said.contains("column ended: unknown value"), "{said}");
    }
}

/// With any single value damaged, a load succeeds or reports the place. It never panics.
#[test]
fn a_damaged_value_never_panics() {
    let damage = [Value::Null, Value::Int(-1), Value::Int(i64::MAX), Value::Text("?".to_owned())];
    let mut refused = 0;
    for state in 0..LEASE_STATES {
        let mut row = Values::default();
        encode_lease(&Samples::new(state).lease(state, 1), &mut row);
        for at in 0..LEASE.len() {
            for value in &damage {
                let mut damaged = row.clone();
                damaged.0[at] = value.clone();
                match decode_lease(&damaged, &mut Interner::new()) {
                    Ok(_) => {}
                    Err(StoreError::Corrupt(said)) => {
                        assert!(said.contains("table leases"), "{said}");
                        refused += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    for state in 0..RESOURCE_STATES {
        let mut row = Values::default();
        encode_resource(&Samples::new(state).resource(state, 1), &mut row);
        for at in 0..RESOURCE.len() {
            for value in &damage {
                let mut damaged = row.clone();
                damaged.0[at] = value.clone();
                refused += usize::from(decode_resource(&damaged, &mut Interner::new()).is_err());
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

/// A text of many rows is in memory once, and another text in the same place is not mistaken for it.
#[test]
fn shared_texts_are_one_allocation() {
    let mut interner = Interner::new();
    let mut row = Values::default();
    encode_lease(&Samples::new(3).lease(2, 1), &mut row);
    let (one, two) = (decode_lease(&row, &mut interner).unwrap(), decode_lease(&row, &mut interner).unwrap());
    assert!(Arc::ptr_eq(&one.spec.holder, &two.spec.holder));
    assert!(Arc::ptr_eq(&one.spec.selector, &two.spec.selector));
    assert!(Arc::ptr_eq(&one.spec.params, &two.spec.params));
    for n in 0..10_000 {
        row.0[column(LEASE, "holder")] = Value::Text(format!("holder {n}"));
        assert_eq!(*decode_lease(&row, &mut interner).unwrap().spec.holder, *format!("holder {n}"));
    }
}
