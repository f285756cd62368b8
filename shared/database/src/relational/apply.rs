//! One batch in one transaction.
//!
//! 1. One statement locks the shard rows, checks their owners and raises the high-water versions. From here on nobody
//!    else writes these shards through us, and what is read is final.
//! 2. The rows are locked and their versions read; so are the ledger's entries.
//! 3. Each change is decided by itself ([`super::verdict`]).
//! 4. What is to be written is written, each statement guarded by the version once more. A statement that touches
//!    fewer rows than it should is not believed: the transaction is undone.

use std::collections::HashMap;

use model::{KeyBytes, Shard, Version};

use super::{
    dialect::Dialect,
    plan::{Plan, Planned},
    read::{self, AskedKey, Extent, FetchedRow},
    session::{Backend, Failure, Purpose, Session},
    shard_rows,
    table::TableText,
    transaction, write,
};
use crate::{
    Applied, DatabaseError, DatabaseRow, ErrorClass,
    verdict::{Found, Verdict, decide},
};

/// Applies a batch; the results stand in the order of its changes.
pub(super) async fn apply<B: Backend>(backend: &B, plan: &Plan) -> Result<Vec<Applied>, DatabaseError> {
    let name = plan.schema.table.table.as_str();
    let mut session = backend.session().await.map_err(|failure| failure.on(name))?;
    session.begin(Purpose::Write).await.map_err(|failure| failure.on(name))?;
    let applied = in_transaction(&mut session, backend.dialect(), plan).await;
    transaction::finish(&mut session, name, applied).await
}

async fn in_transaction<S: Session, D: Dialect>(
    session: &mut S,
    dialect: &D,
    plan: &Plan,
) -> Result<Vec<Applied>, DatabaseError> {
    let name = &plan.schema.table.table;
    let owned =
        shard_rows::lock(session, dialect, name, &plan.claims).await.map_err(|failure| failure.on(name.as_str()))?;
    if !owned {
        return Err(DatabaseError::NotOwner(name.clone()));
    }
    decide_and_write(session, dialect, plan).await.map_err(|failure| failure.on(name.as_str()))
}

async fn decide_and_write<S: Session, D: Dialect>(
    session: &mut S,
    dialect: &D,
    plan: &Plan,
) -> Result<Vec<Applied>, Failure> {
    let horizons = shard_rows::purge_horizons(session, dialect, plan).await?;
    let table = TableText::new(dialect, &plan.schema);
    let found = locate(session, &table, &plan.changes).await?;
    let verdicts = judge(&plan.changes, &found, &horizons);
    let mut current = superseding(session, &table, &plan.changes, &found, &verdicts).await?;

    let mut writes = Vec::new();
    let mut applied: Vec<(usize, Applied)> = Vec::with_capacity(plan.changes.len());
    for (change, (verdict, found)) in plan.changes.iter().zip(verdicts.iter().zip(&found)) {
        let outcome = match verdict {
            Verdict::Write(write) => {
                writes.push(write::Writing { change, write: *write, in_ledger: found.ledger.is_some() });
                Applied::Written
            }
            Verdict::Same => Applied::Same,
            Verdict::Stale { .. } => {
                // To take it for absent would have the lower version marked clean in the hot store.
                let current = current.remove(&change.key_bytes).ok_or_else(|| {
                    let told = "a row that had been locked was not there when it was read; the transaction was undone";
                    Failure::refused(ErrorClass::Contended, "guard", told)
                })?;
                Applied::Stale { current }
            }
            Verdict::Purged { horizon } => Applied::Purged { horizon: *horizon },
            Verdict::SinceRefused => Applied::SinceRefused,
        };
        applied.push((change.at, outcome));
    }
    write::write(session, &table, &writes).await?;
    applied.sort_by_key(|(at, _)| *at);
    Ok(applied.into_iter().map(|(_, outcome)| outcome).collect())
}

/// What the database holds for each change, rows locked.
async fn locate<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    changes: &[Planned],
) -> Result<Vec<Found>, Failure> {
    let keys: Vec<AskedKey<'_>> = changes.iter().map(|change| (&change.key_bytes, change.key.as_slice())).collect();
    let mut rows: HashMap<KeyBytes, Version> = HashMap::with_capacity(changes.len());
    for FetchedRow { key, version, .. } in read::rows(session, table, &keys, Extent::KeyLocked).await? {
        rows.insert(key, version);
    }
    let mut found: Vec<Found> =
        changes.iter().map(|change| Found { row: rows.remove(&change.key_bytes), ledger: None }).collect();
    if !rows.is_empty() {
        return Err(Failure::refused(
            ErrorClass::Permanent,
            "key-collation",
            "another row has a key that the column's collation holds equal to a key of this batch: give the columns of \
             the primary key a binary collation (utf8mb4_bin)",
        ));
    }
    // A row with a version of ours has no entry in the ledger, where versions are in the rows.
    let ours = |found: &Found| table.version.is_some() && found.row.is_some_and(|version| version > Version::ZERO);
    let to_look_up: Vec<&KeyBytes> =
        changes.iter().zip(&found).filter(|(_, found)| !ours(found)).map(|(change, _)| &change.key_bytes).collect();
    let ledger = read::ledger(session, table, &to_look_up).await?;
    for (found, change) in found.iter_mut().zip(changes) {
        found.ledger = ledger.get(&change.key_bytes).copied();
    }
    Ok(found)
}

fn judge(changes: &[Planned], found: &[Found], horizons: &HashMap<Shard, Version>) -> Vec<Verdict> {
    let horizon = |shard: Shard| horizons.get(&shard).copied().unwrap_or_default();
    changes.iter().zip(found).map(|(change, found)| decide(*found, change.asked, horizon(change.shard))).collect()
}

/// What stands in the way of the stale changes, in full.
async fn superseding<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    changes: &[Planned],
    found: &[Found],
    verdicts: &[Verdict],
) -> Result<HashMap<KeyBytes, DatabaseRow>, Failure> {
    let mut current = HashMap::new();
    let mut in_the_way: HashMap<&KeyBytes, Version> = HashMap::new();
    let mut keys: Vec<AskedKey<'_>> = Vec::new();
    for (change, (found, verdict)) in changes.iter().zip(found.iter().zip(verdicts)) {
        let Verdict::Stale { current: version } = *verdict else { continue };
        if found.row.is_some() {
            in_the_way.insert(&change.key_bytes, version);
            keys.push((&change.key_bytes, &change.key));
        } else {
            current.insert(change.key_bytes.clone(), DatabaseRow::Deleted { version });
        }
    }
    for fetched in read::rows(session, table, &keys, Extent::Full).await? {
        if let Some(&version) = in_the_way.get(&fetched.key) {
            current.insert(fetched.key, DatabaseRow::Present { version, row: fetched.row });
        }
    }
    Ok(current)
}
