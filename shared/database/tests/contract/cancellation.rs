//! A caller who goes away leaves nothing half-way, and no connection of which nobody knows what it is at.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use database::{Applied, Change, Database};
use model::{TableSchema, VersionGuard};

use crate::{harness::*, tested::Tested};

on_each_database!(
    a_dropped_apply_is_done_or_not_begun_and_its_connection_is_whole,
    a_dropped_read_leaves_a_whole_connection;
    about_sql:
    a_call_dropped_while_it_waits_for_a_lock_runs_to_its_end,
    a_connection_in_doubt_is_never_used_again,
    a_process_that_ends_leaves_a_transaction_whole_or_undone,
);

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

/// Polls once: the call has begun.
fn begin<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::new(Nobody))))
}

/// Begins the call, and drops it after so long.
async fn drop_after<F: Future>(patience: Duration, call: F) -> Option<F::Output> {
    let mut call = Box::pin(call);
    match begin(call.as_mut()) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => tokio::time::timeout(patience, call).await.ok(),
    }
}

/// Twelve changes of one version, some of them deletes.
fn batch(schema: &TableSchema, number: u64) -> Vec<Change> {
    let change = |n: u64| {
        let key = format!("k{n}");
        if (number + n).is_multiple_of(4) { delete(schema, &key, number) } else { put(schema, &key, number) }
    };
    (0..12).map(change).collect()
}

/// Whether the batch is there as a whole; fails if a part of it is.
async fn is_there(h: &Harness, schema: &TableSchema, number: u64) -> bool {
    let keys: Vec<_> = (0..12).map(|n| id(&format!("k{n}"))).collect();
    let rows = h.database.read(schema, &keys).await.unwrap();
    let expected = |n: u64| {
        if (number + n).is_multiple_of(4) {
            deleted(number)
        } else {
            present(number, item(&format!("k{n}"), number as i64))
        }
    };
    let there = rows.iter().zip(0..).filter(|(row, n)| **row == expected(*n)).count();
    assert!(there == 0 || there == 12, "{there} of 12 changes of version {number} are there");
    there == 12
}

async fn a_dropped_apply_is_done_or_not_begun_and_its_connection_is_whole(h: Harness) {
    // One connection: whoever comes next gets the one that was dropped on.
    let database = h.another(|options| options.pool = 1).await;
    let me = me();
    for guard in GUARDS {
        let schema = h.items(guard).await;
        for round in 0..40_u64 {
            let number = round + 10;
            let changes = batch(&schema, number);
            // After so long, wherever that is in the transaction.
            let patience = Duration::from_micros(round * 150);
            if let Some(outcome) = drop_after(patience, apply_as(&database, &schema, &changes, &me)).await {
                assert_eq!(outcome.unwrap(), vec![Applied::Written; 12]);
            }
            // It was begun, so it ends, as a whole; unless this one was faster.
            let again = apply_as(&database, &schema, &changes, &me).await.unwrap();
            let as_a_whole = [vec![Applied::Same; 12], vec![Applied::Written; 12]];
            assert!(as_a_whole.contains(&again), "{guard:?} round {round}: {again:?}");
            assert!(is_there(&h, &schema, number).await, "{guard:?} round {round}");
        }
    }
    h.no_transaction_is_open().await;
}

async fn a_dropped_read_leaves_a_whole_connection(h: Harness) {
    let database = h.another(|options| options.pool = 1).await;
    let schema = h.items(VersionGuard::Column).await;
    let rows: Vec<_> = (0..200).map(|n| put(&schema, &format!("k{n}"), 10 + n)).collect();
    h.apply(&schema, &rows).await.unwrap();
    for round in 0..40_u64 {
        let many: Vec<_> = (0..250).map(|n| id(&format!("k{n}"))).collect();
        drop_after(Duration::from_micros(round * 100), database.read(&schema, &many)).await;
        let key = round * 3;
        let read = database.read(&schema, &[id(&format!("k{key}"))]).await.unwrap();
        assert_eq!(read, [present(10 + key, item(&format!("k{key}"), 10 + key as i64))], "the answer to this question");
    }
}

/// What tells one connection of a pool of one from the next one.
async fn connection(h: &Harness, database: &Tested) -> i64 {
    // In SQLite it rises with what was written on the connection, and a new one begins at nothing.
    let select = h.of("SELECT CONNECTION_ID()", "SELECT pg_backend_pid()", "SELECT total_changes()");
    database.sql().query_integers(select).await.unwrap()[0]
}

fn lock_a_row(h: &Harness, schema: &TableSchema) -> [String; 2] {
    let begin = h.of("BEGIN", "BEGIN", "BEGIN IMMEDIATE").to_owned();
    let table = &schema.table.table;
    let update = format!("UPDATE {table} SET n = n WHERE id = 'k0'");
    // PostgreSQL locks no row that isn't there.
    let lock = format!("LOCK TABLE {table} IN EXCLUSIVE MODE");
    [begin, h.of(update.clone(), lock, update)]
}

async fn a_call_dropped_while_it_waits_for_a_lock_runs_to_its_end(h: Harness) {
    let database = h.another(|options| options.pool = 1).await;
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let rows: Vec<_> = (0..12).map(|n| put(&schema, &format!("k{n}"), 1)).collect();
        apply_as(&database, &schema, &rows, &me()).await.unwrap();
        let mut theirs = h.somebody_else().await;
        for round in 0..8_u64 {
            let number = 10 + round;
            let before = connection(&h, &database).await;
            for statement in lock_a_row(&h, &schema) {
                theirs.run(&statement).await;
            }
            let patience = Duration::from_millis(round * 4);
            let outcome = drop_after(patience, apply_as(&database, &schema, &batch(&schema, number), &me())).await;
            assert_eq!(outcome, None, "it waits for the row");
            assert!(!is_there(&h, &schema, number).await);
            theirs.run("ROLLBACK").await;
            // There is one connection: this waits until the dropped call is done with it, or else comes first.
            let after = connection(&h, &database).await;
            if !h.is_sqlite() {
                assert_eq!(after, before, "nothing was in doubt");
            } else {
                assert!(after >= before, "nothing was in doubt");
            }
            eventually("the call that was begun ends", async || is_there(&h, &schema, number).await).await;
        }
    }
    h.no_transaction_is_open().await;
}

