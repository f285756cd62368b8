//! The shard rows: who owns a shard, its high-water version, its horizons, the epoch of its newest opening.

use std::collections::HashMap;

use model::{Epoch, Shard, TableName, Value, Version};
use planted::Bug;

use super::{
    dialect::Dialect,
    plan::Plan,
    read::stored_version,
    session::{Backend, Failure, INT, Purpose, Session, TEXT},
    shapes,
    statement::Statement,
    transaction,
};
use crate::{DatabaseError, ErrorClass, Horizon, Owner, ShardClaim, ShardRow, batch::Claim};

/// How often a transaction that lost against another one is begun again at once.
pub(super) const CONFLICT_ATTEMPTS: u32 = 8;

/// Horizons that are raised in one transaction: each costs a commit, and while one waits for a shard's lock those that
/// it holds already are waited for.
const HORIZONS_TOGETHER: usize = 16;

/// Locks the shard rows of a transaction, checks their owners and raises their high-water versions, in one statement.
/// `false` if a shard has another owner, or no row at all.
pub(super) async fn lock<S: Session, D: Dialect>(
    session: &mut S,
    dialect: &D,
    table: &TableName,
    claims: &[Claim],
) -> Result<bool, Failure> {
    let mut matched = 0;
    for chunk in shapes::padded(dialect.limits(), 5, 1, claims) {
        let mut statement = Statement::new("UPDATE ");
        statement.push(&dialect.by_primary_key("_sa_shard"));
        statement.push(" SET high_water = CASE shard");
        for claim in chunk.clone() {
            statement.push(" WHEN ").bind(claim.shard).push(" THEN ");
            statement.push(dialect.greatest()).push("(high_water, ").bind(claim.newest).push(")");
        }
        statement.push(" END WHERE table_name = ").bind(table.as_str()).push(" AND shard IN (");
        statement.list(chunk.clone(), ", ", |s, claim: &Claim| {
            s.bind(claim.shard);
        });
        statement.push(") AND owner = CASE shard");
        for claim in chunk {
            statement.push(" WHEN ").bind(claim.shard).push(" THEN ").bind(claim.owner.0.as_str());
        }
        statement.push(" END");
        matched += session.execute(statement).await?;
    }
    Ok(matched == claims.len() as u64 || planted::is(Bug::NoOwnerCheck))
}

/// The purge horizons of the shards of a batch, whose rows are locked.
pub(super) async fn purge_horizons<S: Session, D: Dialect>(
    session: &mut S,
    dialect: &D,
    plan: &Plan,
) -> Result<HashMap<Shard, Version>, Failure> {
    let mut horizons = HashMap::new();
    for chunk in shapes::padded(dialect.limits(), 1, 1, &plan.claims) {
        let mut statement = Statement::new("SELECT shard, purge_horizon FROM _sa_shard WHERE table_name = ");
        statement.bind(plan.schema.table.table.as_str()).push(" AND shard IN (");
        statement.list(chunk, ", ", |s, claim| {
            s.bind(claim.shard);
        });
        statement.push(")");
        for values in session.fetch(statement, &[INT, INT]).await? {
            let mut values = values.into_iter();
            if let Some(Value::Int64(shard)) = values.next()
                && let Ok(shard) = u16::try_from(shard)
            {
                horizons.insert(Shard(shard), stored_version(values.next())?);
            }
        }
    }
    Ok(horizons)
}

/// Writes `owner` into shard rows. Waits for a transaction of the former owner that holds one of them: after this it
/// can't commit anything any more.
pub(super) async fn take<B: Backend>(
    backend: &B,
    mut claims: Vec<ShardClaim>,
    owner: &Owner,
) -> Result<(), DatabaseError> {
    claims.sort_by(|a, b| (&a.table, a.shard).cmp(&(&b.table, b.shard)));
    claims.dedup();
    let mut session = backend.session().await.map_err(|failure| failure.on("_sa_shard"))?;
    let mut attempt = 1;
    loop {
        session.begin(Purpose::Write).await.map_err(|failure| failure.on("_sa_shard"))?;
        let outcome = write_owner(&mut session, backend.dialect(), &claims, owner).await;
        let conflict = outcome.as_ref().is_err_and(|failure| failure.is_conflict(backend.dialect()));
        let outcome = outcome.map_err(|failure| failure.on("_sa_shard"));
        let finished = transaction::finish(&mut session, "_sa_shard", outcome).await;
        if !conflict || attempt == CONFLICT_ATTEMPTS {
            return finished;
        }
        attempt += 1;
    }
}

