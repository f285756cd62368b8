//! What an installation keeps in its first database: the number of shards, the epochs, the catalog of tables.

use model::{
    ColumnName, DatabaseName, Epoch, InvalidName, Namespace, Shard, ShardCount, TableName, TableRef, Topic, Value,
};
use serde::{Deserialize, Serialize};

use super::{
    dialect::{Dialect, SystemTable, Upgrade},
    session::{Backend, Failure, INT, Purpose, Session, TEXT},
    shard_rows::CONFLICT_ATTEMPTS,
    statement::Statement,
    transaction,
};
use crate::{CatalogEntry, CreateCheck, DatabaseError, TableSettings};

const SHARD_COUNT: &str = "shard_count";
const GENERATION: &str = "catalog_generation";

/// What is stored of a table's settings beside topic and namespace, which have columns of their own. A field that is
/// added later needs a default, for what earlier releases wrote.
#[derive(Debug, Serialize, Deserialize)]
struct StoredSettings {
    #[serde(default)]
    group_by: Vec<String>,
    #[serde(default)]
    create_check: CreateCheck,
    #[serde(default)]
    indexed_fields: Vec<String>,
}

/// Makes our own tables where they are missing, and changes those that an earlier release made.
pub(super) async fn prepare<B: Backend>(backend: &B) -> Result<(), DatabaseError> {
    let on = |failure: Failure| failure.on("our own tables");
    let mut session = backend.session().await.map_err(on)?;
    session.begin(Purpose::Write).await.map_err(on)?;
    let outcome = make_tables(&mut session, backend.dialect()).await.map_err(on);
    transaction::finish(&mut session, "our own tables", outcome).await
}

async fn make_tables<S: Session, D: Dialect>(session: &mut S, dialect: &D) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for table in dialect.system_tables() {
        let mut count = Statement::new(dialect.count_tables());
        count.bind(table.name);
        if !is_some(session, count).await? {
            missing.push(table);
        }
    }
    if let (Some(alone), false) = (dialect.before_tables_are_made(), missing.is_empty()) {
        session.execute(Statement::new(alone)).await?;
    }
    for SystemTable { name, columns } in missing {
        session.execute(Statement::new(format!("CREATE TABLE IF NOT EXISTS {name} {columns}"))).await?;
    }
    for upgrade in dialect.upgrades() {
        if is_made(session, upgrade).await? {
            continue;
        }
        // Another replica may have been faster.
        if let Err(refused) = session.execute(Statement::new(upgrade.make)).await
            && !is_made(session, upgrade).await?
        {
            return Err(refused);
        }
    }
    Ok(())
}

async fn is_made<S: Session>(session: &mut S, upgrade: &Upgrade) -> Result<bool, Failure> {
    is_some(session, Statement::new(upgrade.made)).await
}

/// Whether what is counted is more than none.
async fn is_some<S: Session>(session: &mut S, count: Statement<'_>) -> Result<bool, Failure> {
    let rows = session.fetch(count, &[INT]).await?;
    Ok(rows.into_iter().flatten().next().is_some_and(|count| count != Value::Int64(0)))
}

/// The stored number of shards; stores `configured` if there is none.
pub(super) async fn shard_count<B: Backend>(backend: &B, configured: ShardCount) -> Result<u32, DatabaseError> {
    let on = |failure: Failure| failure.on("_sa_meta");
    let mut session = backend.session().await.map_err(on)?;
    if let Some(stored) = meta(&mut session, SHARD_COUNT).await.map_err(on)? {
        return shard_number(stored);
    }
    session.begin(Purpose::Write).await.map_err(on)?;
    let outcome = async {
        let mut statement = Statement::new("INSERT INTO _sa_meta (name, value) VALUES (");
        statement.bind(SHARD_COUNT).push(", ").bind(i64::from(configured.get())).push(")");
        statement.push(&backend.dialect().on_conflict_nothing(&["name"]));
        session.execute(statement).await?;
        meta(&mut session, SHARD_COUNT).await
    };
    let outcome = outcome.await.map_err(on);
    let stored = transaction::finish(&mut session, "_sa_meta", outcome).await?;
    shard_number(stored.unwrap_or_default())
}

fn shard_number(stored: i64) -> Result<u32, DatabaseError> {
    u32::try_from(stored)
        .map_err(|_| DatabaseError::Unfit(format!("the stored number of shards, {stored}, is no number of shards")))
}

pub(super) async fn meta<S: Session>(session: &mut S, name: &str) -> Result<Option<i64>, Failure> {
    let mut statement = Statement::new("SELECT value FROM _sa_meta WHERE name = ");
    statement.bind(name);
    let rows = session.fetch(statement, &[INT]).await?;
    Ok(rows.into_iter().flatten().next().and_then(|value| if let Value::Int64(n) = value { Some(n) } else { None }))
}

