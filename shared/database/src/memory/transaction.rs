//! The transactions.

use std::collections::BTreeSet;

use model::{Content, Epoch, Key, KeyBytes, Row, Shard, TableName, TableSchema, Version};
use planted::Bug;

use super::{
    Inner,
    state::{Entry, ShardEntry, State, refused},
    table::Stored,
};
use crate::{
    Applied, Batch, DatabaseError, DatabaseRow, ErrorClass, Horizon, Owner, ShardClaim, ShardRow,
    batch::{Claim, claims, compare_keys, twice},
    verdict::{Asked, Found, Verdict, Write, decide},
};

/// A batch made ready: it owns what it holds, for the transaction outlives the caller who goes away.
pub(super) struct Prepared {
    schema: TableSchema,
    claims: Vec<Claim>,
    /// In the order of the primary key.
    changes: Vec<Change>,
}

struct Change {
    /// Where it stood in the batch.
    at: usize,
    shard: Shard,
    key: KeyBytes,
    asked: Asked,
    /// `None` is a delete.
    row: Option<Row>,
}

impl Prepared {
    pub(super) fn new(batch: &Batch<'_>) -> Result<Self, DatabaseError> {
        let schema = batch.schema;
        let mut in_order: Vec<_> = batch.changes.iter().enumerate().collect();
        in_order.sort_by(|(_, a), (_, b)| compare_keys(&a.key, &b.key));
        let mut seen = BTreeSet::new();
        let mut changes = Vec::with_capacity(in_order.len());
        for (at, change) in in_order {
            if change.key.0.len() != schema.key_columns.len() {
                let message = "the key has another number of columns than the table's primary key";
                return Err(refused(&schema.table.table, ErrorClass::Schema, "key", message));
            }
            let row = match &change.image.content {
                Content::Row(row) => {
                    let row = row.clone().merged_with(key_columns(schema, &change.key));
                    Some(if change.image.is_whole() { schema.with_constant_defaults(row) } else { row })
                }
                Content::Tombstone => None,
            };
            let key = change.key.to_bytes();
            if !seen.insert(key.clone()) {
                return Err(twice(&schema.table));
            }
            let asked = Asked { version: change.version, since: change.image.since, delete: row.is_none() };
            changes.push(Change { at, shard: change.shard, key, asked, row });
        }
        Ok(Self { schema: schema.clone(), claims: claims(batch)?, changes })
    }

    fn table(&self) -> &TableName {
        &self.schema.table.table
    }
}

fn key_columns(schema: &TableSchema, key: &Key) -> Row {
    schema.key().map(|column| column.name.clone()).zip(key.0.iter().cloned()).collect()
}

/// What was judged of a change: what was found, what follows.
struct Judged {
    found: Found,
    verdict: Verdict,
    applied: Applied,
}

/// Applies a batch: locks and judges; then writes.
pub(super) async fn apply(inner: &Inner, batch: Prepared) -> Result<Vec<Applied>, DatabaseError> {
    inner.statement().await;
    let names = batch.claims.iter().map(|claim| (batch.table().clone(), claim.shard)).collect();
    let _held = inner.locks.lock(names, inner.lock_timeout).await?;
    let judged = judge(&inner.state(), &batch)?;
    inner.statement().await;
    write(&mut inner.state(), &batch, &judged)?;
    let mut applied: Vec<_> =
        batch.changes.iter().zip(judged).map(|(change, judged)| (change.at, judged.applied)).collect();
    applied.sort_by_key(|(at, _)| *at);
    Ok(applied.into_iter().map(|(_, applied)| applied).collect())
}

fn owns(state: &State, table: &TableName, shard: Shard, owner: &Owner) -> bool {
    let entry = state.shards.get(&(table.clone(), shard));
    entry.is_some_and(|entry| entry.owner == *owner || planted::is(Bug::NoOwnerCheck))
}

