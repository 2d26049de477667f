//! Restoring: the schema is filled beside its place, and renamed when it is complete. An interrupted copy never has the name.

use super::connect::{Database, Purpose, part};
use super::error::PgError;
use super::rows::number;
use super::{PostgresStore, sql};
use crate::store::{PostgresSettings, StoreError};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

const BESIDE: &str = "_restoring";

fn beside(settings: &PostgresSettings) -> Result<PostgresSettings, StoreError> {
    let schema = format!("{}{BESIDE}", settings.schema);
    if schema.len() > 63 {
        return Err(StoreError::Configuration(format!(
            "the schema {:?} has a name too long to be restored: choose one of at most {} letters",
            settings.schema,
            63 - BESIDE.len()
        )));
    }
    Ok(PostgresSettings { schema, ..settings.clone() })
}

/// Number of tables in a schema; `None`: the schema does not exist.
async fn tables(conn: &mut PgConnection, schema: &str) -> Result<Option<i64>, PgError> {
    let row = sqlx::query(sql::LOOK).bind(schema).fetch_one(conn).await?;
    let there: bool = sqlx::Row::try_get(&row, 0)?;
    Ok(if there { Some(number(&row, 2)?) } else { None })
}

impl PostgresStore {
    /// Opens an empty store beside its place.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] if the place has tables already; as of [`PostgresStore::open`].
    pub async fn open_beside(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let beside = beside(settings)?;
        let database = Database::new(settings.clone())?;
        let looked = async {
            let mut conn = database.connect(Purpose::Bulk).await?;
            if tables(&mut conn, &settings.schema).await?.is_some_and(|tables| tables > 0) {
                return Err(PgError::Store(StoreError::Configuration(format!(
                    "there is something in the schema {:?} of the database {} already: drop or rename it, or set another \
                     `schema`",
                    settings.schema, database.place
                ))));
            }
            // The remains of an interrupted attempt.
            let drop = format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", beside.schema);
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut conn).await?;
            part(conn).await;
            Ok(())
        };
        database.within(Purpose::Bulk, looked).await.map_err(|failure| failure.sorted(&database.place))?;
        PostgresStore::open(&beside).await
    }

    /// Renames the filled schema to its place. The store must be closed.
    ///
    /// # Errors
    /// As of [`PostgresStore::open_beside`].
    pub async fn put_in_place(settings: &PostgresSettings) -> Result<(), StoreError> {
        let beside = beside(settings)?;
        let database = Database::new(settings.clone())?;
        let put = async {
            let mut conn = database.connect(Purpose::Bulk).await?;
            // Drops an empty schema in the place. A schema with tables is not dropped without CASCADE.
            let text = format!(
                "BEGIN; DROP SCHEMA IF EXISTS \"{0}\"; ALTER SCHEMA \"{1}\" RENAME TO \"{0}\"; COMMIT",
                settings.schema, beside.schema
            );
            sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut conn).await?;
            part(conn).await;
            Ok::<(), PgError>(())
        };
        database.within(Purpose::Bulk, put).await.map_err(|failure| failure.sorted(&database.place))
    }
}