/// Begins to write, changes nothing. A server that is read-only refuses the statement all the same.
pub(super) async fn probe<B: Backend>(backend: &B) -> Result<(), DatabaseError> {
    let on = |failure: Failure| failure.on("_sa_meta");
    let mut session = backend.probe_session().await.map_err(on)?;
    session.begin(Purpose::Write).await.map_err(on)?;
    let update = Statement::new("UPDATE _sa_meta SET value = value WHERE name = 'probe'");
    let outcome = session.execute(update).await.map(drop).map_err(on);
    transaction::finish(&mut session, "_sa_meta", outcome).await
}

/// Draws the next epoch of a shard.
pub(super) async fn next_epoch<B: Backend>(backend: &B, shard: Shard, at_least: Epoch) -> Result<Epoch, DatabaseError> {
    let on = |failure: Failure| failure.on("_sa_epoch");
    let mut session = backend.session().await.map_err(on)?;
    let mut attempt = 1;
    loop {
        session.begin(Purpose::Write).await.map_err(on)?;
        let outcome = raise_epoch(&mut session, backend.dialect(), shard, at_least).await;
        let conflict = outcome.as_ref().is_err_and(|failure| failure.is_conflict(backend.dialect()));
        let outcome = outcome.map_err(on).and_then(|drawn| {
            drawn.and_then(|n| u32::try_from(n).ok()).map(Epoch).ok_or_else(|| {
                DatabaseError::Unfit(format!("the epochs of shard {shard} are used up, or their counter was changed"))
            })
        });
        let finished = transaction::finish(&mut session, "_sa_epoch", outcome).await;
        if !conflict || attempt == CONFLICT_ATTEMPTS {
            return finished;
        }
        attempt += 1;
    }
}

/// The upsert locks the row until the commit, so what is read after it is nobody else's.
async fn raise_epoch<S: Session, D: Dialect>(
    session: &mut S,
    dialect: &D,
    shard: Shard,
    at_least: Epoch,
) -> Result<Option<i64>, Failure> {
    let mut insert = Statement::new("INSERT INTO _sa_epoch (shard, epoch) VALUES (");
    insert.bind(shard).push(", 0)").push(&dialect.on_conflict_nothing(&["shard"]));
    session.execute(insert).await?;
    let mut raise = Statement::new("UPDATE _sa_epoch SET epoch = ");
    raise
        .push(dialect.greatest())
        .push("(epoch, ")
        .bind(i64::from(at_least.0))
        .push(") + 1 WHERE shard = ")
        .bind(shard);
    session.execute(raise).await?;
    let mut select = Statement::new("SELECT epoch FROM _sa_epoch WHERE shard = ");
    select.bind(shard);
    let rows = session.fetch(select, &[INT]).await?;
    Ok(rows.into_iter().flatten().next().and_then(|value| if let Value::Int64(n) = value { Some(n) } else { None }))
}

/// The generation and the entries. The generation is read first: if the list changes in between, the next look
/// finds another generation than the one that was given with the newer list.
pub(super) async fn catalog<B: Backend>(backend: &B) -> Result<(u64, Vec<CatalogEntry>), DatabaseError> {
    let on = |failure: Failure| failure.on("_sa_table");
    let mut session = backend.session().await.map_err(on)?;
    let generation = meta(&mut session, GENERATION).await.map_err(on)?.unwrap_or_default();
    let select = Statement::new(
        "SELECT database_name, table_name, topic, namespace, settings, enabled FROM _sa_table \
         ORDER BY database_name, table_name",
    );
    let rows = session.fetch(select, &[TEXT, TEXT, TEXT, TEXT, TEXT, INT]).await.map_err(on)?;
    let entries = rows.into_iter().map(entry).collect::<Result<_, _>>()?;
    Ok((generation.unsigned_abs(), entries))
}

fn entry(mut values: Vec<Value>) -> Result<CatalogEntry, DatabaseError> {
    let enabled = values.pop().is_some_and(|value| value != Value::Int64(0));
    let texts = values.into_iter().map(|value| if let Value::Text(text) = value { text } else { String::new() });
    let texts: Vec<String> = texts.collect();
    let [database, table, topic, namespace, settings] = texts.as_slice() else {
        return Err(DatabaseError::Unfit("the catalog (_sa_table) has other columns than ours".to_owned()));
    };
    let unfit = |problem: String| {
        DatabaseError::Unfit(format!("the catalog's entry of {database}.{table} can't be read: {problem}"))
    };
    let name = |error: InvalidName| unfit(error.to_string());
    let stored: StoredSettings = serde_json::from_str(settings).map_err(|error| unfit(error.to_string()))?;
    Ok(CatalogEntry {
        table: TableRef {
            database: DatabaseName::new(database).map_err(name)?,
            table: TableName::new(table).map_err(name)?,
        },
        enabled,
        settings: TableSettings {
            topic: Topic::new(topic).map_err(name)?,
            namespace: Namespace::new(namespace).map_err(name)?,
            group_by: stored.group_by.iter().map(ColumnName::new).collect::<Result<_, _>>().map_err(name)?,
            create_check: stored.create_check,
            indexed_fields: stored
                .indexed_fields
                .iter()
                .map(ColumnName::new)
                .collect::<Result<_, _>>()
                .map_err(name)?,
        },
    })
}

