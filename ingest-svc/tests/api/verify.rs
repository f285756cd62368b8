//! A verification as operators meet it.

use std::time::Duration;

use jiff::Timestamp;
use runtime::Ending;
use shock_absorber_client::{Client, ClientError, Reason, VerifyOptions, VerifyProgress};
use tokio::time::timeout;

use crate::world::{LONG, World, id, payment};

const FAST: VerifyOptions = VerifyOptions { since: None, records_per_second: Some(100_000), max_listed: None };

async fn verify(client: &Client, table: &str, options: VerifyOptions) -> Result<VerifyProgress, ClientError> {
    let mut verification = client.verify(table, &options).await?;
    let mut last = None;
    while let Some(told) = verification.next().await? {
        assert_eq!(told.differences, []);
        last = told.is_complete.then_some(told.progress);
    }
    Ok(last.expect("the last word is missing"))
}

#[tokio::test]
async fn what_waits_for_the_database_is_counted_and_is_no_difference() {
    let world = World::new().await;
    let client = world.client();
    for n in 0..20 {
        client.put("payments", payment(&format!("p{n}"), n)).await.unwrap();
    }
    let progress = verify(&client, "payments", FAST).await.unwrap();
    assert_eq!((progress.pending, progress.agree, progress.differ), (20, 0, 0), "nothing drains here");
    assert_eq!(progress.read, progress.records);
    let later = VerifyOptions { since: Some(Timestamp::now() + Duration::from_secs(3600)), ..FAST };
    assert_eq!(verify(&client, "payments", later).await.unwrap().pending, 0);

    world.sql("INSERT INTO payments (id, amount) VALUES ('p3', 99)").await;
    assert_eq!(verify(&client, "payments", FAST).await.unwrap().differ, 0, "its write is still to come");
}

#[tokio::test]
async fn what_is_wrong_with_the_question_is_told_with_its_field() {
    let world = World::new().await;
    let client = world.client();
    let never = verify(&client, "orders", FAST).await.unwrap_err();
    assert!(never.is(Reason::TableNotEnabled), "{never}");
    let much = VerifyOptions { records_per_second: Some(100_001), ..FAST };
    let much = verify(&client, "payments", much).await.unwrap_err();
    assert_eq!(much.server().unwrap().fields[0].field, "records_per_second", "{much}");
    let long = VerifyOptions { max_listed: Some(10_001), ..FAST };
    let long = verify(&client, "payments", long).await.unwrap_err();
    assert_eq!(long.server().unwrap().fields[0].field, "max_listed", "{long}");
}

#[tokio::test]
async fn a_verification_holds_up_neither_the_next_one_nor_the_end() {
    let world = World::new().await;
    let client = world.client();
    for n in 0..50 {
        client.put("payments", payment(&format!("p{n}"), n)).await.unwrap();
    }
    let slow = VerifyOptions { records_per_second: Some(1), ..FAST };
    let first = client.verify("payments", &slow).await.unwrap();
    let mut second = client.verify("payments", &slow).await.unwrap();
    assert!(second.next().await.unwrap().is_some());
    let busy = timeout(LONG, async {
        loop {
            if let Err(error) = verify(&client, "payments", FAST).await {
                return error;
            }
        }
    });
    assert!(busy.await.unwrap().is(Reason::Overloaded));
    // Who hangs up makes room.
    drop(first);
    let room = timeout(LONG, async { while verify(&client, "payments", FAST).await.is_err() {} });
    room.await.unwrap();
    let ending = world.stop(LONG);
    let stopped = timeout(LONG, async {
        loop {
            if let Err(error) = second.next().await {
                return error;
            }
        }
    });
    assert!(stopped.await.unwrap().is(Reason::NotServing));
    assert_eq!(timeout(LONG, ending).await.unwrap().unwrap(), Ending::Finished);
    assert!(client.get("payments", id("p1")).await.is_err());
}