/// Raises the horizons of shards, sorted, that still have the owner who tells, and no opening since they were asked of.
pub(super) async fn note_horizons<B: Backend>(
    backend: &B,
    table: &TableName,
    horizons: &[Horizon],
) -> Result<(), DatabaseError> {
    let mut session = backend.session().await.map_err(|failure| failure.on("_sa_shard"))?;
    for together in horizons.chunks(HORIZONS_TOGETHER) {
        session.begin(Purpose::Write).await.map_err(|failure| failure.on("_sa_shard"))?;
        let outcome = raise_horizons(&mut session, backend.dialect(), table, together).await;
        let outcome = outcome.map_err(|failure| failure.on("_sa_shard"));
        transaction::finish(&mut session, "_sa_shard", outcome).await?;
    }
    Ok(())
}

async fn raise_horizons<S: Session, D: Dialect>(
    session: &mut S,
    dialect: &D,
    table: &TableName,
    horizons: &[Horizon],
) -> Result<(), Failure> {
    for chunk in shapes::padded(dialect.limits(), 7, 1, horizons) {
        let mut raise = Statement::new("UPDATE ");
        raise.push(&dialect.by_primary_key("_sa_shard")).push(" SET horizon = CASE shard");
        for horizon in chunk.clone() {
            raise.push(" WHEN ").bind(horizon.shard).push(" THEN ");
            raise.push(dialect.greatest()).push("(horizon, ").bind(horizon.version).push(")");
        }
        raise.push(" END WHERE table_name = ").bind(table.as_str()).push(" AND shard IN (");
        raise.list(chunk.clone(), ", ", |s, horizon| {
            s.bind(horizon.shard);
        });
        raise.push(") AND owner = CASE shard");
        for horizon in chunk.clone() {
            raise.push(" WHEN ").bind(horizon.shard).push(" THEN ").bind(horizon.owner.0.as_str());
        }
        raise.push(" END");
        if !planted::is(Bug::HorizonAcrossEpochs) {
            raise.push(" AND epoch <= CASE shard");
            for horizon in chunk {
                raise.push(" WHEN ").bind(horizon.shard).push(" THEN ").bind(horizon.epoch);
            }
            raise.push(" END");
        }
        session.execute(raise).await?;
    }
    Ok(())
}

async fn write_owner<S: Session, D: Dialect>(
    session: &mut S,
    dialect: &D,
    claims: &[ShardClaim],
    owner: &Owner,
) -> Result<(), Failure> {
    let key = ["table_name".to_owned(), "shard".to_owned()];
    let on_conflict = dialect.on_conflict_update("_sa_shard", &key, &["owner".to_owned()], None);
    let row_bytes = vec![owner.0.len() + 160; claims.len()];
    for range in shapes::exact(dialect.limits(), 3, &row_bytes) {
        let mut statement = Statement::new("INSERT INTO _sa_shard (table_name, shard, owner) VALUES ");
        statement.list(&claims[range], ", ", |s, claim| {
            s.push("(").bind(claim.table.as_str()).push(", ").bind(claim.shard).push(", ");
            s.bind(owner.0.as_str()).push(")");
        });
        statement.push(&on_conflict);
        session.execute(statement).await?;
    }
    Ok(())
}

/// Announces an opening, and reads what the shard rows say while they are locked by that.
pub(super) async fn announce<B: Backend>(
    backend: &B,
    tables: &[TableName],
    shard: Shard,
    epoch: Epoch,
) -> Result<Vec<ShardRow>, DatabaseError> {
    let on = |failure: Failure| failure.on("_sa_shard");
    let mut in_order = tables.to_vec();
    in_order.sort();
    in_order.dedup();
    let mut session = backend.session().await.map_err(on)?;
    let mut attempt = 1;
    loop {
        session.begin(Purpose::Write).await.map_err(on)?;
        let outcome = async {
            raise_epoch(&mut session, backend.dialect(), &in_order, shard, epoch).await?;
            select(&mut session, backend.dialect(), tables, shard).await
        };
        let outcome = outcome.await;
        let conflict = outcome.as_ref().is_err_and(|failure| failure.is_conflict(backend.dialect()));
        let finished = transaction::finish(&mut session, "_sa_shard", outcome.map_err(on)).await;
        if !conflict || attempt == CONFLICT_ATTEMPTS {
            return finished;
        }
        attempt += 1;
    }
}

