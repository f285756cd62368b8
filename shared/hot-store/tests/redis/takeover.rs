//! Two openers of one shard at once.

use hot_store::{HotStore as _, HotStoreError, Restore};
use model::Epoch;
use redis::AsyncCommands as _;

use super::{
    OnRedis,
    contract::{Backend as _, kit::*},
    server::RedisServer,
};

/// Records of one call, so that there is time between its look and its transaction.
const RECORDS: u32 = 200;
const ROUNDS: u32 = 60;

/// What an opener puts back is there before another one has taken over, or never: it looks whether it still is the opener
/// and whether anything is there, and writes in a second step.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn nothing_is_put_back_behind_a_takeover() {
    let server = RedisServer::start(&[]).await;
    let b = OnRedis::at(&server.options().url).await;
    let (store, shard) = (b.store(), b.shard());
    let mut raw = b.raw.clone();
    let (mut landed, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let (slow, fast) = (token(&format!("slow-{round}")), token(&format!("fast-{round}")));
        store.claim(shard, &slow).await.unwrap();
        store.begin_opening(shard, &slow, Epoch(round + 1), start(false)).await.unwrap();
        let numbers = round * RECORDS..(round + 1) * RECORDS;
        let event = |number| {
            let at = version(u64::from(number) + 1);
            Restore::Dirty { record: record(number), version: at, behind: at, image: row(1) }
        };
        let records: Vec<_> = numbers.clone().map(event).collect();
        let last = b.record_key(numbers.end - 1);
        // At another moment of the call in each round.
        let takes_over = async {
            for _ in 0..round % 30 {
                tokio::task::yield_now().await;
            }
            store.claim(shard, &fast).await.unwrap().unwrap();
            raw.exists::<_, bool>(&last).await.unwrap()
        };
        let (put_back, there) = tokio::join!(store.restore(shard, &slow, records, LONG), takes_over);
        let there_at_the_end: bool = b.raw.clone().exists(&last).await.unwrap();
        assert_eq!(there, there_at_the_end, "round {round}: {put_back:?}");
        assert_eq!(put_back.is_ok(), there, "round {round}: {put_back:?}");
        match put_back {
            Ok(()) => landed += 1,
            Err(error) => {
                assert_eq!(error, HotStoreError::Superseded { shard });
                refused += 1;
            }
        }
    }
    // Some transactions were begun and given up: a takeover came between the look and them.
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut b.raw.clone()).await.unwrap();
    let execs = info.split("cmdstat_exec:calls=").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    assert!(landed > 0 && refused > 0, "{landed} landed, {refused} refused");
    assert!(execs.parse::<u32>().unwrap() > landed, "{execs} transactions for {landed} that landed");
}
