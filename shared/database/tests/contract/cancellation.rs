//! A caller who goes away leaves nothing half-way.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use database::{Applied, Database};
use model::VersionGuard;

use crate::harness::*;

on_every_database!(
    a_dropped_apply_is_done_or_not_begun_and_its_connection_is_whole,
    a_dropped_read_leaves_a_whole_connection,
);

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

/// Polls once: the call has begun.
fn begin<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::new(Nobody))))
}

async fn a_dropped_apply_is_done_or_not_begun_and_its_connection_is_whole(h: Harness) {
    // One connection: whoever comes next gets the one that was dropped on.
    let database = h.another(|options| options.pool = 1).await;
    let me = me();
    for guard in GUARDS {
        let schema = h.items(guard).await;
        for round in 0..40_u64 {
            let number = round + 10;
            let changes: Vec<_> = (0..12)
                .map(|n| {
                    let key = format!("k{n}");
                    if (round + n).is_multiple_of(4) {
                        delete(&schema, &key, number)
                    } else {
                        put(&schema, &key, number)
                    }
                })
                .collect();
            // After so long, wherever that is in the transaction.
            let patience = Duration::from_micros(round * 150);
            let dropped = {
                let mut call = Box::pin(apply_as(&database, &schema, &changes, &me));
                match begin(call.as_mut()) {
                    Poll::Ready(outcome) => Some(outcome),
                    Poll::Pending => tokio::time::timeout(patience, call).await.ok(),
                }
            };
            if let Some(outcome) = dropped {
                assert_eq!(outcome.unwrap(), vec![Applied::Written; 12]);
            }
            // It was begun, so it ends, as a whole.
            let again = apply_as(&database, &schema, &changes, &me).await.unwrap();
            assert_eq!(again, vec![Applied::Same; 12], "{guard:?} round {round}");
            let read = database.read(&schema, &[id("k0"), id("k1")]).await.unwrap();
            for (n, row) in read.into_iter().enumerate() {
                let expected = if (round + n as u64).is_multiple_of(4) {
                    deleted(number)
                } else {
                    present(number, item(&format!("k{n}"), number as i64))
                };
                assert_eq!(row, expected);
            }
        }
    }
    if h.is_mysql() {
        let open = "SELECT count(*) FROM information_schema.INNODB_TRX t JOIN information_schema.PROCESSLIST p \
                    ON p.ID = t.trx_mysql_thread_id WHERE p.DB = DATABASE()";
        assert_eq!(h.number(open).await, Some(0), "no transaction is left open");
    }
}

async fn a_dropped_read_leaves_a_whole_connection(h: Harness) {
    let database = h.another(|options| options.pool = 1).await;
    let schema = h.items(VersionGuard::Column).await;
    let rows: Vec<_> = (0..200).map(|n| put(&schema, &format!("k{n}"), 10 + n)).collect();
    h.apply(&schema, &rows).await.unwrap();
    for round in 0..40_u64 {
        let many: Vec<_> = (0..250).map(|n| id(&format!("k{n}"))).collect();
        {
            let mut call = Box::pin(database.read(&schema, &many));
            if begin(call.as_mut()).is_pending() {
                let _ = tokio::time::timeout(Duration::from_micros(round * 100), call).await;
            }
        }
        let key = round * 3;
        let read = database.read(&schema, &[id(&format!("k{key}"))]).await.unwrap();
        assert_eq!(read, [present(10 + key, item(&format!("k{key}"), 10 + key as i64))], "the answer to this question");
    }
}
