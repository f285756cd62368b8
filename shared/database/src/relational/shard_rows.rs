//! The shard rows: who owns a shard, its high-water version, its purge horizon.

use std::collections::HashMap;

use model::{Shard, TableName, Value, Version};
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
use crate::{DatabaseError, Owner, ShardClaim, ShardRow, batch::Claim};

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

/// Raises the horizons of shards, sorted, that still have the owner who tells.
pub(super) async fn note_horizons<B: Backend>(
    backend: &B,
    table: &TableName,
    horizons: &[(Shard, Owner, Version)],
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
    horizons: &[(Shard, Owner, Version)],
) -> Result<(), Failure> {
    for chunk in shapes::padded(dialect.limits(), 5, 1, horizons) {
        let mut raise = Statement::new("UPDATE ");
        raise.push(&dialect.by_primary_key("_sa_shard")).push(" SET horizon = CASE shard");
        for (shard, _, horizon) in chunk.clone() {
            raise.push(" WHEN ").bind(*shard).push(" THEN ");
            raise.push(dialect.greatest()).push("(horizon, ").bind(*horizon).push(")");
        }
        raise.push(" END WHERE table_name = ").bind(table.as_str()).push(" AND shard IN (");
        raise.list(chunk.clone(), ", ", |s, (shard, _, _)| {
            s.bind(*shard);
        });
        raise.push(") AND owner = CASE shard");
        for (shard, owner, _) in chunk {
            raise.push(" WHEN ").bind(*shard).push(" THEN ").bind(owner.0.as_str());
        }
        raise.push(" END");
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
    let on_conflict = dialect.on_conflict_update(&key, &["owner".to_owned()], None);
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

/// The shard row of each table, zeros where there is none.
pub(super) async fn read<B: Backend>(
    backend: &B,
    tables: &[TableName],
    shard: Shard,
) -> Result<Vec<ShardRow>, DatabaseError> {
    let on = |failure: Failure| failure.on("_sa_shard");
    let mut session = backend.session().await.map_err(on)?;
    let mut rows: HashMap<String, ShardRow> = HashMap::new();
    for chunk in shapes::padded(backend.dialect().limits(), 1, 1, tables) {
        let mut statement =
            Statement::new("SELECT table_name, high_water, purge_horizon, horizon FROM _sa_shard WHERE shard = ");
        statement.bind(shard).push(" AND table_name IN (");
        statement.list(chunk, ", ", |s, table| {
            s.bind(table.as_str());
        });
        statement.push(")");
        for values in session.fetch(statement, &[TEXT, INT, INT, INT]).await.map_err(on)? {
            let mut values = values.into_iter();
            if let Some(Value::Text(table)) = values.next() {
                let high_water = stored_version(values.next()).map_err(on)?;
                let purge_horizon = stored_version(values.next()).map_err(on)?;
                let horizon = stored_version(values.next()).map_err(on)?;
                rows.insert(table, ShardRow { high_water, purge_horizon, horizon });
            }
        }
    }
    Ok(tables.iter().map(|table| rows.get(table.as_str()).copied().unwrap_or_default()).collect())
}
