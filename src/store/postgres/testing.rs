//! The PostgreSQL of the tests.

#[path = "../../../tests/support/postgres.rs"]
pub(crate) mod server;

#[path = "../../../tests/support/proxy.rs"]
pub(crate) mod proxy;

use crate::store::PostgresSettings;
use server::Cluster;
use std::time::Duration;

/// The server that all tests share. Its start blocks, so it runs on a thread of its own.
pub(crate) async fn shared() -> Option<&'static Cluster> {
    tokio::task::spawn_blocking(server::shared).await.unwrap()
}

/// Settings with a new schema, and with time limits for a busy machine.
pub(crate) async fn settings() -> Option<PostgresSettings> {
    Some(of(shared().await?.url()))
}

/// As [`settings`], with another URL.
pub(crate) fn of(url: String) -> PostgresSettings {
    PostgresSettings {
        schema: server::schema(),
        connect_timeout: Duration::from_secs(20),
        statement_timeout: Duration::from_secs(30),
        ..PostgresSettings::new(url)
    }
}
