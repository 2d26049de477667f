//! Tests of faults that only a remote database has.

use super::commit_sql::Parts;
use super::testing::proxy::{Mode, Proxy};
use super::testing::server::{Cluster, PASSWORD, schema};
use super::testing::{of, settings, shared};
use super::*;
use crate::store::samples::{Samples, event};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor, Row, SqlSafeStr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use wharfinger_core::Subject;
use wharfinger_testkit::{Need, need};

/// One batch of leases, resources and entries.
fn batch(base: u64, count: u64) -> Batch {
    let mut samples = Samples::new(base + 1);
    let to = base + count;
    Batch {
        base: Revision(base),
        revision: Revision(to),
        leases: (base + 1..=to).map(|n| Arc::new(samples.lease(n % 13, n))).collect(),
        resources: (base + 1..=to).map(|n| Arc::new(samples.resource(n % 9, n))).collect(),
        events: (base + 1..=to).map(|n| event(n, Subject::Pool(Arc::from("linux")))).collect(),
        ..Batch::default()
    }
}

/// A store in a new schema.
async fn fresh() -> Option<(PostgresSettings, PostgresStore)> {
    let settings = settings().await?;
    let store = PostgresStore::open(&settings).await.unwrap();
    Some((settings, store))
}

async fn session(settings: &PostgresSettings) -> PgConnection {
    Database::new(settings.clone()).unwrap().connect(Purpose::Read).await.unwrap()
}

/// The message of a configuration error.
async fn refused(settings: &PostgresSettings) -> String {
    match PostgresStore::open(settings).await {
        Err(StoreError::Configuration(message)) => message,
        Err(other) => panic!("expected a configuration error, got {other:?}"),
        Ok(_) => panic!("{settings} was opened"),
    }
}

async fn unavailable(settings: &PostgresSettings) -> String {
    match PostgresStore::open(settings).await {
        Err(StoreError::Unavailable(message)) => message,
        Err(other) => panic!("expected that it does not answer, got {other:?}"),
        Ok(_) => panic!("{settings} was opened"),
    }
}

/// Leases and resources, by id.
async fn content(store: &PostgresStore) -> (u64, usize, usize) {
    let found = store.load().await.unwrap();
    (found.revision.0, found.leases.len(), found.resources.len())
}

#[tokio::test]
async fn every_statement_prepares() {
    let Some((settings, _store)) = fresh().await else { return };
    let mut conn = session(&settings).await;
    for text in sql::all() {
        let prepared = conn.prepare(AssertSqlSafe(text.clone()).into_sql_str()).await;
        prepared.unwrap_or_else(|e| panic!("{e}: {text}"));
    }
    // The migrations make the columns that the tables of `row` declare, with the same types.
    use crate::store::row::{EVENT, LEASE, MACHINE, POOL, RESOURCE, SESSION};
    for (table, columns) in [
        ("leases", LEASE),
        ("resources", RESOURCE),
        ("pools", POOL),
        ("machines", MACHINE),
        ("sessions", SESSION),
        ("events", EVENT),
    ] {
        let rows = sqlx::query(
            "SELECT column_name::text, data_type::text FROM information_schema.columns WHERE table_schema = $1 AND \
             table_name = $2",
        )
        .bind(&settings.schema)
        .bind(table)
        .fetch_all(&mut conn)
        .await
        .unwrap();
        assert_eq!(rows.len(), columns.len(), "{table}");
        for row in rows {
            let (name, sql): (String, String) = (row.get(0), row.get(1));
            let column = columns.iter().find(|column| column.name == name);
            let column = column.unwrap_or_else(|| panic!("{table}.{name} is not declared"));
            assert_eq!(rows::type_of(column.sql), sql, "{table}.{name}");
        }
    }
}

