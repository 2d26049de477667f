//! Tests of faults that only a file has.

use super::*;
use crate::store::samples::{RESOURCE_STATES, Samples, event};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row, SqlSafeStr, Statement};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use tempfile::TempDir;
use wharfinger_core::{Ended, Lease, LeaseId, LeaseState, ResourceId, ResourceState, Subject, Timestamp};
use wharfinger_testkit::{Need, need};

fn leases(base: u64, count: u64) -> Batch {
    let mut samples = Samples::new(base + 1);
    let to = base + count;
    Batch {
        base: Revision(base),
        revision: Revision(to),
        leases: (base + 1..=to).map(|n| Arc::new(samples.lease(n % 13, n))).collect(),
        events: (base + 1..=to).map(|n| event(n, Subject::Pool(Arc::from("linux")))).collect(),
        ..Batch::default()
    }
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.db");
    (folder, path)
}

/// The message of a configuration error.
async fn refused(path: &Path) -> String {
    match SqliteStore::open(path).await {
        Err(StoreError::Configuration(message)) => message,
        Err(other) => panic!("expected a configuration error, got {other:?}"),
        Ok(_) => panic!("{} was opened", path.display()),
    }
}

#[tokio::test]
async fn every_statement_prepares() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let mut conn = open::writer(&path).connect().await.unwrap();
    for text in sql::all() {
        for part in text.split("; ") {
            conn.prepare(AssertSqlSafe(part).into_sql_str()).await.unwrap_or_else(|e| panic!("{e}: {part}"));
        }
    }
    for put in [&sql::LEASE_ROWS, &sql::RESOURCE_ROWS, &sql::EVENT_ROWS] {
        for rows in [1, 2, 128] {
            let prepared = conn.prepare(AssertSqlSafe(put.text(rows)).into_sql_str()).await.unwrap();
            assert_eq!(prepared.parameters(), Some(sqlx::Either::Right(rows * put.columns)));
        }
    }
    // Values are bound by position, so the statements name the columns in the order in which a row is written.
    for (text, columns) in [
        (sql::LEASE_ROWS.text(1), crate::store::row::LEASE),
        (sql::RESOURCE_ROWS.text(1), crate::store::row::RESOURCE),
        (sql::EVENT_ROWS.text(1), crate::store::row::EVENT),
        (sql::PUT_POOL.to_owned(), crate::store::row::POOL),
        (sql::PUT_MACHINE.to_owned(), crate::store::row::MACHINE),
        (sql::PUT_SESSION.to_owned(), crate::store::row::SESSION),
    ] {
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        let list = text.split_once(" (").unwrap().1.split_once(')').unwrap().0;
        assert_eq!(list.split(", ").collect::<Vec<_>>(), names);
        let updated: Vec<&str> = text.match_indices(" = excluded.").map(|(at, _)| &text[..at]).collect();
        let updated = updated.iter().map(|before| before.rsplit([' ', ',']).next().unwrap());
        assert!(updated.eq(names[1..].iter().copied().filter(|_| text.contains("excluded"))), "{text}");
    }
    drop(store);
}

#[tokio::test]
async fn no_question_scans_a_table() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let mut conn = open::writer(&path).connect().await.unwrap();
    for text in sql::EVENTS.texts().into_iter().chain([sql::CHANGED_LEASES, sql::CHANGED_RESOURCES]) {
        let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"))).fetch_all(&mut conn).await.unwrap();
        for row in rows {
            let step: String = row.get("detail");
            assert!(step.starts_with("SEARCH") && !step.contains("TEMP B-TREE"), "{step}: {text}");
            // Not by an index with a thousand entries of leases for each own entry.
            assert_eq!(step.contains("_itself"), text.contains(" AND lease IS NULL"), "{step}: {text}");
        }
    }
    drop(store);
}

#[tokio::test]
async fn only_the_owner_can_read_it() {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    store.commit(&leases(0, 3), epoch).await.unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?} has mode {mode:o}", entry.file_name());
    }
    drop(store);
}

