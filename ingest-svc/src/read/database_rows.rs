//! Asks a database for rows, for those who hold a permit for it.

use database::{CatalogTable, Database, DatabaseError, DatabaseRow, FoundRow, Search};
use model::{Key, TableRef};
use tokio::time::{Instant, error::Elapsed, timeout};

use super::{cold, outages::Question};
use crate::{Core, StoreError};

/// What the database holds for each key, by one statement if it can. A database that is known to be away is not asked, and
/// one that does not answer for long is given up.
pub(super) async fn read<H, L, D: Database>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    keys: &[Key],
) -> Vec<Result<DatabaseRow, StoreError>> {
    let all = |error: StoreError| keys.iter().map(|_| Err(error.clone())).collect();
    match rows(core, table, keys).await {
        Ok(rows) if rows.len() == keys.len() => rows.into_iter().map(Ok).collect(),
        Ok(rows) => all(StoreError::DatabaseUnfit(format!("it answered {} rows for {} keys", rows.len(), keys.len()))),
        // It may be the fault of one row, which must not be that of the others.
        Err(StoreError::DatabaseUnfit(_)) if keys.len() > 1 => {
            let mut single = Vec::with_capacity(keys.len());
            for key in keys {
                let row = rows(core, table, std::slice::from_ref(key)).await;
                single.push(row.map(|rows| rows.into_iter().next().unwrap_or(DatabaseRow::Absent)));
            }
            single
        }
        Err(error) => all(error),
    }
}

/// The rows that a search finds, within the same bounds; as many readers at once as of cold reads of so many records.
pub(crate) async fn find<H, L, D: Database>(
    core: &Core<H, L, D>,
    search: Search<'_>,
) -> Result<Vec<FoundRow>, StoreError> {
    let name = &search.schema.table.database;
    let no_such = || StoreError::DatabaseUnfit(format!("no database named {name} is configured"));
    let database = core.directory.database(name).ok_or_else(no_such)?;
    let table = &search.schema.table;
    // Nobody waits for a turn to be told what is known already. Who has it asks: another one may have found out meanwhile.
    core.outages.known(table, Question::Search)?;
    let _permit = cold::cold_read(core, Instant::now() + core.options.lease_ttl, search.limit).await?;
    core.outages.check(table, Question::Search)?;
    let patience = core.options.database_patience;
    answered(core, table, Question::Search, timeout(patience, database.find(search)).await)
}

async fn rows<H, L, D: Database>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    keys: &[Key],
) -> Result<Vec<DatabaseRow>, StoreError> {
    let name = &table.schema.table.database;
    let no_such = || StoreError::DatabaseUnfit(format!("no database named {name} is configured"));
    let database = core.directory.database(name).ok_or_else(no_such)?;
    // What was begun runs to its end, also when nobody waits for it any more.
    let patience = core.options.database_patience;
    let rows = timeout(patience, database.read(&table.schema, keys)).await;
    answered(core, &table.schema.table, Question::Rows, rows)
}

/// What came of a question, noted for those who ask next.
fn answered<H, L, D: Database, T>(
    core: &Core<H, L, D>,
    table: &TableRef,
    question: Question,
    answer: Result<Result<T, DatabaseError>, Elapsed>,
) -> Result<T, StoreError> {
    match answer {
        Ok(result) => {
            core.outages.learn(table, question, &result);
            Ok(result?)
        }
        Err(_) => {
            let problem = format!("it has not answered for {:?}", core.options.database_patience);
            core.outages.unanswered(table, question, problem.clone());
            Err(DatabaseError::Unknown(problem).into())
        }
    }
}