#[tokio::test]
async fn no_question_scans_a_table() {
    let Some((settings, store)) = fresh().await else { return };
    let epoch = store.acquire().await.unwrap();
    store.commit(&batch(0, 50), epoch).await.unwrap();
    let mut conn = session(&settings).await;
    // The planner would scan a table of fifty rows, so scans are switched off.
    conn.execute("SET enable_seqscan = off; SET enable_bitmapscan = off").await.unwrap();
    for text in sql::EVENTS.texts().into_iter().chain([sql::CHANGED_LEASES, sql::CHANGED_RESOURCES]) {
        let arguments = if text.contains("$6") { "(1, 'p', 'r', 'l', 10, 99)" } else { "(1, 99, 10)" };
        let asked = format!("PREPARE asked AS {text}; EXPLAIN EXECUTE asked {arguments}; DEALLOCATE asked");
        let mut plan = String::new();
        for row in sqlx::raw_sql(AssertSqlSafe(asked)).fetch_all(&mut conn).await.unwrap() {
            plan.push_str(row.get::<&str, _>(0));
            plan.push('\n');
        }
        assert!(plan.contains("Index Scan") && !plan.contains("Seq Scan") && !plan.contains("Sort"), "{plan}{text}");
        assert_eq!(plan.contains("_itself"), text.contains(" AND lease IS NULL"), "{plan}{text}");
    }
}

/// A plan that is made while a table is empty stays while the table grows, so it must use the indexes.
#[tokio::test]
async fn no_commit_scans_a_table_nor_compiles_a_plan() {
    let Some((settings, _store)) = fresh().await else { return };
    let mut conn = session(&settings).await;
    let commit = Parts::ALL.text();
    let arrays = commit.matches("[]").count();
    let arguments = vec!["'{}'"; arrays];
    // The statement names the arrays of forgotten rows more than once.
    let named = (1..).take_while(|n| commit.contains(&format!("${n}"))).count();
    let arguments = format!("1, 0, 0, 0, 1, 0, 1, {}", arguments[..named - 7].join(", "));
    let asked = format!("PREPARE asked AS {}; EXPLAIN (ANALYZE) EXECUTE asked ({arguments})", commit);
    let mut plan = String::new();
    for row in sqlx::raw_sql(AssertSqlSafe(asked)).fetch_all(&mut conn).await.unwrap() {
        plan.push_str(row.get::<&str, _>(0));
        plan.push('\n');
    }
    for table in ["leases", "resources", "pools", "machines", "sessions", "events", "forgotten"] {
        assert!(plan.contains(&format!(" on {table}")), "{table}: {plan}");
        assert!(!plan.contains(&format!("Seq Scan on {table}")), "{table}: {plan}");
    }
    assert!(plan.contains("Execution Time") && !plan.contains("JIT"), "{plan}");
}

#[tokio::test]
async fn many_servers_may_start_at_once() {
    let Some(settings) = settings().await else { return };
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let settings = settings.clone();
        starts.spawn(async move { PostgresStore::open(&settings).await.map(drop) });
    }
    while let Some(done) = starts.join_next().await {
        done.unwrap().unwrap();
    }
    let store = PostgresStore::open(&settings).await.unwrap();
    assert_eq!(store.acquire().await.unwrap(), Epoch(1), "none of them made it anew");
}

#[tokio::test]
async fn the_schema_of_another_program_is_refused_and_kept() {
    let (Some(cluster), Some(settings)) = (shared().await, settings().await) else { return };
    let name = &settings.schema;
    let made = format!("CREATE SCHEMA {name} AUTHORIZATION wharfinger; CREATE TABLE {name}.cookies (name text)");
    cluster.sql("wharf", &made);
    let said = refused(&settings).await;
    assert!(said.contains("tables of another program") && said.contains("another `schema`"), "{said}");
    let tables = format!("SELECT count(*) FROM pg_tables WHERE schemaname = '{name}'");
    assert_eq!(cluster.sql("wharf", &tables), "1");
}

#[tokio::test]
async fn a_schema_of_a_newer_version_is_refused() {
    let Some((settings, store)) = fresh().await else { return };
    store.close().await;
    session(&settings).await.execute("UPDATE wharfinger_schema SET version = 99").await.unwrap();
    let said = refused(&settings).await;
    assert!(said.contains("is of version 99") && said.contains("start the newer wharfinger"), "{said}");
}

