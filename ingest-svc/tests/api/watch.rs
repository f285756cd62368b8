//! Watches as clients meet them.

use std::time::Duration;

use runtime::Ending;
use shock_absorber_client::{
    Change, ChangeOperation, Client, ClientError, Code, Reason, Row, Watch, WatchOptions, Watched,
};
use tokio::time::timeout;

use crate::world::{LONG, World, id, payment};

async fn watch(client: &Client, options: &WatchOptions) -> Result<(Watch, Watched), ClientError> {
    let mut watch = client.watch("payments", options).await?;
    let first = timeout(LONG, watch.next()).await.expect("nothing is told at once")?;
    Ok((watch, first))
}

async fn changes(watch: &mut Watch, count: usize) -> Vec<Change> {
    let mut changes = Vec::new();
    while changes.len() < count {
        changes.extend(timeout(LONG, watch.next()).await.expect("nothing is told").unwrap().changes);
    }
    assert_eq!(changes.len(), count);
    changes
}

async fn refused(client: &Client, options: WatchOptions) -> ClientError {
    watch(client, &options).await.unwrap_err()
}

#[tokio::test]
async fn changes_are_told_as_a_read_tells_them_and_a_watch_goes_on_behind_its_token() {
    let world = World::new().await;
    let client = world.client();
    let (mut all, first) = watch(&client, &WatchOptions::default()).await.unwrap();
    assert!(first.is_live && first.changes.is_empty());
    let accepted = client.create("payments", payment("a", 1)).await.unwrap();
    let found = client.get("payments", id("a")).await.unwrap();
    let [change] = &changes(&mut all, 1).await[..] else { panic!("one is told") };
    assert_eq!((change.operation, &change.key), (ChangeOperation::Create, &id("a")));
    assert_eq!((change.row.as_ref(), &change.etag, change.version), (Some(&found.row), &found.etag, found.version));
    assert_eq!(change.etag, accepted.etag);
    let token = all.token().unwrap().to_owned();
    drop(all);

    client.update("payments", id("a"), Row::new().set("amount", 2)).await.unwrap();
    client.put("payments", payment("b", 1)).await.unwrap();
    client.delete("payments", id("a")).await.unwrap();
    let (keys, columns) = (vec![id("a")], vec!["amount".to_owned()]);
    let options = WatchOptions { keys, columns, from: Some(token), ..WatchOptions::default() };
    let (mut one, first) = watch(&client, &options).await.unwrap();
    assert!(!first.is_live);
    let told = changes(&mut one, 2).await;
    let rows: Vec<_> = told.iter().map(|change| (change.operation, change.row.clone())).collect();
    let updated = (ChangeOperation::Update, Some(Row::new().set("amount", 2)));
    assert_eq!(rows, [updated, (ChangeOperation::Delete, None)]);
    assert!(change.version < told[0].version && told[0].version < told[1].version);
}

#[tokio::test]
async fn what_is_wrong_with_the_question_is_told_with_its_field() {
    let world = World::new().await;
    let client = world.client();
    let token = watch(&client, &WatchOptions::default()).await.unwrap().1.token;
    let field = |error: ClientError| error.server().map(|told| (told.code, told.fields[0].field.clone())).unwrap();
    let tampered = token.replace(char::is_uppercase, "x");
    let tampered = refused(&client, WatchOptions { from: Some(tampered), ..WatchOptions::default() }).await;
    assert_eq!(field(tampered), (Code::InvalidArgument, "resume_token".to_owned()));
    let keys = vec![id("a"), Row::new().set("amount", 1)];
    let wrong = refused(&client, WatchOptions { keys, ..WatchOptions::default() }).await;
    assert_eq!(field(wrong), (Code::InvalidArgument, "keys[1].columns[\"amount\"]".to_owned()));
    let columns = vec!["nope".to_owned()];
    let wrong = refused(&client, WatchOptions { columns, ..WatchOptions::default() }).await;
    assert_eq!(field(wrong), (Code::InvalidArgument, "columns".to_owned()));
    let keys = (0..101).map(|n| id(&n.to_string())).collect();
    assert!(refused(&client, WatchOptions { keys, ..WatchOptions::default() }).await.is(Reason::BatchTooLarge));

    let mut never = client.watch("orders", &WatchOptions::default()).await.unwrap();
    assert!(never.next().await.unwrap_err().is(Reason::TableNotEnabled));
    // A token of another installation's log, which has the same names.
    let other = World::new().await;
    let client = other.client();
    let (mut moved, _) = watch(&world.client(), &WatchOptions::default()).await.unwrap();
    world.client().put("payments", payment("a", 1)).await.unwrap();
    changes(&mut moved, 1).await;
    client.put("payments", payment("a", 2)).await.unwrap();
    let from = moved.token().map(str::to_owned);
    let expired = refused(&client, WatchOptions { from, ..WatchOptions::default() }).await;
    assert_eq!((expired.reason(), expired.code()), (Some("WATCH_TOKEN_EXPIRED"), Code::OutOfRange), "{expired}");
}

#[tokio::test]
async fn watches_have_a_limit_of_their_own_and_are_in_nobody_s_way() {
    let world = World::with(&["ingest.max_watches=2", "ingest.max_in_flight=1", "ingest.watch_progress=50ms"]).await;
    let client = world.client();
    let options = WatchOptions::default();
    let (mut first, _) = watch(&client, &options).await.unwrap();
    let second = watch(&client, &options).await.unwrap();
    let more = refused(&client, options.clone()).await;
    assert!(more.is(Reason::TooManyWatches) && more.retry_after().is_some(), "{more}");
    client.put("payments", payment("a", 1)).await.unwrap();
    assert_eq!(changes(&mut first, 1).await[0].key, id("a"));
    // It is told now and then that it still goes on.
    assert_eq!(timeout(LONG, first.next()).await.unwrap().unwrap().changes, []);
    drop(second);
    let room = timeout(LONG, async { while watch(&client, &options).await.is_err() {} });
    room.await.expect("who hangs up makes room");

    client.disable_table("payments").await.unwrap();
    let ended = timeout(LONG, async {
        loop {
            if let Err(error) = first.next().await {
                return error;
            }
        }
    });
    assert!(ended.await.unwrap().is(Reason::TableNotEnabled));
}

#[tokio::test]
async fn a_row_that_is_too_large_for_a_message_is_left_out() {
    let world = World::with(&["ingest.max_message_bytes=65536"]).await;
    let client = world.client();
    let (mut all, _) = watch(&client, &WatchOptions::default()).await.unwrap();
    let large = payment("large", 1).set("note", "x".repeat(65_536 - 150));
    client.put("payments", large).await.unwrap();
    client.put("payments", payment("small", 1)).await.unwrap();
    let mut told = changes(&mut all, 2).await;
    told.sort_by_key(|change| change.row.is_some());
    let told: Vec<_> = told.iter().map(|c| (c.key.clone(), c.row.is_some(), c.is_row_omitted)).collect();
    assert_eq!(told, [(id("large"), false, true), (id("small"), true, false)]);
}

#[tokio::test]
async fn a_watch_does_not_hold_up_the_end() {
    let world = World::new().await;
    let (mut all, _) = watch(&world.client(), &WatchOptions::default()).await.unwrap();
    let ending = world.stop(LONG);
    let stopped = timeout(LONG, all.next()).await.unwrap().unwrap_err();
    assert!(stopped.is(Reason::NotServing), "{stopped}");
    assert_eq!(timeout(Duration::from_secs(90), ending).await.unwrap().unwrap(), Ending::Finished);
}
