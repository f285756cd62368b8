//! Many reads at once, and others who write to the same table.

use anyhow::{Result, ensure};
use shock_absorber_client::{AckLevel, Acknowledge, Consistency, Eviction, Get, Reason, Row, Value, Write};
use shock_absorber_tests::System;

use super::{
    payments::{key, payment, read_status, status},
    semantics::cold_row,
};

/// More than one statement's worth of cold ones.
const COLD: usize = 150;

pub(crate) async fn many_reads_are_answered_as_one_by_one(system: &mut System) -> Result<()> {
    let client = &system.client;
    for n in 0..COLD {
        cold_row(system, &format!("cold-{n}")).await?;
    }
    for n in 0..50 {
        client.create("payments", payment(&format!("hot-{n}"), "10.00")).await?;
    }
    let entry = Row::new().set("tenant", "north").set("n", 1);
    client.put("entries", entry.clone().set("amount", Value::Decimal("5.00".into()))).await?;
    client.delete("payments", key("hot-7")).await?;
    let mut gets: Vec<Get> = (0..COLD).map(|n| Get::new("payments", key(&format!("cold-{n}")))).collect();
    gets.extend((0..60).map(|n| Get::new("payments", key(&format!("hot-{n}"))).columns(["id", "amount", "status"])));
    gets.push(Get::new("entries", entry).columns(["amount"]));
    gets.push(Get::new("payments", key("hot-1")).columns(["colour"]));
    // The second time everything is hot.
    for _ in 0..2 {
        let results = client.batch_get(&gets).await;
        for (get, result) in gets.iter().zip(&results) {
            match (client.read(get).await, result) {
                (Ok(single), Ok(found)) => assert_eq!(&single, found),
                (Err(single), Err(error)) => assert_eq!(single.reason(), error.reason()),
                (single, found) => panic!("alone {single:?}, in a batch {found:?}"),
            }
        }
        let found = results.iter().filter(|result| result.is_ok()).count();
        let missing = results.iter().filter(|r| r.as_ref().is_err_and(|error| error.is(Reason::NotFound))).count();
        assert_eq!((found, missing), (COLD + 50, 11));
        assert!(results.last().is_some_and(|r| r.as_ref().is_err_and(|error| error.is(Reason::UnknownColumn))));
    }
    Ok(())
}

/// The status that the database itself has.
async fn committed(system: &System, id: &str) -> Result<Option<Value>> {
    match system.client.read(&Get::new("payments", key(id)).consistency(Consistency::Database)).await {
        Ok(found) => {
            ensure!(found.etag.is_empty(), "a read of the database alone has an etag: {found:?}");
            Ok(found.row.get("status").cloned())
        }
        Err(error) if error.is(Reason::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) async fn what_others_write_is_seen_when_it_is_asked_for_or_the_record_is_forgotten(
    system: &mut System,
) -> Result<()> {
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    let client = system.client.acknowledging(Acknowledge::required(AckLevel::Applied));
    client.create("payments", payment("ours", "1.00")).await?;
    assert_eq!(read_status(system, "ours").await?.as_deref(), Some("INITIATED"));
    assert_eq!(read_status(system, "theirs").await?, None);
    // Somebody else changes a row of ours, which keeps its version, and inserts another one, which has none.
    system.database.run_script("UPDATE payments SET status = 'CHANGED' WHERE id = 'ours';").await?;
    cold_row(system, "theirs").await?;
    assert_eq!(committed(system, "ours").await?, text("CHANGED"));
    assert!(committed(system, "theirs").await?.is_some());
    assert_eq!(read_status(system, "ours").await?.as_deref(), Some("INITIATED"), "it is hot");
    let evicted = system.client.evict("payments", &[key("ours"), key("theirs")]).await?;
    ensure!(matches!(evicted[0], Ok(Eviction::Evicted)), "{evicted:?}");
    assert_eq!(read_status(system, "ours").await?.as_deref(), Some("CHANGED"));
    assert!(read_status(system, "theirs").await?.is_some());

    // What is written through us builds on what is read then, and is not lost to what has no version.
    client.update("payments", key("theirs"), status("PENDING")).await?;
    client.write(&Write::update("payments", key("ours"), status("SUCCESS"))).await?;
    assert_eq!(
        (committed(system, "ours").await?, committed(system, "theirs").await?),
        (text("SUCCESS"), text("PENDING"))
    );

    // A row that somebody else deletes is hot until it is forgotten.
    system.database.run_script("DELETE FROM payments WHERE id IN ('ours', 'theirs');").await?;
    assert_eq!(read_status(system, "ours").await?.as_deref(), Some("SUCCESS"));
    assert_eq!(committed(system, "ours").await?, None);
    system.client.evict("payments", &[key("ours"), key("theirs")]).await?;
    assert_eq!((read_status(system, "ours").await?, read_status(system, "theirs").await?), (None, None));
    // And can be created anew.
    client.create("payments", payment("ours", "2.00")).await?;
    assert_eq!(committed(system, "ours").await?, text("INITIATED"));
    Ok(())
}
