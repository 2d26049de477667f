//! The real PostgreSQL that tests use.

#[path = "../../../tests/support/postgres.rs"]
pub(crate) mod server;

#[path = "../../../tests/support/proxy.rs"]
pub(crate) mod proxy;

use crate::store::PostgresSettings;
use server::Cluster;
use std::time::Duration;

/// The one that all tests share; starting it takes a moment, which is not for the runtime's threads.
pub(crate) async fn shared() -> Option<&'static Cluster> {
    tokio::task::spawn_blocking(server::shared).await.unwrap()
}

/// For a schema of one's own in it, with times that suit a machine that does many tests at once.
pub(crate) async fn settings() -> Option<PostgresSettings> {
    Some(of(shared().await?.url()))
}

/// The same at another address.
pub(crate) fn of(url: String) -> PostgresSettings {
    PostgresSettings {
        schema: server::schema(),
        connect_timeout: Duration::from_secs(20),
        statement_timeout: Duration::from_secs(30),
        ..PostgresSettings::new(url)
    }
}