/// The shard rows are locked: what is found is final.
fn judge(state: &State, batch: &Prepared) -> Result<Vec<Judged>, DatabaseError> {
    let table = batch.table();
    if !batch.claims.iter().all(|claim| owns(state, table, claim.shard, &claim.owner)) {
        return Err(DatabaseError::NotOwner(table.clone()));
    }
    let judge = |change: &Change| {
        let found = state.found(&batch.schema, &change.key)?;
        let verdict = decide(found, change.asked, state.shard_row(table, change.shard).purge_horizon);
        let applied = match verdict {
            Verdict::Write(_) => Applied::Written,
            Verdict::Same => Applied::Same,
            Verdict::Stale { current } => {
                Applied::Stale { current: at_least(state.read(&batch.schema, &change.key)?, current) }
            }
            Verdict::Purged { horizon } => Applied::Purged { horizon },
            Verdict::SinceRefused => Applied::SinceRefused,
        };
        Ok(Judged { found, verdict, applied })
    };
    batch.changes.iter().map(judge).collect()
}

/// A row that has no version of its own has that of the verdict.
fn at_least(row: DatabaseRow, least: Version) -> DatabaseRow {
    match row {
        DatabaseRow::Present { version, row } => DatabaseRow::Present { version: version.max(least), row },
        other => other,
    }
}

/// All of it, or nothing: deletes first, for they may free a unique value; then updates, then inserts.
fn write(state: &mut State, batch: &Prepared, judged: &[Judged]) -> Result<(), DatabaseError> {
    let name = batch.table();
    for (change, judged) in batch.changes.iter().zip(judged) {
        if state.found(&batch.schema, &change.key)? != judged.found {
            let message = "somebody else changed a row in between; the transaction was undone";
            return Err(refused(name, ErrorClass::Contended, "guard", message));
        }
    }
    let table = state.table_mut(name)?;
    let mut undo = Vec::new();
    for which in [Write::Delete, Write::Update, Write::Insert] {
        for (change, _) in batch.changes.iter().zip(judged).filter(|(_, j)| j.verdict == Verdict::Write(which)) {
            undo.push((&change.key, table.rows.get(&change.key).cloned()));
            let written = match &change.row {
                None => {
                    table.rows.remove(&change.key);
                    Ok(())
                }
                Some(row) => {
                    let there = table.rows.get(&change.key).map(|stored| &stored.row);
                    let complete = table.complete(row, there);
                    let version = match table.definition.guard {
                        model::VersionGuard::Column => change.asked.version,
                        model::VersionGuard::Ledger => Version::ZERO,
                    };
                    complete.and_then(|row| table.put(change.key.clone(), Stored { version, row }))
                }
            };
            if let Err(error) = written {
                for (key, before) in undo.into_iter().rev() {
                    match before {
                        Some(stored) => table.rows.insert(key.clone(), stored),
                        None => table.rows.remove(key),
                    };
                }
                return Err(error);
            }
        }
    }
    let guard = batch.schema.guard;
    let ledger = state.ledger.entry(name.clone()).or_default();
    for (change, judged) in batch.changes.iter().zip(judged) {
        let Verdict::Write(write) = judged.verdict else { continue };
        if write.leaves_entry(guard) {
            let entry = Entry { shard: change.shard, version: change.asked.version, deleted: !write.leaves_row() };
            ledger.insert(change.key.clone(), entry);
        } else {
            ledger.remove(&change.key);
        }
    }
    for claim in &batch.claims {
        if let Some(entry) = state.shards.get_mut(&(name.clone(), claim.shard)) {
            entry.high_water = entry.high_water.max(claim.newest);
        }
    }
    Ok(())
}

/// Writes `owner` into shard rows, once whoever holds one of them is done.
pub(super) async fn take_ownership(inner: &Inner, claims: Vec<ShardClaim>, owner: Owner) -> Result<(), DatabaseError> {
    inner.statement().await;
    let names: Vec<_> = claims.into_iter().map(|claim| (claim.table, claim.shard)).collect();
    let _held = inner.locks.lock(names.clone(), inner.lock_timeout).await?;
    inner.statement().await;
    let mut state = inner.state();
    for name in names {
        state.shards.entry(name).or_insert_with(|| ShardEntry::of(owner.clone())).owner = owner.clone();
    }
    Ok(())
}