async fn raise_epoch<S: Session, D: Dialect>(
    session: &mut S,
    dialect: &D,
    tables: &[TableName],
    shard: Shard,
    epoch: Epoch,
) -> Result<(), Failure> {
    let key = ["table_name".to_owned(), "shard".to_owned()];
    // A row that has a higher one is locked as well, and stays as it is.
    let on_conflict = dialect.on_conflict_update("_sa_shard", &key, &[], Some("epoch"));
    let row_bytes = vec![160; tables.len()];
    for range in shapes::exact(dialect.limits(), 3, &row_bytes) {
        let mut statement = Statement::new("INSERT INTO _sa_shard (table_name, shard, epoch) VALUES ");
        statement.list(&tables[range], ", ", |s, table| {
            s.push("(").bind(table.as_str()).push(", ").bind(shard).push(", ").bind(epoch).push(")");
        });
        statement.push(&on_conflict);
        session.execute(statement).await?;
    }
    Ok(())
}

/// The epoch of the newest opening that was announced; the row is locked.
pub(super) async fn epoch<S: Session>(session: &mut S, table: &TableName, shard: Shard) -> Result<Epoch, Failure> {
    let mut select = Statement::new("SELECT epoch FROM _sa_shard WHERE table_name = ");
    select.bind(table.as_str()).push(" AND shard = ").bind(shard);
    stored_epoch(session.fetch(select, &[INT]).await?.into_iter().flatten().next())
}

fn stored_epoch(value: Option<Value>) -> Result<Epoch, Failure> {
    let epoch = if let Some(Value::Int64(number)) = value { u32::try_from(number).ok() } else { None };
    epoch.map(Epoch).ok_or_else(|| {
        let message = "a shard's epoch in _sa_shard is not between 0 and 2^32: somebody else writes to our tables";
        Failure::refused(ErrorClass::Schema, "epoch", message)
    })
}

/// The shard row of each table, zeros where there is none.
pub(super) async fn read<B: Backend>(
    backend: &B,
    tables: &[TableName],
    shard: Shard,
) -> Result<Vec<ShardRow>, DatabaseError> {
    let on = |failure: Failure| failure.on("_sa_shard");
    let mut session = backend.session().await.map_err(on)?;
    select(&mut session, backend.dialect(), tables, shard).await.map_err(on)
}

async fn select<S: Session, D: Dialect>(
    session: &mut S,
    dialect: &D,
    tables: &[TableName],
    shard: Shard,
) -> Result<Vec<ShardRow>, Failure> {
    let mut rows: HashMap<String, ShardRow> = HashMap::new();
    for chunk in shapes::padded(dialect.limits(), 1, 1, tables) {
        let mut statement = Statement::new(
            "SELECT table_name, high_water, purge_horizon, horizon, epoch FROM _sa_shard WHERE shard = ",
        );
        statement.bind(shard).push(" AND table_name IN (");
        statement.list(chunk, ", ", |s, table| {
            s.bind(table.as_str());
        });
        statement.push(")");
        for values in session.fetch(statement, &[TEXT, INT, INT, INT, INT]).await? {
            let mut values = values.into_iter();
            if let Some(Value::Text(table)) = values.next() {
                let high_water = stored_version(values.next())?;
                let purge_horizon = stored_version(values.next())?;
                let horizon = stored_version(values.next())?;
                let epoch = stored_epoch(values.next())?;
                rows.insert(table, ShardRow { high_water, purge_horizon, horizon, epoch });
            }
        }
    }
    Ok(tables.iter().map(|table| rows.get(table.as_str()).copied().unwrap_or_default()).collect())
}
