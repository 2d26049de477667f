//! `db`: the database by itself, without a server.

use super::check_config::load;
use super::error::Failure;
use super::exit::Exit;
use super::serve::{open, store_failure};
use super::ui::Ui;
use crate::config::StoreConfig;
#[cfg(feature = "postgres")]
use crate::store::PostgresStore;
use crate::store::{Age, Copied, CopyError, SqliteStore, Store, StoreError};
use clap::{Args, Subcommand};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Arguments of `db`.
#[derive(Args, Debug)]
pub(crate) struct DbArgs {
    #[command(subcommand)]
    verb: DbVerb,
}

#[derive(Subcommand, Debug)]
enum DbVerb {
    /// Bring the database up to this version's schema; makes it if it is not there
    Migrate(Which),
    /// Write all that the database holds as text, leases live; with PostgreSQL also while servers run
    Dump {
        #[command(flatten)]
        which: Which,
        /// Where to; readable by its owner only, since what hosts are reached by is in it
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Read such a text into a new database
    Restore {
        #[command(flatten)]
        which: Which,
        /// Servers have gone on since it was made, and what they did is lost: go on ahead of all that they gave
        #[arg(long)]
        stale: bool,
        /// Where from
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Copy all into the new database of another configuration, leases live
    ///
    /// Stop the servers of both first. Then start them with the other configuration: holders go on with their leases, watches
    /// resume where they were.
    Move {
        #[command(flatten)]
        which: Which,
        /// The configuration whose [store] is to be filled
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
}

/// The database of a verb.
#[derive(Args, Debug)]
struct Which {
    /// The configuration
    #[arg(long, short, value_name = "FILE", env = "WHARFINGER_CONFIG", default_value = "wharfinger.toml")]
    config: PathBuf,
}

/// Does it.
pub(crate) async fn db(ui: &Ui, args: DbArgs) -> Result<Exit, Failure> {
    match args.verb {
        DbVerb::Migrate(which) => {
            let config = load(ui, &which.config)?.store;
            let store = open(&config).await?;
            store.close().await;
            say(ui, "migrated", &config, None)
        }
        DbVerb::Dump { which, file } => {
            let config = load(ui, &which.config)?.store;
            let mut out = BufWriter::new(create(&file)?);
            let store = open(&config).await?;
            let copied = crate::store::dump(&*store, &mut out).await.map_err(failure)?;
            store.close().await;
            let synced = out.flush().and_then(|()| out.get_ref().sync_all());
            synced.map_err(|error| failure(CopyError::Io(error)))?;
            say(ui, "dumped", &config, Some(copied))
        }
        DbVerb::Restore { which, stale, file } => {
            let age = if stale { Age::Stale } else { Age::Last };
            let config = load(ui, &which.config)?.store;
            let mut input = BufReader::new(File::open(&file).map_err(|error| unreadable(&file, &error))?);
            let target = open_beside(&config).await?;
            let copied = crate::store::read_dump(&mut input, &*target, age).await;
            put_in_place(ui, &config, target, copied, "restored").await
        }
        DbVerb::Move { which, to } => {
            let (from, to) = (load(ui, &which.config)?.store, load(ui, &to)?.store);
            if from == to {
                return Err(Failure::new(Exit::BadData, "both configurations name the same database")
                    .remedy("name one with another [store] with --to"));
            }
            let source = open(&from).await?;
            let target = open_beside(&to).await?;
            let copied = crate::store::copy(&*source, &*target).await;
            source.close().await;
            put_in_place(ui, &to, target, copied, "moved").await
        }
    }
}

fn create(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
        let failure = Failure::new(Exit::BadData, format!("{} can not be written: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure.remedy("name a file that is not there yet"),
            _ => failure,
        }
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::BadData, format!("{} can not be read: {error}", path.display()))
}

/// A new store, beside where it will be.
async fn open_beside(config: &StoreConfig) -> Result<Arc<dyn Store>, Failure> {
    let opened: Result<Arc<dyn Store>, StoreError> = match config {
        StoreConfig::Sqlite(path) => {
            SqliteStore::open_beside(path).await.map(|store| Arc::new(store) as Arc<dyn Store>)
        }
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => {
            PostgresStore::open_beside(settings).await.map(|store| Arc::new(store) as Arc<dyn Store>)
        }
        #[cfg(not(feature = "postgres"))]
        StoreConfig::Postgres(_) => {
            Err(StoreError::Configuration("this wharfinger was built without PostgreSQL".into()))
        }
    };
    opened.map_err(|error| store_failure(&error))
}

/// It is whole, or it stays beside under a name that no store has.
async fn put_in_place(
    ui: &Ui,
    config: &StoreConfig,
    target: Arc<dyn Store>,
    copied: Result<Copied, CopyError>,
    done: &str,
) -> Result<Exit, Failure> {
    target.close().await;
    drop(target);
    let copied = copied.map_err(failure)?;
    let put = match config {
        StoreConfig::Sqlite(path) => SqliteStore::put_in_place(path),
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => PostgresStore::put_in_place(settings).await,
        #[cfg(not(feature = "postgres"))]
        StoreConfig::Postgres(_) => Ok(()),
    };
    put.map_err(|error| store_failure(&error))?;
    say(ui, done, config, Some(copied))
}

fn failure(error: CopyError) -> Failure {
    match error {
        CopyError::Store(error) => store_failure(&error),
        CopyError::Io(_) | CopyError::Dump { .. } => Failure::new(Exit::BadData, error.to_string()),
        CopyError::Changed { .. } => Failure::new(Exit::Unavailable, error.to_string()),
        CopyError::Differs(_) => Failure::new(Exit::Internal, error.to_string()),
    }
}

fn say(ui: &Ui, done: &str, config: &StoreConfig, copied: Option<Copied>) -> Result<Exit, Failure> {
    if ui.json {
        let Copied { leases, resources, pools, machines, sessions, events } = copied.unwrap_or_default();
        ui.document(&match copied {
            None => json!({ "done": done, "store": config.to_string() }),
            Some(_) => json!({
                "done": done, "store": config.to_string(),
                "leases": leases, "resources": resources, "pools": pools, "machines": machines, "sessions": sessions,
                "events": events,
            }),
        })?;
        return Ok(Exit::Ok);
    }
    let what = match copied {
        None => "it is of this version's schema".to_string(),
        Some(Copied { leases, resources, pools, machines, sessions, events }) => {
            format!(
                "{leases} leases, {resources} resources, {pools} pools, {machines} machines, {sessions} sessions, {events} entries of the audit trail"
            )
        }
    };
    ui.out(&format!("{done}: {config}: {what}"))?;
    Ok(Exit::Ok)
}
