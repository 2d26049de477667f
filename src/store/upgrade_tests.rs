//! A database that an older version wrote, with leases of every state, is opened by this version: no value is lost.

use super::{Age, MemoryStore, SqliteStore, Store, dump, read_dump};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use wharfinger_core::Caller;

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/schema-3");

fn lines(text: &[u8]) -> Vec<Value> {
    serde_json::Deserializer::from_slice(text).into_iter().collect::<Result<_, _>>().unwrap()
}

/// The dump of the version that wrote the database.
fn written() -> Vec<u8> {
    std::fs::read(Path::new(FILES).join("dump.jsonl")).unwrap()
}

async fn dumped(store: &dyn Store) -> Vec<Value> {
    let mut text = Vec::new();
    dump(store, &mut text).await.unwrap();
    lines(&text)
}

/// The dumps are equal, but for columns that were added behind the others and are empty.
fn assert_equal(found: &[Value], written: &[Value]) {
    assert_eq!(found.len(), written.len());
    for (found, written) in found.iter().zip(written) {
        match (found, written) {
            (Value::Array(found), Value::Array(written)) if written[0] != "end" => {
                assert_eq!(found[0], written[0]);
                let (found, written) = (found[1].as_array().unwrap(), written[1].as_array().unwrap());
                let (known, added) = found.split_at(written.len());
                assert_eq!(known, written);
                assert!(added.iter().all(Value::is_null), "{found:?}");
            }
            (Value::Object(found), Value::Object(written)) => {
                for (key, written) in written {
                    match (&found[key], written) {
                        (Value::Array(columns), Value::Array(written)) => {
                            assert!(columns.starts_with(written), "{key}")
                        }
                        (value, written) => assert_eq!(value, written, "{key}"),
                    }
                }
            }
            _ => assert_eq!(found, written),
        }
    }
}

#[tokio::test]
async fn every_value_of_a_database_of_schema_3_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.db");
    std::fs::copy(Path::new(FILES).join("w.db"), &path).unwrap();
    let written = lines(&written());
    // Twice: the first start migrates the schema.
    for _ in 0..2 {
        let store = SqliteStore::open(&path).await.unwrap();
        assert_equal(&dumped(&store).await, &written);
        let tenants: BTreeSet<_> = store.load().await.unwrap().leases.iter().map(|l| l.spec.tenant.clone()).collect();
        assert_eq!(tenants, BTreeSet::from([Caller::DEFAULT_TENANT.into()]), "there were no others");
        store.close().await;
    }
    let names = |kind: &str| -> BTreeSet<&str> {
        let rows = written.iter().filter(|row| row[0] == kind);
        rows.map(|row| row[1][2].as_str().unwrap()).collect()
    };
    let leases = ["QUEUED", "PREPARING", "ACTIVE", "RELEASED", "EXPIRED", "BROKEN", "CANCELLED", "FAILED"];
    assert_eq!(names("lease"), BTreeSet::from(leases), "the file has leases of every state");
    let resources = ["READY", "PROVISIONING", "SUSPECT", "QUARANTINED", "DRAINING", "GONE"];
    assert_eq!(names("resource"), BTreeSet::from(resources));
}

async fn is_restored(to: &dyn Store) {
    let written = written();
    read_dump(&mut &written[..], to, Age::Last).await.unwrap();
    assert_equal(&dumped(to).await, &lines(&written));
}

#[tokio::test]
async fn a_dump_of_schema_3_is_restored_into_memory_and_sqlite() {
    is_restored(&MemoryStore::new()).await;
    let folder = tempfile::tempdir().unwrap();
    is_restored(&SqliteStore::open(&folder.path().join("w.db")).await.unwrap()).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_dump_of_schema_3_is_restored_into_postgresql() {
    let Some(settings) = super::postgres::testing::settings().await else { return };
    is_restored(&super::PostgresStore::open(&settings).await.unwrap()).await;
}