async fn a_connection_in_doubt_is_never_used_again(h: Harness) {
    let database = h
        .another(|options| {
            options.pool = 1;
            options.statement_timeout = Duration::from_millis(100);
        })
        .await;
    let me = me();
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let rows: Vec<_> = (0..12).map(|n| put(&schema, &format!("k{n}"), 1)).collect();
        let mut theirs = h.somebody_else().await;
        for round in 0..6_u64 {
            h.forget_all(&schema.table.table).await;
            // Its patience is short, for a machine that does other things as well.
            eventually("it is written", async || apply_as(&database, &schema, &rows, &me).await.is_ok()).await;
            let before = connection(&h, &database).await;
            for statement in lock_a_row(&h, &schema) {
                theirs.run(&statement).await;
            }
            // Given up by the caller before, while and after the time is up.
            let changes = batch(&schema, 10);
            let call = apply_as(&database, &schema, &changes, &me);
            if let Some(outcome) = drop_after(Duration::from_millis(round * 40), call).await {
                let error = outcome.unwrap_err();
                assert!(error.class().may_pass(), "{error}");
            }
            // What comes next is never told what was meant for the call that was given up.
            let read = loop {
                match database.read(&schema, &[id("k1")]).await {
                    Ok(read) => break read,
                    Err(error) => assert!(error.class().may_pass(), "{error}"),
                }
            };
            assert_eq!(read, [present(1, item("k1", 1))], "nothing was written while the row is locked");
            eventually("a connection in doubt is left behind", async || {
                let after = connection(&h, &database).await;
                if !h.is_sqlite() { after != before } else { after < before }
            })
            .await;
            theirs.run("ROLLBACK").await;
            // The transaction in doubt never sent its commit: it is undone, and holds no lock for long.
            eventually("it can be written again", async || apply_as(&database, &schema, &changes, &me).await.is_ok())
                .await;
            assert!(is_there(&h, &schema, 10).await);
        }
    }
    h.no_transaction_is_open().await;
}

async fn a_process_that_ends_leaves_a_transaction_whole_or_undone(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let (mut whole, mut undone) = (0, 0);
        for round in 0..30_u64 {
            let number = 10 + round;
            // A runtime of its own, which ends as a process does: whatever waits is dropped where it is.
            let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let (options, changes) = (h.options().clone(), batch(&schema, number));
            let (table, (begun, wait)) = (schema.clone(), tokio::sync::oneshot::channel());
            process.spawn(async move {
                let database = Tested::Sql(database::AnyDatabase::connect(options).await.unwrap());
                database.read(&table, &[id("k0")]).await.unwrap();
                begun.send(()).unwrap();
                let _ = apply_as(&database, &table, &changes, &me()).await;
            });
            wait.await.unwrap();
            tokio::time::sleep(Duration::from_micros(round * 250)).await;
            process.shutdown_background();
            // Who comes next finds all of it or nothing, and no lock.
            let next = put(&schema, "next", number);
            eventually("its locks are gone", async || h.apply(&schema, std::slice::from_ref(&next)).await.is_ok())
                .await;
            if is_there(&h, &schema, number).await {
                whole += 1;
            } else {
                undone += 1;
            }
        }
        eprintln!("{guard:?}: {whole} whole, {undone} undone");
    }
    h.no_transaction_is_open().await;
}

/// A read that has to wait, which takes a lock on the whole table: SQLite's readers wait for nobody.
mod slow_read {
    use super::*;

    on_servers!(a_connection_whose_read_was_given_up_is_never_used_again);

    pub(super) async fn a_connection_whose_read_was_given_up_is_never_used_again(h: Harness) {
        let schema = h.items(VersionGuard::Column).await;
        h.apply(&schema, &[put(&schema, "a", 10), put(&schema, "b", 11)]).await.unwrap();
        let database = h
            .another(|options| {
                options.pool = 1;
                options.statement_timeout = Duration::from_millis(100);
            })
            .await;
        let mut theirs = h.somebody_else().await;
        for round in 0..6_u64 {
            let before = connection(&h, &database).await;
            let table = &schema.table.table;
            let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
            theirs.run(&h.of(format!("LOCK TABLES {table} WRITE"), lock, String::new())).await;
            let keys = [id("a")];
            let read = drop_after(Duration::from_millis(round * 40), database.read(&schema, &keys)).await;
            if let Some(outcome) = read {
                let error = outcome.unwrap_err();
                assert!(error.class().may_pass(), "{error}");
            }
            eventually("a connection in doubt is left behind", async || connection(&h, &database).await != before)
                .await;
            theirs.run(h.of("UNLOCK TABLES", "ROLLBACK", "")).await;
            // Its patience is short, for a machine that does other things as well.
            let read = loop {
                match database.read(&schema, &[id("b")]).await {
                    Ok(read) => break read,
                    Err(error) => assert!(error.class().may_pass(), "{error}"),
                }
            };
            assert_eq!(read, [present(11, item("b", 11))], "the answer to this question");
        }
    }
}
