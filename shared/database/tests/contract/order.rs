//! Any order, any repetition, any cut into batches: the same end.

use std::collections::BTreeMap;

use database::{Applied, Database, DatabaseRow};
use model::{Key, VersionGuard};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::runtime::Handle;

use crate::{
    harness::*,
    tables::{Holds, TableOf},
};

on_every_database!(any_delivery_ends_at_the_newest_version_of_each_key);

const KEYS: usize = 5;

/// The history: version n + 1 is of key `history[n].0`, and a delete if `history[n].1`.
type History = Vec<(usize, bool)>;

/// A history and the batches, of positions in it, in which it is delivered.
fn deliveries() -> impl Strategy<Value = (History, Vec<Vec<usize>>)> {
    prop::collection::vec((0..KEYS, prop::bool::weighted(0.3)), 1..25).prop_flat_map(|history| {
        let last = history.len();
        (Just(history), prop::collection::vec(prop::collection::vec(0..last, 1..6), 1..12))
    })
}

async fn any_delivery_ends_at_the_newest_version_of_each_key(h: Harness) {
    for guard in GUARDS {
        for secondary_unique in [false, true] {
            let table = format!("o_{guard:?}_{secondary_unique}").to_lowercase();
            let columns = [("id", Holds::Text), ("n", Holds::Number), ("note", Holds::Text)];
            let unique = secondary_unique.then_some("note");
            let table = TableOf { name: &table, columns: &columns, key: &["id"], unique };
            let schema = h.table_of(&table, guard).await;
            let mut runner = TestRunner::new(Config { cases: 20, failure_persistence: None, ..Config::default() });
            let handle = Handle::current();
            let outcome = tokio::task::block_in_place(|| {
                runner.run(&deliveries(), |(history, batches)| handle.block_on(deliver(&h, &schema, history, batches)))
            });
            outcome.unwrap_or_else(|error| panic!("{guard:?}, secondary unique {secondary_unique}: {error}"));
        }
    }
}

async fn deliver(
    h: &Harness,
    schema: &model::TableSchema,
    history: History,
    mut batches: Vec<Vec<usize>>,
) -> Result<(), TestCaseError> {
    let table = &schema.table.table;
    h.forget_all(table).await;
    let change = |at: usize| {
        let (key, number) = (format!("k{}", history[at].0), at as u64 + 1);
        if history[at].1 { delete(schema, &key, number) } else { put(schema, &key, number) }
    };
    // What was delivered is delivered once more at the end, from the start.
    batches.extend(batches.clone());
    let mut newest: BTreeMap<usize, usize> = BTreeMap::new();
    for batch in &batches {
        // One change per key and batch; which one is as it comes.
        let by_key: BTreeMap<usize, usize> = batch.iter().map(|&at| (history[at].0, at)).collect();
        let changes: Vec<_> = by_key.values().map(|&at| change(at)).collect();
        let applied = h.apply(schema, &changes).await.map_err(|error| TestCaseError::fail(error.to_string()))?;
        for (&at, applied) in by_key.values().zip(applied) {
            let before = newest.get(&history[at].0).copied();
            match applied {
                Applied::Written => prop_assert!(before.is_none_or(|before| before < at)),
                Applied::Same => prop_assert_eq!(before, Some(at)),
                Applied::Stale { current } => {
                    prop_assert!(before.is_some_and(|before| before > at));
                    prop_assert_eq!(Some(current), before.map(|before| state(&history, before)));
                }
                other => prop_assert!(false, "{other:?}"),
            }
            let entry = newest.entry(history[at].0).or_insert(at);
            *entry = at.max(*entry);
        }
    }
    let keys: Vec<Key> = (0..KEYS).map(|key| id(&format!("k{key}"))).collect();
    let rows = h.database.read(schema, &keys).await.map_err(|error| TestCaseError::fail(error.to_string()))?;
    for (key, row) in rows.into_iter().enumerate() {
        let expected = newest.get(&key).map_or(DatabaseRow::Absent, |&at| state(&history, at));
        prop_assert_eq!(row, expected);
    }
    let tombstones = newest.values().filter(|&&at| history[at].1).count() as i64;
    let in_ledger = if schema.guard == VersionGuard::Ledger { newest.len() as i64 } else { tombstones };
    prop_assert_eq!(h.ledger_entries(table).await, in_ledger);
    Ok(())
}

fn state(history: &History, at: usize) -> DatabaseRow {
    let number = at as u64 + 1;
    if history[at].1 { deleted(number) } else { present(number, item(&format!("k{}", history[at].0), number as i64)) }
}