/// Announces an opening, once whoever holds one of the rows is done, and reads them.
pub(super) async fn announce(
    inner: &Inner,
    tables: Vec<TableName>,
    shard: Shard,
    epoch: Epoch,
) -> Result<Vec<ShardRow>, DatabaseError> {
    inner.statement().await;
    let names = tables.iter().map(|table| (table.clone(), shard)).collect();
    let _held = inner.locks.lock(names, inner.lock_timeout).await?;
    inner.statement().await;
    let mut state = inner.state();
    let mut rows = Vec::with_capacity(tables.len());
    for table in tables {
        let entry = state.shards.entry((table.clone(), shard));
        let entry = entry.or_insert_with(|| ShardEntry::of(Owner(String::new())));
        entry.epoch = entry.epoch.max(epoch);
        rows.push(state.shard_row(&table, shard));
    }
    Ok(rows)
}

/// Whether an opening was announced since the hot store said so.
fn is_outdated(entry: &ShardEntry, horizon: &Horizon) -> bool {
    entry.epoch > horizon.epoch && !planted::is(Bug::HorizonAcrossEpochs)
}

/// Raises the horizons of shards that still have the owner who tells, and no opening since they were asked of.
pub(super) async fn note_horizons(
    inner: &Inner,
    table: TableName,
    horizons: Vec<Horizon>,
) -> Result<(), DatabaseError> {
    inner.statement().await;
    let names = horizons.iter().map(|horizon| (table.clone(), horizon.shard)).collect();
    let _held = inner.locks.lock(names, inner.lock_timeout).await?;
    inner.statement().await;
    let mut state = inner.state();
    for horizon in horizons {
        let entry = state.shards.get_mut(&(table.clone(), horizon.shard));
        if let Some(entry) = entry.filter(|entry| entry.owner == horizon.owner && !is_outdated(entry, &horizon)) {
            entry.horizon = entry.horizon.max(horizon.version);
        }
    }
    Ok(())
}

/// Whether it is a tombstone that a purge up to there forgets.
fn may_go(entry: &Entry, horizon: &Horizon) -> bool {
    entry.shard == horizon.shard && entry.deleted && entry.version <= horizon.version
}

/// How many tombstones a purge would forget.
pub(super) async fn count_tombstones(
    inner: &Inner,
    table: &TableName,
    horizon: &Horizon,
    limit: usize,
) -> Result<u64, DatabaseError> {
    inner.statement().await;
    let state = inner.state();
    let entries = state.ledger.get(table).into_iter().flatten();
    Ok(entries.filter(|(_, entry)| may_go(entry, horizon)).take(limit).count() as u64)
}

/// Forgets the oldest tombstones of a shard.
pub(super) async fn purge(
    inner: &Inner,
    table: TableName,
    horizon: Horizon,
    limit: usize,
) -> Result<u64, DatabaseError> {
    inner.statement().await;
    let shard = horizon.shard;
    let _held = inner.locks.lock(vec![(table.clone(), shard)], inner.lock_timeout).await?;
    if !owns(&inner.state(), &table, shard, &horizon.owner) {
        return Err(DatabaseError::NotOwner(table));
    }
    if inner.state().shards.get(&(table.clone(), shard)).is_some_and(|entry| is_outdated(entry, &horizon)) {
        return Err(DatabaseError::Outdated { table, shard });
    }
    inner.statement().await;
    let mut state = inner.state();
    let ledger = state.ledger.entry(table.clone()).or_default();
    let of_shard = ledger.iter().filter(|(_, entry)| may_go(entry, &horizon));
    let mut oldest: Vec<_> = of_shard.map(|(key, entry)| (entry.version, key.clone())).collect();
    oldest.sort();
    oldest.truncate(limit);
    for (_, key) in &oldest {
        ledger.remove(key);
    }
    if let (Some((highest, _)), Some(entry)) = (oldest.last(), state.shards.get_mut(&(table, shard))) {
        entry.purge_horizon = entry.purge_horizon.max(*highest);
    }
    Ok(oldest.len() as u64)
}
