//! Purging of tombstones.

use model::{KeyBytes, TableName, Value, Version};
use planted::Bug;

use super::{
    dialect::Dialect,
    read::stored_version,
    session::{BYTES, Backend, Failure, INT, Purpose, Session},
    shard_rows,
    statement::Statement,
    transaction, write,
};
use crate::{DatabaseError, Horizon, batch::Claim};

/// How many tombstones a purge would forget. What another owner forgets meanwhile is found out by the purge.
pub(super) async fn count<B: Backend>(
    backend: &B,
    table: &TableName,
    horizon: &Horizon,
    limit: usize,
) -> Result<u64, DatabaseError> {
    let on = |failure: Failure| failure.on(table.as_str());
    let mut session = backend.session().await.map_err(on)?;
    let mut select = Statement::new("SELECT version");
    purgeable(&mut select, table, horizon, limit);
    Ok(session.fetch(select, &[INT]).await.map_err(on)?.len() as u64)
}

/// The oldest tombstones of a shard.
fn purgeable<'a>(select: &mut Statement<'a>, table: &'a TableName, horizon: &Horizon, limit: usize) {
    select.push(" FROM _sa_ledger WHERE table_name = ").bind(table.as_str());
    select.push(" AND shard = ").bind(horizon.shard).push(" AND deleted = 1 AND version <= ");
    // A number, not a parameter: not every server takes one there.
    select.bind(horizon.version).push(&format!(" ORDER BY version LIMIT {limit}"));
}

/// Forgets the oldest tombstones of a shard; how many.
pub(super) async fn purge<B: Backend>(
    backend: &B,
    table: &TableName,
    horizon: &Horizon,
    limit: usize,
) -> Result<u64, DatabaseError> {
    let on = |failure: Failure| failure.on(table.as_str());
    let mut session = backend.session().await.map_err(on)?;
    session.begin(Purpose::Write).await.map_err(on)?;
    let purged = in_transaction(&mut session, backend.dialect(), table, horizon, limit).await;
    transaction::finish(&mut session, table.as_str(), purged).await
}

async fn in_transaction<S: Session, D: Dialect>(
    session: &mut S,
    dialect: &D,
    table: &TableName,
    horizon: &Horizon,
    limit: usize,
) -> Result<u64, DatabaseError> {
    let on = |failure: Failure| failure.on(table.as_str());
    let claim = Claim { shard: horizon.shard, owner: horizon.owner.clone(), newest: Version::ZERO };
    if !shard_rows::lock(session, dialect, table, &[claim]).await.map_err(on)? {
        return Err(DatabaseError::NotOwner(table.clone()));
    }
    let announced = shard_rows::epoch(session, table, horizon.shard).await.map_err(on)?;
    if announced > horizon.epoch && !planted::is(Bug::HorizonAcrossEpochs) {
        return Err(DatabaseError::Outdated { table: table.clone(), shard: horizon.shard });
    }
    forget_oldest(session, dialect, table, horizon, limit).await.map_err(on)
}

/// The shard's row is locked, so what the ledger says of the shard is final.
async fn forget_oldest<S: Session, D: Dialect>(
    session: &mut S,
    dialect: &D,
    table: &TableName,
    horizon: &Horizon,
    limit: usize,
) -> Result<u64, Failure> {
    let mut select = Statement::new("SELECT record_key, version");
    purgeable(&mut select, table, horizon, limit);
    let (mut keys, mut highest) = (Vec::new(), Version::ZERO);
    for values in session.fetch(select, &[BYTES, INT]).await? {
        let mut values = values.into_iter();
        if let Some(Value::Bytes(key)) = values.next() {
            keys.push(KeyBytes::from_stored(key));
            highest = highest.max(stored_version(values.next())?);
        }
    }
    if keys.is_empty() {
        return Ok(0);
    }
    let forgotten = write::forget(session, dialect, table, &keys.iter().collect::<Vec<_>>()).await?;
    let mut raise = Statement::new("UPDATE _sa_shard SET purge_horizon = ");
    raise.push(dialect.greatest()).push("(purge_horizon, ").bind(highest).push(") WHERE table_name = ");
    raise.bind(table.as_str()).push(" AND shard = ").bind(horizon.shard);
    session.execute(raise).await?;
    Ok(forgotten)
}
