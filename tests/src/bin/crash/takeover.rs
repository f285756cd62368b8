//! How long a killed drain's partitions stand still.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use shock_absorber_client::{Client, Write};

use crate::{
    places::{Place, Table},
    stand::{SESSION, Stand},
};

/// Enough to meet every shard of a few.
const RECORDS: u64 = 100;
/// Above all keys that the clients write.
const FIRST: u64 = 1_000_000_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills a drain for good, writes into every shard, and takes the time until the database has it all. The drain is back
/// afterwards.
///
/// # Errors
/// If that takes many times longer than it may.
pub(crate) async fn measure(stand: &mut Stand, client: &Client, cycle: u64, victim: usize) -> Result<Duration> {
    stand.drains[victim].kill9();
    let killed = Instant::now();
    let writes: Vec<Write> = (0..RECORDS)
        .map(|n| {
            let place = Place { table: Table::ALL[(n % 2) as usize], n: FIRST + cycle * RECORDS + n };
            Write::put(place.table.name(), place.row(FIRST + cycle * RECORDS + n))
        })
        .collect();
    client.batch_write(&writes).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    stand.drained(SESSION + PATIENCE).await.context("the partitions of a killed drain stand still")?;
    let took = killed.elapsed();
    stand.drains[victim].relaunch()?;
    try_join_all(stand.drains.iter_mut().map(shock_absorber_tests::Service::ready)).await?;
    eprintln!("  a killed drain's partitions were drained by others after {:.1} s", took.as_secs_f64());
    Ok(took)
}
