//! The limits that operators have set, in the first database.

use model::{DatabaseName, TableName, TableRef, Value};

use super::{
    dialect::Dialect,
    session::{Backend, Failure, Purpose, Session, TEXT},
    statement::Statement,
    transaction,
};
use crate::{DatabaseError, SetRate, StoredRates};

/// All that are set, by table.
pub(super) async fn rates<B: Backend>(backend: &B) -> Result<StoredRates, DatabaseError> {
    let on = |failure: Failure| failure.on("_sa_rate");
    let mut session = backend.session().await.map_err(on)?;
    let select =
        Statement::new("SELECT database_name, table_name, rate FROM _sa_rate ORDER BY database_name, table_name");
    match session.fetch(select, &[TEXT, TEXT, TEXT]).await.map_err(on) {
        Ok(rows) => Ok(rows.into_iter().filter_map(entry).collect()),
        Err(error) if error.is_unreadable() => one_by_one(&mut session).await,
        Err(error) => Err(error),
    }
}

/// One that can't be read at all hides no other.
async fn one_by_one<S: Session>(session: &mut S) -> Result<StoredRates, DatabaseError> {
    let on = |failure: Failure| failure.on("_sa_rate");
    let select = Statement::new("SELECT database_name, table_name FROM _sa_rate ORDER BY database_name, table_name");
    let names = session.fetch(select, &[TEXT, TEXT]).await.map_err(on)?;
    let mut entries = Vec::with_capacity(names.len());
    for name in names {
        let [Value::Text(database), Value::Text(table)] = name.as_slice() else { continue };
        let mut select = Statement::new("SELECT database_name, table_name, rate FROM _sa_rate WHERE database_name = ");
        select.bind(database.as_str()).push(" AND table_name = ").bind(table.as_str());
        match session.fetch(select, &[TEXT, TEXT, TEXT]).await.map_err(on) {
            Ok(rows) => entries.extend(rows.into_iter().filter_map(entry)),
            Err(error) if error.is_unreadable() => {
                entries.extend(named(database, table).map(|table| (table.clone(), Err(unfit(&table, "(unreadable)")))));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(entries)
}

fn named(database: &str, table: &str) -> Option<TableRef> {
    Some(TableRef { database: DatabaseName::new(database).ok()?, table: TableName::new(table).ok()? })
}

fn unfit(table: &TableRef, stored: &str) -> DatabaseError {
    DatabaseError::Unfit(format!(
        "the limit {stored:?} of {table} in _sa_rate can't be read: delete the row, or set it anew with \
         `shock-absorber table set-rate`"
    ))
}

/// None for names that no table can have.
fn entry(values: Vec<Value>) -> Option<(TableRef, Result<SetRate, DatabaseError>)> {
    let [Value::Text(database), Value::Text(table), rate] = values.as_slice() else { return None };
    let table = named(database, table)?;
    let rate = match rate {
        Value::Text(stored) => SetRate::from_stored(stored).ok_or_else(|| unfit(&table, stored)),
        other => Err(unfit(&table, &format!("{other:?}"))),
    };
    Some((table, rate))
}

/// Sets one, or takes it back.
pub(super) async fn set<B: Backend>(backend: &B, table: &TableRef, rate: Option<SetRate>) -> Result<(), DatabaseError> {
    let on = |failure: Failure| failure.on("_sa_rate");
    let mut session = backend.session().await.map_err(on)?;
    session.begin(Purpose::Write).await.map_err(on)?;
    let (database, name) = (table.database.as_str(), table.table.as_str());
    let stored = rate.map(SetRate::stored);
    let mut statement;
    if let Some(rate) = &stored {
        statement = Statement::new("INSERT INTO _sa_rate (database_name, table_name, rate) VALUES (");
        statement.bind(database).push(", ").bind(name).push(", ").bind(rate.as_str()).push(")");
        let dialect = backend.dialect();
        let key = ["database_name", "table_name"].map(|column| dialect.quote(column));
        statement.push(&dialect.on_conflict_update("_sa_rate", &key, &[dialect.quote("rate")], None));
    } else {
        statement = Statement::new("DELETE FROM _sa_rate WHERE database_name = ");
        statement.bind(database).push(" AND table_name = ").bind(name);
    }
    let outcome = session.execute(statement).await.map(|_| ()).map_err(on);
    transaction::finish(&mut session, "_sa_rate", outcome).await
}
