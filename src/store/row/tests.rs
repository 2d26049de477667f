//! Nothing is lost on the way to columns and back; what can't be read says where it is.

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
    let mut shared = Shared::new();
    for seed in 0..SEEDS {
        for state in 0..LEASE_STATES {
            let lease = Samples::new(seed * 100 + state).lease(state, seed);
            let mut row = Values::default();
            put_lease(&lease, &mut row);
            assert_eq!(row.0.len(), LEASE.len());
            assert_eq!(take_lease(&row, &mut shared).unwrap(), lease, "seed {seed}, state {state}");
        }
    }
}

#[test]
fn every_resource_comes_back_as_it_went() {
    let mut shared = Shared::new();
    for seed in 0..SEEDS {
        for state in 0..RESOURCE_STATES {
            let resource = Samples::new(seed * 100 + state).resource(state, seed);
            let mut row = Values::default();
            put_resource(&resource, &mut row);
            assert_eq!(row.0.len(), RESOURCE.len());
            assert_eq!(take_resource(&row, &mut shared).unwrap(), resource, "seed {seed}, state {state}");
        }
    }
}

#[test]
fn every_pool_comes_back_as_it_went() {
    for seed in 0..SEEDS {
        let pool = Samples::new(seed).pool("linux", seed);
        let mut row = Values::default();
        put_pool(&pool, &mut row);
        assert_eq!(row.0.len(), POOL.len());
        assert_eq!(take_pool(&row).unwrap(), pool);
    }
}

fn message<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Corrupt(message)) => message,
        other => panic!("expected a corrupt row, got {other:?}"),
    }
}

fn column(names: &[&str], name: &str) -> usize {
    names.iter().position(|known| *known == name).unwrap()
}

#[test]
fn an_unknown_state_is_named_with_table_row_and_column() {
    let lease = Samples::new(1).lease(0, 1);
    let mut row = Values::default();
    put_lease(&lease, &mut row);
    row.0[column(&LEASE, "state")] = Value::Text("DREAMING".to_owned());
    let said = message(take_lease(&row, &mut Shared::new()));
    for part in ["table leases", &lease.id.to_string(), "column state", "\"DREAMING\"", "restore a backup"] {
        assert!(said.contains(part), "{part:?} is missing in {said:?}");
    }

    let resource = Samples::new(1).resource(1, 1);
    let mut row = Values::default();
    put_resource(&resource, &mut row);
    row.0[column(&RESOURCE, "state")] = Value::Text("LOST".to_owned());
    let said = message(take_resource(&row, &mut Shared::new()));
    assert!(said.contains("table resources") && said.contains("column state"), "{said}");
}

#[test]
fn unknown_names_within_json_are_refused() {
    for (state, from, to) in [(5, "\"reason\":\"", "\"reason\":\"NEW_"), (6, "\"OK\"", "\"FINE\""), (10, "WAIT", "NAP")]
    {
        let lease = Samples::new(7).lease(state, 1);
        let mut row = Values::default();
        put_lease(&lease, &mut row);
        let ended = column(&LEASE, "ended");
        let Value::Text(text) = &row.0[ended] else { panic!("{row:?}") };
        assert!(text.contains(from), "{text}");
        row.0[ended] = Value::Text(text.replace(from, to));
        let said = message(take_lease(&row, &mut Shared::new()));
        assert!(said.contains("column ended: unknown value"), "{said}");
    }
}

/// Whatever single value is damaged, loading either works or says where it failed: it never panics.
#[test]
fn a_damaged_value_never_panics() {
    let damage = [Value::Null, Value::Int(-1), Value::Int(i64::MAX), Value::Text("?".to_owned())];
    let mut refused = 0;
    for state in 0..LEASE_STATES {
        let mut row = Values::default();
        put_lease(&Samples::new(state).lease(state, 1), &mut row);
        for at in 0..LEASE.len() {
            for value in &damage {
                let mut damaged = row.clone();
                damaged.0[at] = value.clone();
                match take_lease(&damaged, &mut Shared::new()) {
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
        put_resource(&Samples::new(state).resource(state, 1), &mut row);
        for at in 0..RESOURCE.len() {
            for value in &damage {
                let mut damaged = row.clone();
                damaged.0[at] = value.clone();
                refused += usize::from(take_resource(&damaged, &mut Shared::new()).is_err());
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

/// What many rows share is kept once, and a stranger that displaces it is not mistaken for it.
#[test]
fn shared_texts_are_one_allocation() {
    let mut shared = Shared::new();
    let mut row = Values::default();
    put_lease(&Samples::new(3).lease(2, 1), &mut row);
    let (one, two) = (take_lease(&row, &mut shared).unwrap(), take_lease(&row, &mut shared).unwrap());
    assert!(Arc::ptr_eq(&one.spec.holder, &two.spec.holder));
    assert!(Arc::ptr_eq(&one.spec.selector, &two.spec.selector));
    assert!(Arc::ptr_eq(&one.spec.params, &two.spec.params));
    for n in 0..10_000 {
        row.0[column(&LEASE, "holder")] = Value::Text(format!("holder {n}"));
        assert_eq!(*take_lease(&row, &mut shared).unwrap().spec.holder, *format!("holder {n}"));
    }
}
