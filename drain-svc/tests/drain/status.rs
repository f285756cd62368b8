//! What replicas tell of themselves.

use std::time::Duration;

use hot_store::{HotStore as _, ReplicaReport, TableReport, TableState};
use tokio::time::sleep;

use crate::world::{SHARDS, Still, World, limited, options};

async fn reports<L, D>(world: &World<L, D>) -> Vec<ReplicaReport> {
    world.hot.reports().await.unwrap().into_iter().map(|seen| seen.report).collect()
}

fn partitions(report: &TableReport) -> u32 {
    report.partitions.iter().map(|(first, last)| u32::from(last - first) + 1).sum()
}

#[tokio::test(start_paused = true)]
async fn each_replica_tells_what_it_owns_writes_and_waits_for() {
    let world = Still::still().await;
    for n in 0..200 {
        world.write(n, Some(n)).await;
    }
    let replicas: Vec<_> = (0..2)
        .map(|n| {
            let mut options = limited(20.0);
            options.replica = format!("replica-{n}");
            world.start(options)
        })
        .collect();
    sleep(Duration::from_secs(6)).await;
    let told = reports(&world).await;
    assert_eq!(told.iter().map(|report| report.replica.as_str()).collect::<Vec<_>>(), ["replica-0", "replica-1"]);
    let tables: Vec<&TableReport> = told.iter().map(|report| &report.tables[0]).collect();
    assert!(tables.iter().all(|table| (&table.database[..], &table.table[..]) == ("main", "payments")));
    assert_eq!(tables.iter().map(|table| partitions(table)).sum::<u32>(), SHARDS, "{tables:?}");
    assert!(tables.iter().all(|table| table.limit == Some(20.0) && table.batch_rows == 1));
    assert!(tables.iter().all(|table| table.state == TableState::Running && table.attempts == 0));
    // Of what was told a second ago at the latest.
    let written = tables.iter().map(|table| table.rows_written).sum::<u64>();
    assert!((60..=120).contains(&written), "{written}");
    assert!(tables.iter().map(|table| table.gathered).sum::<u64>() >= 80, "{tables:?}");
    let rate = tables.iter().map(|table| table.rows_per_second).sum::<f64>();
    assert!((10.0..=21.0).contains(&rate), "{rate}");

    // Who ends is not shown any more, and what it owned is another's.
    let mut replicas = replicas.into_iter();
    replicas.next().unwrap().stop().await;
    let [left] = &reports(&world).await[..] else { panic!("one is left") };
    assert_eq!(left.replica, "replica-1");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(partitions(&reports(&world).await[0].tables[0]), SHARDS);
    replicas.next().unwrap().kill().await;
    assert_eq!(reports(&world).await.len(), 1);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(reports(&world).await, []);
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_told_with_its_cause() {
    let world = Still::still().await;
    let replica = world.start(options());
    sleep(Duration::from_secs(3)).await;
    world.db.away.store(true, std::sync::atomic::Ordering::SeqCst);
    world.write(1, Some(1)).await;
    sleep(Duration::from_secs(3)).await;
    let told = reports(&world).await.remove(0).tables.remove(0);
    assert!(told.attempts > 0 && !told.last_cause.is_empty(), "{told:?}");
    world.db.away.store(false, std::sync::atomic::Ordering::SeqCst);
    world.until_clean().await;
    sleep(Duration::from_secs(2)).await;
    let told = reports(&world).await;
    assert_eq!((told[0].tables[0].rows_written, told[0].tables[0].attempts), (1, 0));
    replica.stop().await;
}