/// A schema of version 3: a lease with its holder's key, and former versions of its row.
#[tokio::test]
async fn keys_that_an_older_version_stored_are_erased_and_the_table_is_written_anew() {
    let Some(settings) = settings().await else { return };
    let mut conn = session(&settings).await;
    let (schema, lease) = (&settings.schema, wharfinger_core::LeaseId::new(5));
    let mut script = format!("CREATE SCHEMA {schema};");
    for part in &sql::MIGRATIONS[..3] {
        script += part;
    }
    script += &format!(
        "{}; INSERT INTO wharfinger_schema (version) VALUES (3); \
         INSERT INTO meta (one, revision, floor, now_ms, salt, epoch, settled, batch) VALUES (1, 1, 0, 0, 7, 0, 0, 0); \
         INSERT INTO leases (id, revision, state, pool, holder, principal, request_id, fingerprint, priority, ttl_ms, \
         group_index, independent, successor, created_at, seq, attempts, delays, resource, slot, token, since, access) \
         VALUES ('{lease}', 1, 'ACTIVE', 'p', 'ci', 'local', 'r', 1, 0, 60000, 0, 0, 0, 1000, 1, 0, 0, '{host}', 0, 1, \
         1500, '{{\"address\":\"10.0.0.1\",\"private_key\":\"PRIVATE-KEY-a61f\"}}');",
        sql::CREATE_VERSION,
        host = wharfinger_core::ResourceId::new(6)
    );
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut conn).await.unwrap();
    let file = async |conn: &mut PgConnection| -> String {
        conn.fetch_one("SELECT pg_relation_filepath('leases')").await.unwrap().get(0)
    };
    let before = file(&mut conn).await;

    let store = PostgresStore::open(&settings).await.unwrap();
    let found = store.load().await.unwrap();
    assert_eq!((found.leases.len(), found.leases[0].id), (1, lease));
    let access: String = conn.fetch_one("SELECT access FROM leases").await.unwrap().get(0);
    assert!(access.contains("10.0.0.1") && !access.contains("private_key"), "{access}");
    assert_ne!(before, file(&mut conn).await, "former versions of the row are gone with the former file");
}

#[tokio::test]
async fn a_user_without_the_right_to_make_a_schema_gets_the_missing_grant() {
    let Some(cluster) = shared().await else { return };
    let own = schema();
    cluster.sql("wharf", &format!("CREATE ROLE {own}_poor LOGIN"));
    let url = cluster.socket_url().replace("postgres@", &format!("{own}_poor@"));
    let said = refused(&of(url.clone())).await;
    assert!(said.contains("needs CONNECT and CREATE on the database"), "{said}");
    // A schema of its own is enough.
    cluster.sql("wharf", &format!("CREATE SCHEMA {own} AUTHORIZATION {own}_poor"));
    let settings = PostgresSettings { schema: own, ..of(url) };
    let store = PostgresStore::open(&settings).await.unwrap();
    store.acquire().await.unwrap();
}

#[tokio::test]
async fn a_fault_of_the_connection_is_reported_without_the_password() {
    let Some(cluster) = shared().await else { return };
    let tcp = |user: &str, database: &str, more: &str| {
        of(format!("postgres://{user}@127.0.0.1:{}/{database}?sslmode=require{more}", cluster.port()))
    };
    let said = refused(&tcp("wharfinger:geheim", "wharf", "")).await;
    assert!(said.contains("does not let this user in") && said.contains("28P01"), "{said}");
    assert!(!said.contains("geheim"), "{said}");
    let said = refused(&tcp("wharfinger", "wharf", "")).await;
    assert!(said.contains("does not let this user in"), "{said}");
    let all = of(cluster.url().replace("/wharf?", "/nowhere?"));
    let said = refused(&all).await;
    assert!(said.contains("is not there: create it") && !said.contains("p%40ss"), "{said}");

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    let deaf = PostgresSettings {
        connect_timeout: Duration::from_millis(300),
        ..of(format!("postgres://w:geheim@127.0.0.1:{port}/w"))
    };
    let said = unavailable(&deaf).await;
    assert!(said.contains("accepted no connection within 300ms"), "{said}");
    drop(nobody);
    let said = unavailable(&deaf).await;
    assert!(said.contains("does not answer") && !said.contains("geheim"), "{said}");
}

