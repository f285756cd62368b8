//! Coalescing: how few rows are written where few keys are written most of the time, and that nothing is lost by it.
//!
//! The database is given a part of what comes: a 25th as many rows per second as operations were
//! acknowledged per second at the beginning. It counts itself what is written to it, by triggers. Then each row is compared
//! with the last acknowledged write of its key.

mod stand;
mod zipf;

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use shock_absorber_client::{Accepted, Client, Row, Write};

use crate::report::{Reach, Report};
use stand::{Stand, TABLE};
use zipf::Zipf;

const EXPONENT: f64 = 0.99;
/// Of what comes, the database takes one in so many.
const SHARE: f64 = 25.0;
/// One in so many operations is a delete.
const DELETES: u64 = 20;
const WRITERS: usize = 4;
const AT_ONCE: usize = 250;
/// Of the operations, so many tell how fast they are accepted.
const WARM_UP: u64 = 10;
const SEED: u64 = 20;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
struct Plan {
    keys: usize,
    operations: u64,
}

/// Measures it.
pub(crate) async fn measure(quick: bool) -> Result<Report> {
    // As many operations per key in both.
    let plan =
        if quick { Plan { keys: 500, operations: 50_000 } } else { Plan { keys: 10_000, operations: 1_000_000 } };
    let Plan { keys, operations } = plan;
    eprintln!("starting Redis, Kafka, MariaDB, ingest and two drains");
    let mut stand = Stand::start().await?;
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, plan)).collect();
    eprintln!("writing: {operations} operations on {keys} keys");
    let begun = Instant::now();
    let warm_up = operations / WARM_UP;
    write(&stand.client, &mut writers, warm_up).await?;
    let accepted = warm_up as f64 / begun.elapsed().as_secs_f64();
    stand.limit(accepted / SHARE).await?;
    let before = stand.written().await?;
    let begun = Instant::now();
    let rest = operations - warm_up;
    write(&stand.client, &mut writers, rest).await?;
    let rate = rest as f64 / begun.elapsed().as_secs_f64();
    eprintln!("{rate:.0} operations/s were acknowledged; waiting until the database has the last ones");
    let last: BTreeMap<usize, Last> = writers.into_iter().flat_map(|writer| writer.last).collect();
    stand.drained(last.values().map(|last| last.token.as_str())).await?;
    let written = stand.written().await? - before;
    let wrong = differing(&stand.rows().await?, &last);
    stand.stop().await?;

    let mut report = Report::new("coalesce");
    let of = format!("Zipf {EXPONENT}, {keys} keys, {operations} operations");
    let percent = 100.0 * written as f64 / rest as f64;
    report.add(
        format!("{of}, a database that takes one in {SHARE}: rows written"),
        percent,
        "%",
        100.0,
        Reach::AtMost(10.0),
    );
    report.add(
        format!("{of}: keys whose row is not the last acknowledged write"),
        wrong as f64,
        "keys",
        0.0,
        Reach::AtMost(0.0),
    );
    // Who writes nothing coalesces best, so it must be seen that all was drained.
    let drained = 100.0 * stand_in_for_all(&last, keys);
    report.add(format!("{of}: keys that were written at all"), drained, "%", 100.0, Reach::AtLeast(90.0));
    Ok(report)
}

/// The share of the keys that were written.
fn stand_in_for_all(last: &BTreeMap<usize, Last>, keys: usize) -> f64 {
    last.len() as f64 / keys as f64
}

/// What was acknowledged last of a key.
struct Last {
    /// `None`: it was deleted.
    amount: Option<i64>,
    token: String,
}

/// A writer of its own keys, so that the last write of each is known.
struct Writer {
    number: usize,
    zipf: Zipf,
    chance: SmallRng,
    done: i64,
    last: BTreeMap<usize, Last>,
}

impl Writer {
    fn new(number: usize, plan: Plan) -> Self {
        Self {
            number,
            zipf: Zipf::new(plan.keys, EXPONENT),
            chance: SmallRng::seed_from_u64(SEED + number as u64),
            done: 0,
            last: BTreeMap::new(),
        }
    }

    /// The next operation that falls to it, of those that all together draw from one distribution.
    fn next(&mut self) -> (usize, Option<i64>) {
        let key = loop {
            let key = self.zipf.draw(self.chance.random());
            if key % WRITERS == self.number {
                break key;
            }
        };
        self.done += 1;
        let is_delete = self.chance.random_range(0..DELETES) == 0;
        (key, (!is_delete).then_some(self.done))
    }

    async fn write(&mut self, client: &Client, operations: u64) -> Result<()> {
        let mut left = usize::try_from(operations)?;
        while left > 0 {
            let some: Vec<_> = (0..left.min(AT_ONCE)).map(|_| self.next()).collect();
            left -= some.len();
            let of = |&(key, amount): &(usize, Option<i64>)| {
                let id = Row::new().set("id", key as i64);
                match amount {
                    Some(amount) => Write::put(TABLE, id.set("amount", amount)),
                    None => Write::delete(TABLE, id),
                }
            };
            let writes: Vec<Write> = some.iter().map(of).collect();
            let results = client.batch_write(&writes).await;
            ensure!(results.len() == some.len(), "{} results for {} writes", results.len(), some.len());
            for ((key, amount), result) in some.into_iter().zip(results) {
                let Accepted { token, .. } = result.context("a write was not acknowledged")?;
                self.last.insert(key, Last { amount, token });
            }
        }
        Ok(())
    }
}

/// All of them write, each what falls to its keys.
async fn write(client: &Client, writers: &mut [Writer], operations: u64) -> Result<()> {
    let shares: Vec<f64> =
        writers.iter().map(|writer| writer.zipf.share(|key| key % WRITERS == writer.number)).collect();
    let mut counts: Vec<u64> = shares.iter().map(|share| (share * operations as f64) as u64).collect();
    if let Some(first) = counts.first().copied() {
        counts[0] = first + operations.saturating_sub(counts.iter().sum());
    }
    let writes = writers.iter_mut().zip(counts).map(|(writer, count)| writer.write(client, count));
    try_join_all(writes).await.map(drop)
}

/// How many keys have another row than they should.
fn differing(rows: &BTreeMap<usize, i64>, last: &BTreeMap<usize, Last>) -> usize {
    let wrong = last.iter().filter(|(key, last)| rows.get(key).copied() != last.amount).count();
    let unknown = rows.keys().filter(|key| !last.contains_key(key)).count();
    wrong + unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_not_the_last_write_is_counted() {
        let last = |amount| Last { amount, token: String::new() };
        let expected = BTreeMap::from([(1, last(Some(5))), (2, last(None)), (3, last(Some(7)))]);
        assert_eq!(differing(&BTreeMap::from([(1, 5), (3, 7)]), &expected), 0);
        assert_eq!(differing(&BTreeMap::from([(1, 4), (2, 1), (4, 1)]), &expected), 4);
    }
}