#[tokio::test]
async fn a_commit_survives_a_kill() {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    let mut base = 0;
    for count in [1, 64, 300, 7] {
        store.commit(&leases(base, count), epoch).await.unwrap();
        base += count;
    }
    let expected = store.load().await.unwrap();
    assert_eq!(expected.leases.len() as u64, base);
    // The state after a kill: the files as they are, without a close.
    let copy = folder.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    fs::copy(folder.path().join("w.db-wal"), folder.path().join("copy.db-wal")).unwrap();
    let again = SqliteStore::open(&copy).await.unwrap();
    assert_eq!(again.load().await.unwrap(), expected);
    let epoch = again.acquire().await.unwrap();
    again.commit(&leases(base, 5), epoch).await.unwrap();
    assert_eq!(store.load().await.unwrap(), expected, "the original has nothing of it");
}

/// Batches that are small or large, with and without unused places.
#[tokio::test]
async fn batches_of_every_size_hold_what_was_put() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    let (mut base, mut samples) = (0, Samples::new(7));
    let (mut all, mut expected) = (Vec::new(), Vec::new());
    for count in [1_u64, 2, 3, 5, 8, 9, 64, 127, 128, 129, 300] {
        let mut batch = leases(base, count);
        // Some rows are written again, so that each statement inserts and updates.
        batch.leases.extend(all.iter().take(40).map(|old: &Arc<Lease>| {
            Arc::new(Lease { id: old.id, revision: batch.revision, ..samples.lease(base % 13, 1) })
        }));
        let resource = samples.resource(base % RESOURCE_STATES, base + 1);
        batch.resources = vec![Arc::new(wharfinger_core::Resource { revision: batch.revision, ..resource })];
        store.commit(&batch, epoch).await.unwrap();
        all.retain(|old: &Arc<Lease>| batch.leases.iter().all(|new| new.id != old.id));
        all.extend(batch.leases.iter().cloned());
        expected.extend(batch.events);
        base += count;
        let mut stored = store.load().await.unwrap().leases;
        let mut wanted: Vec<Lease> = all.iter().map(|lease| (**lease).clone()).collect();
        stored.sort_by_key(|lease| lease.id);
        wanted.sort_by_key(|lease| lease.id);
        assert!(stored == wanted, "after {count}");
    }
    let told = store.events(&EventQuery { limit: 10_000, ..EventQuery::default() }).await.unwrap();
    let told = told.into_iter().map(|entry| (entry.revision, entry.ordinal));
    assert!(told.eq(expected.iter().map(|event| (event.revision.0, 0))));
}

/// Rows of another server at the same revision conflict with these rows. The error is that another server leads.
#[tokio::test]
async fn rows_of_another_leader_do_not_hide_that_it_leads() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    store.commit(&leases(0, 1), epoch).await.unwrap();
    let mut other = open::writer(&path).connect().await.unwrap();
    for text in [
        "UPDATE meta SET epoch = epoch + 1, revision = 2",
        "INSERT INTO events SELECT 2, ordinal, at, kind, actor, subject, pool, resource, lease, detail, caller FROM events",
    ] {
        sqlx::query(text).execute(&mut other).await.unwrap();
    }
    for rows in [1, 200] {
        let error = store.commit(&leases(1, rows), epoch).await.unwrap_err();
        assert!(matches!(error, CommitError::Deposed { current } if current != epoch), "{rows}: {error:?}");
    }
    let epoch = store.acquire().await.unwrap();
    // Only the former rows conflict now.
    sqlx::query("DELETE FROM events WHERE revision = 2").execute(&mut other).await.unwrap();
    store.commit(&leases(2, 1), epoch).await.unwrap();
}