#[tokio::test]
async fn the_password_may_come_from_a_file_and_change() {
    let Some(cluster) = shared().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let url = format!("postgres://wharfinger@127.0.0.1:{}/wharf?sslmode=require", cluster.port());
    let settings = PostgresSettings { password_file: Some(file.clone()), ..of(url) };
    let said = refused(&settings).await;
    assert!(said.contains(&*file.to_string_lossy()) && said.contains("cannot be read"), "{said}");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let store = PostgresStore::open(&settings).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    std::fs::write(&file, "another").unwrap();
    store.commit(&batch(0, 1), epoch).await.expect("who is in stays in");
    let said = store.load().await.unwrap_err().to_string();
    assert!(said.contains("28P01") && !said.contains("another"), "a new connection reads it anew: {said}");
}

#[tokio::test]
async fn tls_is_checked_as_far_as_asked() {
    let Some(cluster) = shared().await else { return };
    let with = |mode: &str, ca: &str| {
        let url = cluster.url().replace("sslmode=require", &format!("sslmode={mode}"));
        of(format!("{url}&sslrootcert={}/{ca}.crt", cluster.folder().display()))
    };
    let settings = with("verify-full", "ca");
    PostgresStore::open(&settings).await.unwrap();
    let ssl = sqlx::query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    assert!(ssl.fetch_one(&mut session(&settings).await).await.unwrap().get::<bool, _>(0));
    for mode in ["verify-full", "verify-ca"] {
        let said = refused(&with(mode, "other")).await;
        assert!(said.contains("no TLS with the database") && said.contains("sslrootcert"), "{said}");
    }
    // The certificate is for 127.0.0.1.
    let mut elsewhere = with("verify-full", "ca");
    elsewhere.url = elsewhere.url.replace("127.0.0.1", "localhost");
    let said = refused(&elsewhere).await;
    assert!(said.contains("no TLS with the database"), "{said}");
}

#[tokio::test]
async fn a_database_that_can_only_be_read_is_named_as_that() {
    let Some(cluster) = shared().await else { return };
    let own = schema();
    cluster.sql(
        "wharf",
        &format!("CREATE ROLE {own}_ro LOGIN SUPERUSER; ALTER ROLE {own}_ro SET default_transaction_read_only = on"),
    );
    let said = unavailable(&of(cluster.socket_url().replace("postgres@", &format!("{own}_ro@")))).await;
    assert!(said.contains("can only be read"), "{said}");
}

#[tokio::test]
async fn an_acknowledged_commit_is_on_the_disk_also_with_a_lax_role() {
    let Some(cluster) = shared().await else { return };
    let own = schema();
    cluster.sql(
        "wharf",
        &format!("CREATE ROLE {own}_fast LOGIN SUPERUSER; ALTER ROLE {own}_fast SET synchronous_commit = off"),
    );
    cluster.sql("wharf", &format!("ALTER ROLE {own}_fast SET default_transaction_isolation = 'serializable'"));
    let settings = of(cluster.socket_url().replace("postgres@", &format!("{own}_fast@")));
    let mut conn = session(&settings).await;
    for (what, value) in [("synchronous_commit", "on"), ("default_transaction_isolation", "read committed")] {
        let row = sqlx::query("SELECT current_setting($1)").bind(what).fetch_one(&mut conn).await.unwrap();
        assert_eq!(row.get::<&str, _>(0), value, "{what}");
    }
}

/// Two servers on one schema: the later one leads, and the next commit of the other one is refused.
#[tokio::test]
async fn a_second_server_deposes_the_first() {
    let Some((settings, first)) = fresh().await else { return };
    let old = first.acquire().await.unwrap();
    first.commit(&batch(0, 3), old).await.unwrap();
    let second = PostgresStore::open(&settings).await.unwrap();
    let new = second.acquire().await.unwrap();
    let before = content(&second).await;
    for _ in 0..2 {
        let refused = first.commit(&batch(3, 1), old).await;
        assert!(matches!(refused, Err(CommitError::Deposed { current }) if current == new), "{refused:?}");
    }
    assert_eq!(content(&first).await, before);
    second.commit(&batch(3, 1), new).await.unwrap();
}

