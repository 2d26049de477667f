//! Opening of a database: checks of the file, the lock against other servers, and the migration of the schema.

use super::error::{sorted, sorted_io};
use super::sql;
use crate::random::random;
use crate::store::StoreError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Maximum time to wait for another reader (a shell, a backup) to unlock the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The first bytes of each SQLite database (https://sqlite.org/fileformat.html).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

fn configuration(message: String) -> StoreError {
    StoreError::Configuration(message)
}

/// The path without symbolic links, so that two names of one file have one lock.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let shown = path.display();
    if path.is_dir() {
        return Err(configuration(format!("the database path {shown} is a folder: name a file in it")));
    }
    match fs::canonicalize(path) {
        Ok(real) => return Ok(real),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            return Err(configuration(format!("the database path {shown} leads through a file: choose another")));
        }
        Err(e) => return Err(sorted_io(path, "open the database", &e)),
    }
    let Some(name) = path.file_name() else {
        return Err(configuration(format!("the database path {shown} names no file: name one")));
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = fs::canonicalize(folder).map_err(|_| {
        configuration(format!(
            "there is no folder {} for the database {shown}: create it, or choose another path",
            folder.display()
        ))
    })?;
    Ok(folder.join(name))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Refuses a file that is not a database of this program, by its first bytes. Creates the file if it does not exist. SQLite's own
/// check comes too late: it changes some files before it refuses them.
pub(super) fn look(path: &Path) -> Result<(), StoreError> {
    let file = path.display();
    let mut header = Vec::with_capacity(100);
    let found = private().open(path).and_then(|f| f.take(100).read_to_end(&mut header));
    found.map_err(|e| sorted_io(path, "open the database", &e))?;
    if header.is_empty() {
        return Ok(());
    }
    if !header.starts_with(MAGIC) {
        return Err(configuration(format!(
            "{file} is not a SQLite database: name another file, or move this one out of the way"
        )));
    }
    let id = header.get(68..72).map(|b| b.iter().fold(0_u32, |n, b| n << 8 | u32::from(*b)));
    match id {
        Some(sql::OURS) | Some(0) => Ok(()),
        _ => Err(foreign(path)),
    }
}

fn foreign(path: &Path) -> StoreError {
    configuration(format!(
        "{} is the SQLite database of another program: name another file, or move this one out of the way",
        path.display()
    ))
}

/// Maximum time to wait for the lock. A process that is being started has copies of this one's files for a moment, and keeps a
/// released lock with them.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);

/// Locks the database against other servers while the file is open. The lock ends with the process.
pub(super) async fn lock(path: &Path) -> Result<File, StoreError> {
    let mut waited = Duration::ZERO;
    loop {
        match try_lock(path) {
            Err(StoreError::Configuration(_)) if waited < LOCK_PATIENCE => {}
            done => return done,
        }
        let pause = Duration::from_millis(10);
        tokio::time::sleep(pause).await;
        waited += pause;
    }
}

fn try_lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let mut file = private().open(&name).map_err(|e| sorted_io(&name, "open the lock file", &e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The process id is only for the message, which is returned without it too.
            let _ = file.take(20).read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() };
            return Err(configuration(format!(
                "another wharfinger serves the database {} (pid {pid}): stop it, or name another file",
                path.display()
            )));
        }
        Err(TryLockError::Error(e)) => return Err(sorted_io(&name, "lock", &e)),
    }
    let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = noted {
        tracing::warn!(%error, file = %name.display(), "could not note the process id in the lock file");
    }
    Ok(file)
}

/// The options of the connection that writes. A commit waits for the disk (FULL).
pub(super) fn writer(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // Only for macOS, where a plain fsync does not reach the disk.
        .pragma("fullfsync", "ON")
        .foreign_keys(false)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("cache_size", "-65536")
        // Checkpoints run beside the commits, see `checkpoint`. This one runs within a commit if those fail.
        .pragma("wal_autocheckpoint", "32768")
        .statement_cache_capacity(64)
        .thread_name(|n| format!("sqlite-write-{n}"))
        .disable_statement_logging()
}

/// The options of the connections that only read.
pub(super) fn reader(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
        .row_buffer_size(1024)
        .thread_name(|n| format!("sqlite-read-{n}"))
        .disable_statement_logging()
}

async fn number(conn: &mut SqliteConnection, text: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query(text).fetch_one(conn).await?.try_get(0)
}

/// Refuses a database of another program or a newer version. Changes nothing.
pub(super) async fn probe(path: &Path) -> Result<(), StoreError> {
    let wrong = |e: sqlx::Error| match sorted(path, &e) {
        StoreError::Corrupt(message) => configuration(message),
        other => other,
    };
    if fs::metadata(path).is_ok_and(|m| m.len() == 0) {
        return Ok(());
    }
    let mut conn = reader(path).connect().await.map_err(wrong)?;
    let id = number(&mut conn, sql::APPLICATION_ID).await.map_err(wrong)?;
    let version = number(&mut conn, sql::USER_VERSION).await.map_err(wrong)?;
    let tables = number(&mut conn, sql::TABLES).await.map_err(wrong)?;
    conn.close().await.map_err(wrong)?;
    let fresh = id == 0 && version == 0 && tables == 0;
    if !fresh && id != i64::from(sql::OURS) {
        return Err(foreign(path));
    }
    let newest = sql::MIGRATIONS.len() as i64;
    if version > newest {
        return Err(configuration(format!(
            "the database {} is of schema version {version}, this wharfinger knows {newest} and older: start the newer \
             wharfinger, or restore a backup of before the upgrade",
            path.display()
        )));
    }
    Ok(())
}

/// Erases the credentials that older versions stored, from the file and its log. If it is interrupted, the next start repeats it,
/// because the version is raised only afterwards.
async fn erase(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query(sql::ZERO_DELETED).execute(&mut *conn).await?;
    for statement in sql::ERASE_CREDENTIALS {
        sqlx::query(statement).execute(&mut *conn).await?;
    }
    sqlx::query(sql::REWRITE).execute(&mut *conn).await?;
    if number(conn, sql::EMPTY_LOG).await? != 0 {
        let why = "another process reads it, so the private keys in its log cannot be erased: end that process, and start again";
        return Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::ResourceBusy, why)));
    }
    tracing::warn!(
        "holder keys that older versions stored are erased from the database: replace each holder_key that was in use"
    );
    Ok(())
}

/// Migrates the schema to this version, in one transaction.
pub(super) async fn migrate(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    if (1..sql::WITHOUT_CREDENTIALS).contains(&number(conn, sql::USER_VERSION).await?) {
        erase(conn).await?;
    }
    sqlx::query(sql::BEGIN).execute(&mut *conn).await?;
    let version = number(conn, sql::USER_VERSION).await?;
    let done = usize::try_from(version).unwrap_or(0);
    for script in sql::MIGRATIONS.iter().copied().skip(done) {
        sqlx::raw_sql(script).execute(&mut *conn).await?;
    }
    if done == 0 {
        sqlx::query(sql::CREATE).bind(i64::from(salt())).execute(&mut *conn).await?;
    }
    sqlx::query(sql::COMMIT).execute(&mut *conn).await?;
    Ok(())
}

/// A number that differs from one database to the next. It need not be secret.
fn salt() -> u16 {
    (random() & 0xffff) as u16
}