/// Writes an entry; `false` if another table has its topic or namespace.
pub(super) async fn enable<B: Backend>(backend: &B, entry: &CatalogEntry) -> Result<bool, DatabaseError> {
    let settings = StoredSettings {
        group_by: entry.settings.group_by.iter().map(ToString::to_string).collect(),
        create_check: entry.settings.create_check,
        indexed_fields: entry.settings.indexed_fields.iter().map(ToString::to_string).collect(),
    };
    let settings = serde_json::to_string(&settings)
        .map_err(|error| DatabaseError::Unfit(format!("the settings of {} can't be stored: {error}", entry.table)))?;
    let on = |failure: Failure| failure.on("_sa_table");
    let mut session = backend.session().await.map_err(on)?;
    session.begin(Purpose::Write).await.map_err(on)?;
    let outcome = write_entry(&mut session, backend.dialect(), entry, &settings).await.map_err(on);
    finish_change(&mut session, outcome).await
}

async fn write_entry<S: Session, D: Dialect>(
    session: &mut S,
    dialect: &D,
    entry: &CatalogEntry,
    settings: &str,
) -> Result<bool, Failure> {
    // Locks out every other change of the catalog until this one has ended.
    raise_generation(session, dialect).await?;
    let (database, table) = (entry.table.database.as_str(), entry.table.table.as_str());
    let (topic, namespace) = (entry.settings.topic.as_str(), entry.settings.namespace.as_str());
    let mut others = Statement::new("SELECT topic FROM _sa_table WHERE (topic = ");
    others.bind(topic).push(" OR namespace = ").bind(namespace).push(") AND NOT (database_name = ");
    others.bind(database).push(" AND table_name = ").bind(table).push(")");
    if !session.fetch(others, &[TEXT]).await?.is_empty() {
        return Ok(false);
    }
    let mut delete = Statement::new("DELETE FROM _sa_table WHERE database_name = ");
    delete.bind(database).push(" AND table_name = ").bind(table);
    session.execute(delete).await?;
    let mut insert = Statement::new(
        "INSERT INTO _sa_table (database_name, table_name, topic, namespace, settings, enabled) VALUES (",
    );
    insert.list([database, table, topic, namespace, settings], ", ", |s, text| {
        s.bind(text);
    });
    insert.push(", 1)");
    session.execute(insert).await?;
    Ok(true)
}

/// Lets no requests in any more; `false` if none were let in.
pub(super) async fn disable<B: Backend>(backend: &B, table: &TableRef) -> Result<bool, DatabaseError> {
    let on = |failure: Failure| failure.on("_sa_table");
    let mut session = backend.session().await.map_err(on)?;
    session.begin(Purpose::Write).await.map_err(on)?;
    let outcome = async {
        raise_generation(&mut session, backend.dialect()).await?;
        let mut disable = Statement::new("UPDATE _sa_table SET enabled = 0 WHERE enabled = 1 AND database_name = ");
        disable.bind(table.database.as_str()).push(" AND table_name = ").bind(table.table.as_str());
        session.execute(disable).await
    };
    let outcome = outcome.await.map(|disabled| disabled > 0).map_err(on);
    finish_change(&mut session, outcome).await
}

/// Where nothing was changed the generation stays as it was, too.
async fn finish_change<S: Session>(
    session: &mut S,
    outcome: Result<bool, DatabaseError>,
) -> Result<bool, DatabaseError> {
    if let Ok(false) = outcome {
        session.rollback().await;
        return outcome;
    }
    transaction::finish(session, "_sa_table", outcome).await
}

async fn raise_generation<S: Session, D: Dialect>(session: &mut S, dialect: &D) -> Result<(), Failure> {
    let mut insert = Statement::new("INSERT INTO _sa_meta (name, value) VALUES (");
    insert.bind(GENERATION).push(", 0)").push(&dialect.on_conflict_nothing(&["name"]));
    session.execute(insert).await?;
    let mut raise = Statement::new("UPDATE _sa_meta SET value = value + 1 WHERE name = ");
    raise.bind(GENERATION);
    session.execute(raise).await?;
    Ok(())
}