/// A commit waits for the row during a take-over. It then compares the new epoch.
#[tokio::test]
async fn a_commit_that_waited_through_a_takeover_is_refused() {
    let Some((settings, store)) = fresh().await else { return };
    let old = store.acquire().await.unwrap();
    store.commit(&batch(0, 1), old).await.unwrap();
    let mut other = session(&settings).await;
    other.execute("BEGIN; UPDATE meta SET epoch = epoch + 1").await.unwrap();
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move { store.commit(&batch(1, 1), old).await })
    };
    let mut asked = session(&settings).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'WITH advance%' \
                 AND $1 = ANY (pg_blocking_pids(pid))";
    let own = sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut other).await.unwrap().get::<i32, _>(0);
    eventually(async || sqlx::query(waits).bind(own).fetch_one(&mut asked).await.unwrap().get::<i64, _>(0) == 1).await;
    other.execute("COMMIT").await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(CommitError::Deposed { current }) if current.0 == old.0 + 1));
    assert_eq!(content(&store).await, (1, 1, 1));
}

async fn eventually(mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_owner_of_a_lock_is_named_and_waited_for() {
    let Some((settings, _)) = fresh().await else { return };
    let quick = PostgresSettings { statement_timeout: Duration::from_millis(600), ..settings.clone() };
    let store = PostgresStore::open(&quick).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    let mut shell = session(&settings).await;
    shell.execute("BEGIN; SELECT * FROM meta FOR UPDATE").await.unwrap();
    match store.commit(&batch(0, 1), epoch).await {
        Err(CommitError::NotCommitted(StoreError::Unavailable(said))) => {
            assert!(said.contains("shell with an open transaction") && said.contains("55P03"), "{said}");
        }
        other => panic!("{other:?}"),
    }
    shell.execute("ROLLBACK").await.unwrap();
    store.commit(&batch(0, 1), epoch).await.unwrap();
}

/// An administrator, a pooler or a firewall ends idle connections. No call fails.
#[tokio::test]
async fn idle_connections_may_be_ended() {
    let (Some(cluster), Some((_, store))) = (shared().await, fresh().await) else { return };
    let epoch = store.acquire().await.unwrap();
    let mut base = 0;
    for _ in 0..3 {
        store.commit(&batch(base, 2), epoch).await.unwrap();
        base += 2;
        let changes = store.changes_since(Revision(0), 100).await.unwrap();
        assert_eq!(changes.revision.0, base);
        let mut pids = store.inner.readers.pids().await;
        pids.push(store.inner.writer.lock().await.pid().await);
        for pid in pids {
            cluster.sql("wharf", &format!("SELECT pg_terminate_backend({pid}, 10000)"));
        }
    }
    assert_eq!(content(&store).await, (base, base as usize, base as usize));
    assert_eq!(store.changes_since(Revision(0), 100).await.unwrap().revision.0, base);
}

/// A store behind a proxy, with the times of a test.
async fn behind_a_proxy(patience: Duration) -> Option<(Proxy, PostgresSettings, PostgresStore)> {
    let cluster = shared().await?;
    let proxy = Proxy::start(cluster.port());
    let direct = of(cluster.url());
    let through = PostgresSettings {
        url: direct.url.replace(&format!(":{}/", cluster.port()), &format!(":{}/", proxy.port())),
        connect_timeout: patience,
        statement_timeout: patience,
        ..direct.clone()
    };
    PostgresStore::open(&direct).await.unwrap();
    let store = PostgresStore::open(&through).await.unwrap();
    Some((proxy, direct, store))
}

/// The connection breaks after the commit and before its answer. The commit is found and not repeated.
#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found() {
    let Some((proxy, direct, store)) = behind_a_proxy(Duration::from_secs(30)).await else { return };
    let other = PostgresStore::open(&direct).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    store.commit(&batch(0, 2), epoch).await.unwrap();
    proxy.set(Mode::HoldReplies);
    let commit = {
        let store = store.clone();
        tokio::spawn(async move { store.commit(&batch(2, 3), epoch).await })
    };
    eventually(async || content(&other).await.0 == 5).await;
    assert!(!commit.is_finished(), "it has no answer yet");
    proxy.cut_and(Mode::Pass);
    commit.await.unwrap().expect("it is stored, and that is what is said");
    assert_eq!(content(&other).await, (5, 5, 5));
    let events = other.events(&EventQuery { limit: 100, ..EventQuery::default() }).await.unwrap();
    assert_eq!(events.len(), 5, "once");
    store.commit(&batch(5, 1), epoch).await.expect("and it goes on");
}

