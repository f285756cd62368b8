//! What is asked of a batch, whichever database it is for.

use std::cmp::Ordering;

use model::{Key, Shard, TableRef, Value, Version};

use crate::{Batch, DatabaseError, Owner};

/// Rows of one transaction, at most. The statements have limits of their own; this one bounds how long the shard rows
/// stay locked, and what the server has to keep to undo it.
pub(crate) const MAX_BATCH_ROWS: usize = 4096;

/// A shard that a transaction locks.
pub(crate) struct Claim {
    pub(crate) shard: Shard,
    pub(crate) owner: Owner,
    /// The highest version that the transaction decides on in this shard.
    pub(crate) newest: Version,
}

pub(crate) fn check_size(batch: &Batch<'_>) -> Result<(), DatabaseError> {
    if batch.changes.len() <= MAX_BATCH_ROWS {
        return Ok(());
    }
    Err(DatabaseError::Unfit(format!(
        "a batch of {} changes for table {} is larger than a transaction may be ({MAX_BATCH_ROWS})",
        batch.changes.len(),
        batch.schema.table,
    )))
}

/// The error of a batch that holds a key twice.
pub(crate) fn twice(table: &TableRef) -> DatabaseError {
    DatabaseError::Unfit(format!(
        "a batch for table {table} holds a key twice: keep only the newest change of each key"
    ))
}

/// The shards of a batch, in their order.
pub(crate) fn claims(batch: &Batch<'_>) -> Result<Vec<Claim>, DatabaseError> {
    let mut claims: Vec<Claim> = Vec::with_capacity(batch.owners.len());
    for (shard, owner) in &batch.owners {
        claims.push(Claim { shard: *shard, owner: owner.clone(), newest: Version::ZERO });
    }
    claims.sort_by_key(|claim| claim.shard);
    if claims.windows(2).any(|pair| pair[0].shard == pair[1].shard) {
        return Err(DatabaseError::Unfit(format!(
            "a batch for table {} names the owner of a shard twice",
            batch.schema.table
        )));
    }
    for change in batch.changes {
        match claims.binary_search_by_key(&change.shard, |claim| claim.shard) {
            Ok(at) => claims[at].newest = claims[at].newest.max(change.version),
            Err(_) => {
                return Err(DatabaseError::Unfit(format!(
                    "a batch for table {} holds a change of shard {} without saying who owns it",
                    batch.schema.table, change.shard
                )));
            }
        }
    }
    Ok(claims)
}

/// The order of the primary key, as near as we know it: what matters is that all transactions lock in one order.
pub(crate) fn compare_keys(a: &Key, b: &Key) -> Ordering {
    let by_value = a.0.iter().zip(&b.0).map(|(a, b)| compare(a, b)).find(|order| order.is_ne());
    by_value.unwrap_or_else(|| a.to_bytes().cmp(&b.to_bytes()))
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int64(a), Value::Int64(b)) => a.cmp(b),
        (Value::Uint64(a), Value::Uint64(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::DateTime(a), Value::DateTime(b)) => a.cmp(b),
        (Value::Date(a), Value::Date(b)) => a.cmp(b),
        (Value::Time(a), Value::Time(b)) => a.cmp(b),
        _ => Ordering::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_the_primary_key_does() {
        let mut keys = [Key(vec![Value::Int64(10)]), Key(vec![Value::Int64(-3)]), Key(vec![Value::Int64(9)])];
        keys.sort_by(compare_keys);
        assert_eq!(keys.map(|k| k.0), [[Value::Int64(-3)], [Value::Int64(9)], [Value::Int64(10)]]);
        let text = |t: &str| Key(vec![Value::Text(t.to_owned())]);
        assert!(compare_keys(&text("b"), &text("aaaa")).is_gt());
    }
}