#[tokio::test]
async fn a_half_written_commit_never_was() {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    store.commit(&leases(0, 20), epoch).await.unwrap();
    let wal = folder.path().join("w.db-wal");
    let whole = fs::metadata(&wal).unwrap().len();
    let before = store.load().await.unwrap();
    store.commit(&leases(20, 20), epoch).await.unwrap();
    let copy = folder.path().join("copy.db");
    let log = fs::read(&wal).unwrap();
    assert!(log.len() as u64 > whole);
    for cut in [log.len() - 1, log.len() - 4096, whole as usize + 1] {
        fs::copy(&path, &copy).unwrap();
        fs::write(folder.path().join("copy.db-wal"), &log[..cut]).unwrap();
        let again = SqliteStore::open(&copy).await.unwrap();
        assert_eq!(again.load().await.unwrap(), before, "cut at {cut} of {}", log.len());
        again.close().await;
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_kept() {
    let (_folder, path) = folder();
    for content in ["[pools]\nname = \"linux\"\n", "x", "SQLite format 2\0 and more of it"] {
        fs::write(&path, content).unwrap();
        let said = refused(&path).await;
        assert!(said.contains("is not a SQLite database") && said.contains(&*path.to_string_lossy()), "{said}");
        assert!(said.contains("name another file"), "{said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[tokio::test]
async fn the_database_of_another_program_is_refused_and_kept() {
    for script in [
        "CREATE TABLE cookies (name TEXT); INSERT INTO cookies VALUES ('a')",
        "CREATE TABLE cookies (name TEXT); PRAGMA application_id = 7",
        "PRAGMA user_version = 3; CREATE TABLE cookies (name TEXT)",
    ] {
        let (_folder, path) = folder();
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut conn = options.connect().await.unwrap();
        conn.execute(script).await.unwrap();
        conn.close().await.unwrap();
        let before = fs::read(&path).unwrap();
        let said = refused(&path).await;
        assert!(said.contains("database of another program"), "{said}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_kept() {
    let (_folder, path) = folder();
    SqliteStore::open(&path).await.unwrap().close().await;
    let mut conn = open::writer(&path).connect().await.unwrap();
    conn.execute("PRAGMA user_version = 99").await.unwrap();
    conn.close().await.unwrap();
    let before = fs::read(&path).unwrap();
    let said = refused(&path).await;
    assert!(said.contains("schema version 99") && said.contains("start the newer wharfinger"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// A database of the first version: its rows are there after the migration, and the new columns can be written.
#[tokio::test]
async fn an_older_database_is_brought_up() {
    let (_folder, path) = folder();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut conn = options.connect().await.unwrap();
    sqlx::raw_sql(sql::MIGRATIONS[0]).execute(&mut conn).await.unwrap();
    let (lease, ready, held) = (LeaseId::new(5), ResourceId::new(6), ResourceId::new(7));
    let rows = format!(
        "INSERT INTO meta VALUES (1, 4, 0, 9000, 7, 3, 0); \
         INSERT INTO leases (id, revision, state, pool, holder, principal, request_id, fingerprint, priority, ttl_ms, \
         group_index, independent, successor, created_at, seq, attempts, delays, ended_at, ended) VALUES ('{lease}', 2, \
         'RELEASED', 'p', 'ci', 'local', 'r', 1, 0, 60000, 0, 0, 0, 1000, 1, 0, 0, 2000, \
         '{{\"outcome\":\"FAILED\",\"note\":\"exit 1\"}}'); \
         INSERT INTO resources (id, revision, state, pool, labels, slots, created_at, uses) VALUES ('{ready}', 3, \
         'READY', 'p', '{{\"arch\":\"arm64\"}}', 1, 1000, 4); \
         INSERT INTO resources (id, revision, state, pool, slots, created_at, uses, since, detail) VALUES ('{held}', 4, \
         'QUARANTINED', 'p', 1, 1000, 4, 1500, '{{\"by\":\"ann\",\"reason\":\"triage\"}}')"
    );
    sqlx::raw_sql(AssertSqlSafe(rows).into_sql_str()).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();

    let store = SqliteStore::open(&path).await.unwrap();
    let found = store.load().await.unwrap();
    assert_eq!((found.revision, found.salt, found.now), (Revision(4), 7, Timestamp(9000)));
    let [old] = &found.leases[..] else { panic!("{found:?}") };
    assert_eq!((old.id, old.spec.work.clone()), (lease, None));
    let LeaseState::Ended { how: Ended::Released { note, finding, .. }, .. } = &old.state else { panic!("{old:?}") };
    assert_eq!((&**note, finding), ("exit 1", &None));
    let resource = |id| found.resources.iter().find(|row| row.id == id).unwrap();
    assert_eq!(resource(ready).found.get("arch").map(|value| &**value), Some("arm64"), "labels found are not lost");
    assert_eq!(resource(ready).labels, resource(ready).found);
    assert_eq!((&resource(ready).at_risk, &resource(ready).hold), (&None, &None));
    assert!(resource(ready).failures.is_empty());
    let ResourceState::Quarantined { cordon, until, .. } = &resource(held).state else { panic!("{found:?}") };
    assert_eq!((&*cordon.by, *until), ("ann", None));

    let epoch = store.acquire().await.unwrap();
    let mut batch = leases(4, 13);
    let mut samples = Samples::new(1);
    batch.resources = (5..=17).map(|n| Arc::new(samples.resource(n % RESOURCE_STATES, n))).collect();
    store.commit(&batch, epoch).await.unwrap();
    store.close().await;
    drop(store);
    let again = SqliteStore::open(&path).await.unwrap().load().await.unwrap();
    assert!(batch.leases.iter().all(|lease| again.leases.contains(lease)));
    assert!(batch.resources.iter().all(|resource| again.resources.contains(resource)));
}

const KEY: &str = "PRIVATE-KEY-a61f";

/// Whether any file of the folder has the key.
fn holds_key(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = match fs::read(entry.unwrap().path()) {
            // SQLite removes its log and its index when the last connection ends.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return false,
            read => read.unwrap(),
        };
        bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes())
    })
}

/// A database of version 3 after a kill: a lease with a key, deleted rows with keys, and a log. Returns the id of the lease.
async fn with_keys(path: &Path) -> LeaseId {
    let made = tempfile::tempdir().unwrap();
    let first = made.path().join("w.db");
    fs::write(&first, "").unwrap();
    let mut conn = open::writer(&first).connect().await.unwrap();
    for script in &sql::MIGRATIONS[..3] {
        sqlx::raw_sql(*script).execute(&mut conn).await.unwrap();
    }
    sqlx::query(sql::CREATE).bind(7).execute(&mut conn).await.unwrap();
    let (id, host) = (LeaseId::new(5), ResourceId::new(6));
    let lease = |id: LeaseId, n: u128| {
        format!(
            "INSERT INTO leases (id, revision, state, pool, holder, principal, request_id, fingerprint, priority, ttl_ms, \
             group_index, independent, successor, created_at, seq, attempts, delays, resource, slot, token, since, access) \
             VALUES ('{id}', {n}, 'ACTIVE', 'p', 'ci', 'local', 'r{n}', 1, 0, 60000, 0, 0, 0, 1000, {n}, 0, 0, \
             '{host}', 0, {n}, 1500, '{{\"address\":\"10.0.0.1\",\"private_key\":\"{}{n}\"}}');",
            KEY.repeat(50)
        )
    };
    let mut rows = lease(id, 1);
    for n in 2..=60 {
        rows += &lease(LeaseId::new(n + 10), n);
    }
    rows += &format!("UPDATE meta SET revision = 60; DELETE FROM leases WHERE id <> '{id}';");
    rows += "PRAGMA wal_checkpoint(PASSIVE); UPDATE leases SET revision = 60;";
    sqlx::raw_sql(AssertSqlSafe(rows).into_sql_str()).execute(&mut conn).await.unwrap();
    for file in ["w.db", "w.db-wal"] {
        fs::copy(made.path().join(file), path.parent().unwrap().join(file)).unwrap();
    }
    conn.close().await.unwrap();
    id
}

#[tokio::test]
async fn keys_that_an_older_version_stored_are_erased_from_each_file_of_the_database() {
    let (folder, path) = folder();
    let id = with_keys(&path).await;
    assert!(holds_key(folder.path()));

    let store = SqliteStore::open(&path).await.unwrap();
    assert!(!holds_key(folder.path()), "also while it is open");
    let found = store.load().await.unwrap();
    let [lease] = &found.leases[..] else { panic!("{found:?}") };
    let LeaseState::Active { access, .. } = &lease.state else { panic!("{lease:?}") };
    assert_eq!((lease.id, access.keys().map(|key| &**key).collect::<Vec<_>>()), (id, vec!["address"]));
    store.close().await;
    assert!(!holds_key(folder.path()));
}

/// The version is raised only after the keys are erased from the log too.
#[tokio::test]
async fn keys_that_a_reader_keeps_in_the_log_are_erased_at_the_next_start() {
    let (folder, path) = folder();
    with_keys(&path).await;
    let mut reader = open::reader(&path).connect().await.unwrap();
    reader.execute("BEGIN; SELECT count(*) FROM leases").await.unwrap();
    let error = match SqliteStore::open(&path).await {
        Err(error @ StoreError::Unavailable(_)) => error.to_string(),
        other => panic!("{:?}", other.map(drop)),
    };
    assert!(error.contains("private keys") && error.contains("end that process"), "{error}");
    assert!(holds_key(folder.path()));
    reader.close().await.unwrap();
    SqliteStore::open(&path).await.unwrap();
    assert!(!holds_key(folder.path()));
}

#[tokio::test]
async fn a_path_that_leads_nowhere_is_refused() {
    let (folder, path) = folder();
    let said = refused(&folder.path().join("no/such/w.db")).await;
    assert!(said.contains("there is no folder") && said.contains("create it"), "{said}");
    let said = refused(folder.path()).await;
    assert!(said.contains("is a folder"), "{said}");
    fs::write(&path, "").unwrap();
    let said = refused(&path.join("w.db")).await;
    assert!(said.contains("leads through a file"), "{said}");
    SqliteStore::open(&path).await.expect("an empty file is a new database");
}

#[tokio::test]
async fn a_second_server_is_refused() {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let link = folder.path().join("other-name.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for name in [&path, &link] {
        let said = refused(name).await;
        assert!(said.contains(&format!("(pid {})", std::process::id())), "{said}");
        assert!(said.contains("another wharfinger serves the database"), "{said}");
    }
    let epoch = store.acquire().await.unwrap();
    store.commit(&leases(0, 1), epoch).await.expect("the first is not disturbed");
    store.close().await;
    drop(store);
    SqliteStore::open(&link).await.expect("free again");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    let batch = leases(0, 3);
    store.commit(&batch, epoch).await.unwrap();
    let mut conn = open::writer(&path).connect().await.unwrap();
    let id = batch.leases[1].id.to_string();
    sqlx::query("UPDATE leases SET state = 'DREAMING' WHERE id = ?").bind(&id).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    match store.load().await {
        Err(StoreError::Corrupt(said)) => assert!(said.contains(&format!("row {id}, column state")), "{said}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_foreign_lock_is_waited_for() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    let mut shell = open::writer(&path).connect().await.unwrap();
    shell.execute("BEGIN IMMEDIATE").await.unwrap();
    let other = store.clone();
    let commit = tokio::spawn(async move { other.commit(&leases(0, 1), epoch).await });
    // It has the connection that writes, and waits for the lock.
    while store.inner.writer.try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!commit.is_finished());
    shell.execute("ROLLBACK").await.unwrap();
    commit.await.unwrap().unwrap();
}

/// A commit whose fsync failed may be in the log without being valid, and be valid after a crash. Another write overwrites it before
/// the next read.
#[tokio::test]
async fn a_commit_in_doubt_is_settled_before_a_load() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    store.commit(&leases(0, 3), epoch).await.unwrap();
    let settled = async || {
        let mut conn = open::reader(&path).connect().await.unwrap();
        sqlx::query("SELECT settled FROM meta").fetch_one(&mut conn).await.unwrap().get::<i64, _>(0)
    };
    store.load().await.unwrap();
    assert_eq!(settled().await, 0);
    {
        let mut writer = store.inner.writer.lock().await;
        writer.in_doubt = true;
        writer.close().await;
    }
    store.load().await.unwrap();
    assert_eq!(settled().await, 1);
    store.load().await.unwrap();
    assert_eq!(settled().await, 1, "once is enough");
    store.commit(&leases(3, 1), epoch).await.unwrap();
}

/// Commits go on while the log is moved, the size of the log has a limit, and readers see only whole commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_moved_beside_the_commits() {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    let reader = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut last = 0;
            while last < 40_000 {
                let page = store.changes_since(Revision(last), 500).await.unwrap();
                let told = page.leases.len() as u64;
                assert_eq!(told, page.revision.0 - last, "a gap after {last}");
                last = page.revision.0;
                if told == 0 {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
        })
    };
    let mut base = 0;
    while base < 40_000 {
        store.commit(&leases(base, 250), epoch).await.unwrap();
        base += 250;
    }
    reader.await.unwrap();
    let log = fs::metadata(folder.path().join("w.db-wal")).unwrap().len();
    let data = fs::metadata(&path).unwrap().len();
    assert!(data > 10 << 20, "the database has {data} bytes");
    assert!(log < 3 * data, "the log has {log} bytes, the database {data}");
    store.close().await;
    let again = SqliteStore::open(&path).await;
    assert!(matches!(again, Err(StoreError::Configuration(_))), "the lock lives as long as the store");
}

/// A small file system; `None` if this user may not mount one.
struct Mount(TempDir);

impl Mount {
    fn new(size: &str) -> Option<Mount> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        need(Need::Root, mounted.is_ok_and(|output| output.status.success()).then(|| Mount(folder)))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, since the connection's thread may still be closing the file.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_heals() {
    let Some(mount) = Mount::new("3m") else { return };
    let path = mount.0.path().join("w.db");
    let ballast = mount.0.path().join("ballast");
    fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    let mut base = 0;
    let error = loop {
        match store.commit(&leases(base, 50), epoch).await {
            Ok(()) => base += 50,
            Err(error) => break error,
        }
        assert!(base < 100_000, "the disk never filled");
    };
    let (CommitError::NotCommitted(why) | CommitError::InDoubt(why)) = error else { panic!("{error:?}") };
    assert!(matches!(why, StoreError::Unavailable(_)), "{why:?}");
    assert!(why.to_string().contains("no space left"), "{why}");

    fs::remove_file(&ballast).unwrap();
    let found = store.load().await.unwrap();
    assert_eq!((found.revision, found.leases.len() as u64), (Revision(base), base), "all that was acknowledged");
    store.commit(&leases(base, 50), epoch).await.expect("there is space again");
    assert_eq!(store.load().await.unwrap().leases.len() as u64, base + 50);
    store.close().await;
}

#[tokio::test]
async fn a_full_disk_at_the_start_is_unavailable() {
    let Some(mount) = Mount::new("64k") else { return };
    // Leaves less than one page.
    let _ = fs::write(mount.0.path().join("ballast"), vec![1; 1 << 20]);
    match SqliteStore::open(&mount.0.path().join("w.db")).await {
        Err(StoreError::Unavailable(why)) => assert!(why.contains("space") || why.contains("cannot be"), "{why}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened without space"),
    }
}

#[tokio::test]
async fn a_read_only_file_system_is_unavailable() {
    let Some(mount) = Mount::new("8m") else { return };
    let path = mount.0.path().join("w.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.close().await;
    drop(store);
    mount.remount("ro");
    match SqliteStore::open(&path).await {
        Err(StoreError::Unavailable(why)) => assert!(why.contains("read-only"), "{why}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened a read-only file"),
    }
}

/// The columns that operators query have the names of the documentation.
#[tokio::test]
async fn an_operator_can_ask() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    let batch = leases(0, 13);
    store.commit(&batch, epoch).await.unwrap();
    let mut conn = open::reader(&path).connect().await.unwrap();
    let active: &Lease = batch.leases.iter().find(|lease| lease.assignment().is_some() && !lease.ended()).unwrap();
    let row = sqlx::query("SELECT state, holder, resource FROM leases WHERE id = ?")
        .bind(active.id.to_string())
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(row.get::<&str, _>("holder"), &*active.spec.holder);
    assert_eq!(row.get::<&str, _>("resource"), active.assignment().unwrap().resource.to_string());
    assert!(["PREPARING", "ACTIVE"].contains(&row.get::<&str, _>("state")));
}
