//! A pool whose connections are all in use is not a server that is away.

use std::time::Duration;

use database::{Applied, Database, DatabaseError, ErrorClass};
use model::VersionGuard;

use crate::harness::*;

on_servers!(a_pool_that_is_all_in_use_is_told_from_a_server_that_is_away);

/// It is busy, not away: nobody else is to wait for it.
async fn a_pool_that_is_all_in_use_is_told_from_a_server_that_is_away(h: Harness) {
    let schema = h.items(VersionGuard::Column).await;
    h.apply_one(&schema, put(&schema, "a", 10)).await;
    let one = h
        .another(|options| {
            options.pool = 1;
            options.connect_timeout = Duration::from_secs(2);
            options.lock_timeout = Duration::from_secs(300);
            options.statement_timeout = Duration::from_secs(300);
        })
        .await;
    let mut theirs = h.somebody_else().await;
    theirs.run("BEGIN").await;
    theirs.run("UPDATE items_column SET n = 0 WHERE id = 'a'").await;
    let (first, second) = ([put(&schema, "a", 20)], [put(&schema, "a", 30)]);
    let (owner, [first, second]) = (me(), [&first, &second].map(|changes| &changes[..]));
    let mut writing = [first, second].map(|changes| Box::pin(apply_as(&one, &schema, changes, &owner)));
    let [a, b] = &mut writing;
    // One has the only connection and waits for the row.
    let (refused, waits) = tokio::select! {
        refused = a => (refused, 1),
        refused = b => (refused, 0),
    };
    let Err(DatabaseError::Statement { class, code, message, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!((class, code.as_str()), (ErrorClass::Contended, "pool"), "{message}");
    assert_eq!(one.probe().await, Ok(()));
    theirs.run("ROLLBACK").await;
    assert_eq!(writing[waits].as_mut().await, Ok(vec![Applied::Written]));
}
