//! The limits that operators have set, in the first database.

use model::{DatabaseName, TableName, TableRef, Value};

use super::{
    dialect::Dialect,
    session::{Backend, Failure, Purpose, Session, TEXT},
    statement::Statement,
    transaction,
};
use crate::{DatabaseError, SetRate};

/// All that are set, by table.
pub(super) async fn rates<B: Backend>(backend: &B) -> Result<Vec<(TableRef, SetRate)>, DatabaseError> {
    let on = |failure: Failure| failure.on("_sa_rate");
    let mut session = backend.session().await.map_err(on)?;
    let select =
        Statement::new("SELECT database_name, table_name, rate FROM _sa_rate ORDER BY database_name, table_name");
    let rows = session.fetch(select, &[TEXT, TEXT, TEXT]).await.map_err(on)?;
    rows.into_iter().map(entry).collect()
}

fn entry(values: Vec<Value>) -> Result<(TableRef, SetRate), DatabaseError> {
    let [Value::Text(database), Value::Text(table), Value::Text(rate)] = values.as_slice() else {
        return Err(DatabaseError::Unfit("the limits (_sa_rate) have other columns than ours".to_owned()));
    };
    let unfit = || {
        let problem =
            format!("the limit {rate:?} of {database}.{table} in _sa_rate can't be read: delete the row, or set");
        DatabaseError::Unfit(format!("{problem} it anew with `shock-absorber table set-rate`"))
    };
    let table = TableRef {
        database: DatabaseName::new(database).map_err(|_| unfit())?,
        table: TableName::new(table).map_err(|_| unfit())?,
    };
    let rate = SetRate::from_stored(rate).ok_or_else(unfit)?;
    Ok((table, rate))
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
        statement.push(&dialect.on_conflict_update(&key, &[dialect.quote("rate")], None));
    } else {
        statement = Statement::new("DELETE FROM _sa_rate WHERE database_name = ");
        statement.bind(database).push(" AND table_name = ").bind(name);
    }
    let outcome = session.execute(statement).await.map(|_| ()).map_err(on);
    transaction::finish(&mut session, "_sa_rate", outcome).await
}