/// The connection breaks before the database has received the commit. It is sent again.
#[tokio::test]
async fn a_commit_that_never_arrived_is_sent_again() {
    let Some((proxy, direct, store)) = behind_a_proxy(Duration::from_secs(30)).await else { return };
    let epoch = store.acquire().await.unwrap();
    store.commit(&batch(0, 2), epoch).await.unwrap();
    proxy.set(Mode::HoldRequests);
    let before = proxy.requests();
    let commit = {
        let store = store.clone();
        tokio::spawn(async move { store.commit(&batch(2, 3), epoch).await })
    };
    eventually(async || proxy.requests() > before).await;
    // Closed on both sides: the held bytes are lost.
    proxy.cut_and(Mode::Pass);
    commit.await.unwrap().unwrap();
    let other = PostgresStore::open(&direct).await.unwrap();
    assert_eq!(content(&other).await, (5, 5, 5));
    assert_eq!(other.events(&EventQuery { limit: 100, ..EventQuery::default() }).await.unwrap().len(), 5, "once");
}

/// A commit that was dropped under way must not become valid later, after others have read the store.
#[tokio::test]
async fn a_commit_that_arrives_late_is_refused() {
    let Some((proxy, direct, store)) = behind_a_proxy(Duration::from_secs(30)).await else { return };
    let other = PostgresStore::open(&direct).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    store.commit(&batch(0, 2), epoch).await.unwrap();
    proxy.set(Mode::HoldRequests);
    let before = proxy.requests();
    {
        let late = batch(2, 3);
        let mut commit = store.commit(&late, epoch);
        // The commit is dropped when it is under way, as by a caller that gives up.
        while proxy.requests() == before {
            assert!(futures::poll!(&mut commit).is_pending());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let direct_writer = {
        // The same server over another connection: it ends the doubt, as a load does, and goes on.
        let mut writer = store.inner.writer.lock().await;
        assert!(writer.in_doubt());
        writer.move_to(Arc::new(Database::new(direct.clone()).unwrap()));
        writer.settle().await.unwrap();
        drop(writer);
        store.clone()
    };
    assert_eq!(content(&other).await.0, 2);
    // Now it arrives.
    let replies = proxy.replies();
    proxy.set(Mode::Pass);
    eventually(async || proxy.replies() > replies).await;
    assert_eq!(content(&other).await, (2, 2, 2), "it was settled that it is not there");
    direct_writer.commit(&batch(2, 1), epoch).await.unwrap();
    assert_eq!(content(&other).await, (3, 3, 3));
}

/// The database is unavailable for longer than the limit of a commit. The commit is then in doubt, and the next load ends the doubt.
#[tokio::test]
async fn a_doubt_that_lasts_is_reported_and_settled_by_the_load() {
    let Some((proxy, direct, store)) = behind_a_proxy(Duration::from_millis(700)).await else { return };
    let other = PostgresStore::open(&direct).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    store.commit(&batch(0, 2), epoch).await.unwrap();
    proxy.set(Mode::HoldReplies);
    let commit = {
        let store = store.clone();
        tokio::spawn(async move { store.commit(&batch(2, 3), epoch).await })
    };
    eventually(async || content(&other).await.0 == 5).await;
    proxy.cut_and(Mode::Refuse);
    let start = Instant::now();
    let said = commit.await.unwrap();
    assert!(matches!(said, Err(CommitError::InDoubt(StoreError::Unavailable(_)))), "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "it is told, and not waited for: {:?}", start.elapsed());
    assert!(matches!(store.load().await, Err(StoreError::Unavailable(_))), "nobody knows yet");
    proxy.set(Mode::Pass);
    assert_eq!(content(&store).await, (5, 5, 5), "it was stored");
    store.commit(&batch(5, 1), epoch).await.unwrap();
}

/// A database that hangs (a dead network, a stopped process) leads to an error within the time limit of each call.
#[tokio::test]
async fn a_database_that_hangs_is_noticed() {
    let Some((proxy, _, store)) = behind_a_proxy(Duration::from_millis(700)).await else { return };
    let epoch = store.acquire().await.unwrap();
    store.commit(&batch(0, 2), epoch).await.unwrap();
    store.changes_since(Revision(0), 10).await.unwrap();
    proxy.set(Mode::Hold);
    let start = Instant::now();
    assert!(matches!(store.commit(&batch(2, 1), epoch).await, Err(CommitError::InDoubt(StoreError::Unavailable(_)))));
    assert!(matches!(store.changes_since(Revision(0), 10).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(
        store.events(&EventQuery { limit: 1, ..EventQuery::default() }).await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(store.load().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.acquire().await, Err(StoreError::Unavailable(_))));
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    proxy.cut_and(Mode::Pass);
    let epoch = store.acquire().await.unwrap();
    let (revision, ..) = content(&store).await;
    store.commit(&batch(revision, 1), epoch).await.unwrap();
}

/// SIGKILL of PostgreSQL at random moments under commits: each acknowledged revision is stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_survives_a_kill_of_the_database() {
    let rounds = if std::env::var("WHARFINGER_LONG").is_ok_and(|long| long == "1") { 20 } else { 3 };
    let Some(mut cluster) = tokio::task::spawn_blocking(Cluster::start).await.unwrap() else { return };
    let store = PostgresStore::open(&of(cluster.url())).await.unwrap();
    let epoch = store.acquire().await.unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writer = {
        let (store, acknowledged) = (store.clone(), acknowledged.clone());
        tokio::spawn(async move {
            let mut base = 0;
            loop {
                let count = 1 + base % 17;
                match store.commit(&batch(base, count), epoch).await {
                    Ok(()) => base += count,
                    // As the engine does: load the store, and go on from there.
                    Err(CommitError::NotCommitted(_) | CommitError::InDoubt(_)) => {
                        base = loop {
                            match store.load().await {
                                Ok(found) => break found.revision.0,
                                Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}"),
                            }
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        };
                    }
                    Err(error) => panic!("{error:?}"),
                }
                assert!(acknowledged.fetch_max(base, Ordering::SeqCst) <= base, "what was acknowledged is gone");
            }
        })
    };
    for round in 0..rounds {
        let before = acknowledged.load(Ordering::SeqCst);
        eventually(async || acknowledged.load(Ordering::SeqCst) > before + 40).await;
        tokio::time::sleep(Duration::from_micros(round * 1370 % 9000)).await;
        cluster = tokio::task::spawn_blocking(move || {
            cluster.kill();
            cluster.run();
            cluster
        })
        .await
        .unwrap();
    }
    let before = acknowledged.load(Ordering::SeqCst);
    eventually(async || acknowledged.load(Ordering::SeqCst) > before).await;
    writer.abort();
    let _ = writer.await;
    let told = acknowledged.load(Ordering::SeqCst);
    let again = PostgresSettings { schema: store.inner.database.schema().into(), ..of(cluster.url()) };
    let other = PostgresStore::open(&again).await.unwrap();
    // The last commit may still be under way; this waits for it.
    other.acquire().await.unwrap();
    let found = other.load().await.unwrap();
    assert!(found.revision.0 >= told, "{} of {told}", found.revision);
    assert_eq!((found.leases.len() as u64, found.resources.len() as u64), (found.revision.0, found.revision.0));
    let mut after = Revision(0);
    let mut seen = Vec::new();
    while seen.len() < found.revision.0 as usize {
        let page = other.events(&EventQuery { after, limit: 10_000, ..EventQuery::default() }).await.unwrap();
        seen.extend(page.iter().map(|event| event.revision));
        after = Revision(*seen.last().unwrap());
    }
    assert!(seen.iter().copied().eq(1..=found.revision.0), "each revision has its one entry");
    tokio::task::spawn_blocking(move || drop(cluster)).await.unwrap();
}

/// The columns that operators query have the names of the documentation.
#[tokio::test]
async fn an_operator_can_ask() {
    let (Some(cluster), Some((settings, store))) = (shared().await, fresh().await) else { return };
    let epoch = store.acquire().await.unwrap();
    let batch = batch(0, 13);
    store.commit(&batch, epoch).await.unwrap();
    let labelled = batch.leases.iter().find(|lease| !lease.spec.selector.labels.is_empty()).unwrap();
    let own = &settings.schema;
    let asked = format!("SELECT count(*) FROM {own}.leases WHERE labels::json IS NOT NULL AND id = '{}'", labelled.id);
    assert_eq!(cluster.sql("wharf", &asked), "1");
}

/// A pooler in session mode gives a connection to one client at a time, and resets it in between. The settings of a session and its
/// prepared statements stay for the whole session.
#[tokio::test]
async fn a_pooler_in_session_mode_may_stand_between() {
    let Some(cluster) = shared().await else { return };
    let program = std::path::Path::new("/usr/sbin/pgbouncer");
    if need(Need::Pgbouncer, program.exists().then_some(())).is_none() {
        return;
    }
    let (pooler, port) = Pooler::start(program, cluster);
    let settings = of(format!("postgres://postgres@127.0.0.1:{port}/wharf"));
    let store = loop {
        match PostgresStore::open(&settings).await {
            Ok(store) => break store,
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error:?}"),
        }
    };
    let epoch = store.acquire().await.unwrap();
    for round in 0..20 {
        store.commit(&batch(round * 3, 3), epoch).await.unwrap();
        assert_eq!(store.changes_since(Revision(0), 1000).await.unwrap().revision.0, round * 3 + 3);
    }
    assert_eq!(content(&store).await, (60, 60, 60));
    store.close().await;
    let again = PostgresStore::open(&settings).await.unwrap();
    assert_eq!(content(&again).await, (60, 60, 60), "over connections that others have had");
    drop(pooler);
}

struct Pooler {
    child: std::process::Child,
    _folder: tempfile::TempDir,
}

impl Pooler {
    fn start(program: &std::path::Path, cluster: &Cluster) -> (Pooler, u16) {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\nwharf = host={} port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             auth_type = any\npool_mode = session\ndefault_pool_size = 8\nunix_socket_dir =\nserver_reset_query = DISCARD ALL\n",
            cluster.folder().display(),
            cluster.port()
        );
        std::fs::write(&config, text).unwrap();
        let readable = std::os::unix::fs::PermissionsExt::from_mode;
        std::fs::set_permissions(folder.path(), readable(0o755)).unwrap();
        std::fs::set_permissions(&config, readable(0o644)).unwrap();
        let child = testing::server::as_owner(program)
            .arg(&config)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        (Pooler { child, _folder: folder }, port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The report of a server reaches each other server, and goes a day after the last one.
#[tokio::test]
async fn each_server_reads_the_reports_of_all_and_one_of_yesterday_is_removed() {
    let Some((settings, store)) = fresh().await else { return };
    let other = PostgresStore::open(&settings).await.unwrap();
    let report = |address: &str, epoch: u64| ServerReport {
        address: address.to_owned(),
        version: "0.1.0".to_owned(),
        configuration: "aa".to_owned(),
        leads_since_unix_ms: (epoch > 0).then_some(1_000),
        epoch,
        revision: u64::MAX,
        age_ms: None,
        refused_since_unix_ms: None,
    };
    store.report_server(&report("http://a:1", 1)).await.unwrap();
    other.report_server(&report("http://b:1", 0)).await.unwrap();
    store.report_server(&report("http://a:1", 2)).await.unwrap();
    for reader in [&store, &other] {
        let seen = reader.servers().await.unwrap();
        let reports: Vec<ServerReport> = seen.iter().map(|one| one.report.clone()).collect();
        assert_eq!(reports, [report("http://a:1", 2), report("http://b:1", 0)]);
        assert!(seen.iter().all(|one| one.silent < Duration::from_secs(3600)), "{seen:?}");
    }
    let mut conn = session(&settings).await;
    conn.execute("UPDATE servers SET reported = clock_timestamp() - interval '2 days'").await.unwrap();
    store.report_server(&report("http://a:1", 2)).await.unwrap();
    let left: Vec<String> = other.servers().await.unwrap().into_iter().map(|one| one.report.address).collect();
    assert_eq!(left, ["http://a:1"]);
}
