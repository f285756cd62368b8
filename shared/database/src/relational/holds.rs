//! What operators have stopped, in the first database.

use jiff::Timestamp;
use model::{DatabaseName, TableName, TableRef, Value};

use super::{
    dialect::Dialect,
    installation::meta,
    session::{Backend, Failure, INT, Purpose, Session, TEXT},
    statement::Statement,
    transaction,
};
use crate::{DatabaseError, Hold, HoldKind, HoldScope, Holds};

const TABLE: &str = "_sa_hold";
const REVISION: &str = "hold_revision";

/// All of them. The revision is read first: the list may be newer, and then a later look finds another revision.
pub(super) async fn holds<B: Backend>(backend: &B) -> Result<Holds, DatabaseError> {
    let on = |failure: Failure| failure.on(TABLE);
    let mut session = backend.session().await.map_err(on)?;
    let revision = meta(&mut session, REVISION).await.map_err(on)?.unwrap_or_default().unsigned_abs();
    let select = Statement::new(
        "SELECT database_name, table_name, kind, reason, set_by, since FROM _sa_hold \
         ORDER BY database_name, table_name, kind",
    );
    let rows = session.fetch(select, &[TEXT, TEXT, TEXT, TEXT, TEXT, INT]).await.map_err(on)?;
    let list = rows.into_iter().filter_map(|row| entry(row).transpose()).collect::<Result<_, _>>()?;
    Ok(Holds { revision, list })
}

/// A hold; nothing if it concerns no table that there could be.
fn entry(values: Vec<Value>) -> Result<Option<Hold>, DatabaseError> {
    let [
        Value::Text(database),
        Value::Text(table),
        Value::Text(kind),
        Value::Text(reason),
        Value::Text(by),
        Value::Int64(since),
    ] = values.as_slice()
    else {
        return Err(DatabaseError::Unfit(format!("what operators have stopped ({TABLE}) has other columns than ours")));
    };
    let scope = match (database.as_str(), table.as_str()) {
        ("", "") => HoldScope::Everything,
        (database, table) => match (DatabaseName::new(database), TableName::new(table)) {
            (Ok(database), Ok(table)) => HoldScope::Table(TableRef { database, table }),
            // No table has such a name.
            _ => return Ok(None),
        },
    };
    let (kind, reason) = match HoldKind::from_stored(kind) {
        Some(known) => (known, reason.clone()),
        // Of a later release. Nothing is lost while a table is paused.
        None => (HoldKind::Pause, format!("{kind:?}, which this release does not know: {reason}")),
    };
    let since = Timestamp::from_microsecond(*since).unwrap_or_default();
    Ok(Some(Hold { scope, kind, reason, by: by.clone(), since }))
}

/// Stops something, in place of an earlier hold of the same kind and scope. Answers the revision.
pub(super) async fn set<B: Backend>(backend: &B, hold: &Hold) -> Result<u64, DatabaseError> {
    let on = |failure: Failure| failure.on(TABLE);
    let mut session = backend.session().await.map_err(on)?;
    session.begin(Purpose::Write).await.map_err(on)?;
    let outcome = async {
        // Locks out every other change until this one has ended.
        let revision = raise(&mut session, backend.dialect(), hold.since).await?;
        session.execute(delete(&hold.scope, hold.kind)).await?;
        let (database, table) = names(&hold.scope);
        let mut insert =
            Statement::new("INSERT INTO _sa_hold (database_name, table_name, kind, reason, set_by, since) VALUES (");
        let texts = [database, table, hold.kind.stored(), hold.reason.as_str(), hold.by.as_str()];
        insert.list(texts, ", ", |statement, text| {
            statement.bind(text);
        });
        insert.push(", ").bind(hold.since.as_microsecond()).push(")");
        session.execute(insert).await?;
        Ok(revision)
    };
    let outcome = outcome.await.map_err(on);
    transaction::finish(&mut session, TABLE, outcome).await
}

/// Lets something go on. Answers whether it was stopped, and the revision, which is another one in any case: a hot store
/// that holds an earlier wish follows it.
pub(super) async fn lift<B: Backend>(
    backend: &B,
    scope: &HoldScope,
    kind: HoldKind,
    now: Timestamp,
) -> Result<(bool, u64), DatabaseError> {
    let on = |failure: Failure| failure.on(TABLE);
    let mut session = backend.session().await.map_err(on)?;
    session.begin(Purpose::Write).await.map_err(on)?;
    let outcome = async {
        let revision = raise(&mut session, backend.dialect(), now).await?;
        let lifted = session.execute(delete(scope, kind)).await? > 0;
        Ok((lifted, revision))
    };
    let outcome = outcome.await.map_err(on);
    transaction::finish(&mut session, TABLE, outcome).await
}

fn names(scope: &HoldScope) -> (&str, &str) {
    match scope {
        HoldScope::Everything => ("", ""),
        HoldScope::Table(table) => (table.database.as_str(), table.table.as_str()),
    }
}

fn delete(scope: &HoldScope, kind: HoldKind) -> Statement<'_> {
    let (database, table) = names(scope);
    let mut delete = Statement::new("DELETE FROM _sa_hold WHERE database_name = ");
    delete.bind(database).push(" AND table_name = ").bind(table).push(" AND kind = ").bind(kind.stored());
    delete
}

/// The next revision: above the last one, and no lower than the time in microseconds, so that it is above those that a
/// hot store has seen when the database was restored from a backup.
async fn raise<S: Session, D: Dialect>(session: &mut S, dialect: &D, now: Timestamp) -> Result<u64, Failure> {
    let mut insert = Statement::new("INSERT INTO _sa_meta (name, value) VALUES (");
    insert.bind(REVISION).push(", 0)").push(&dialect.on_conflict_nothing(&["name"]));
    session.execute(insert).await?;
    let mut raise = Statement::new("UPDATE _sa_meta SET value = ");
    raise.push(dialect.greatest()).push("(value + 1, ").bind(now.as_microsecond()).push(") WHERE name = ");
    raise.bind(REVISION);
    session.execute(raise).await?;
    Ok(meta(session, REVISION).await?.unwrap_or_default().unsigned_abs())
}
