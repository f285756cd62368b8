//! A stream of writes that outlives the processes and stores below it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use shock_absorber_client::{Client, Pending, Write, WriteStream, WriteStreamOptions};
use shock_absorber_tests::System;
use tokio::{sync::mpsc, time::timeout};

use super::payments::{drained, key, payment, read_status, status};

const RECORDS: usize = 60;
/// A write is sent again for so long: less than request ids are remembered.
const PATIENCE: Duration = Duration::from_secs(100);
/// Results between two hurts.
const BETWEEN: usize = 200;

pub(crate) async fn a_stream_of_writes_outlives_a_kill_and_a_stop(system: &mut System) -> Result<()> {
    stream_through(system, 2, async |system: &mut System, nth| {
        if nth == 0 {
            return system.kill_and_restart().await;
        }
        let ingest = &mut system.services[0];
        let ended = ingest.stop().await?;
        ensure!(ended.success(), "it ended with {ended}:\n{}", ingest.log());
        ingest.restart().await
    })
    .await
}

pub(crate) async fn a_stream_of_writes_outlives_a_redis_that_is_killed(system: &mut System) -> Result<()> {
    stream_through(system, 2, async |system: &mut System, _| {
        let own = system.own.as_mut().context("no servers of its own")?;
        own.redis.kill9();
        own.redis.restart().await
    })
    .await
}

/// Creates records and changes them again and again through one stream, while something is hurt so many times. Every write
/// must be acknowledged: a create that took effect twice would be told that there is such a record. And the last one of each
/// record must be what is read, and what the database has in the end.
async fn stream_through(
    system: &mut System,
    hurts: usize,
    mut hurt: impl AsyncFnMut(&mut System, usize) -> Result<()>,
) -> Result<()> {
    let client = Client::builder(system.services[0].api_url()).timeout(PATIENCE).connect().await?;
    let stream = WriteStream::new(client, WriteStreamOptions { max_items: 150, ..WriteStreamOptions::default() });
    let (sent, mut pending) = mpsc::unbounded_channel::<Pending>();
    let enough = Arc::new(AtomicBool::new(false));
    let sender = tokio::spawn({
        let enough = enough.clone();
        async move {
            let mut round = 0;
            loop {
                let is_last = enough.load(Ordering::SeqCst);
                for id in (0..RECORDS).map(|n| format!("p{n}")) {
                    let write = match round {
                        0 => Write::create("payments", payment(&id, "1.00")),
                        _ => Write::update("payments", key(&id), status(&format!("R{round}"))),
                    };
                    sent.send(stream.send(write).await?)?;
                }
                if is_last && round > 0 {
                    stream.close().await;
                    return anyhow::Ok(round);
                }
                round += 1;
            }
        }
    });
    let (mut answered, mut hurt_times) = (0, 0);
    while let Some(result) = timeout(2 * PATIENCE, pending.recv()).await.context("a result")? {
        timeout(2 * PATIENCE, result).await.context("a result")?.with_context(|| format!("write {answered}"))?;
        answered += 1;
        if answered == BETWEEN * (hurt_times + 1) && hurt_times < hurts {
            hurt(system, hurt_times).await?;
            hurt_times += 1;
            enough.store(hurt_times == hurts, Ordering::SeqCst);
        }
    }
    let last = format!("R{}", sender.await??);
    for n in 0..RECORDS {
        assert_eq!(read_status(system, &format!("p{n}")).await?.as_ref(), Some(&last), "p{n} after {answered} writes");
    }
    drained(system, &format!("SELECT COUNT(*) FROM payments WHERE status = '{last}'"), RECORDS as i64).await?;
    drained(system, "SELECT COUNT(*) FROM payments", RECORDS as i64).await
}
