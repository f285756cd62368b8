//! How often a read of many shards has to wait for the server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hot_store::RecordId;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::*;

/// Nobody pauses for so long in the middle of a pipeline, but where the machine stalls.
const QUIET: Duration = Duration::from_millis(30);

/// Passes on what the client sends at once, and what the server answers when both have been quiet for a while: so each time
/// that it does is one round trip, however the bytes are cut.
async fn relay(mut client: TcpStream, server: std::net::SocketAddr, trips: Arc<AtomicUsize>) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let mut answers = Vec::new();
    let (mut asked, mut answered) = ([0; 65536], [0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(0) | Err(_) => return,
                Ok(bytes) => server.write_all(&asked[..bytes]).await.unwrap(),
            },
            read = server.read(&mut answered) => match read {
                Ok(0) | Err(_) => return,
                Ok(bytes) => answers.extend_from_slice(&answered[..bytes]),
            },
            () = sleep(QUIET), if !answers.is_empty() => {
                trips.fetch_add(1, Ordering::SeqCst);
                if client.write_all(&answers).await.is_err() {
                    return;
                }
                answers.clear();
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_thousand_records_of_all_shards_are_one_round_trip() {
    let direct = on_redis().await;
    let server = direct.url.trim_start_matches("redis://").trim_end_matches('/').parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let trips = Arc::new(AtomicUsize::new(0));
    let counted = trips.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(relay(client, server, counted.clone()));
        }
    });
    let options = RedisOptions { url: format!("redis://127.0.0.1:{port}"), ..direct.options() };
    let store = RedisStore::connect(options).await.unwrap();

    let mut groups: Vec<(Shard, Vec<RecordId>)> = (0..64).map(|shard| (Shard(shard), Vec::new())).collect();
    for (shard, _) in &groups {
        open_shard(&direct, *shard).await;
    }
    for number in 0..1000 {
        groups[number as usize % 64].1.push(record(number));
    }
    for (shard, records) in &groups {
        let write =
            |id: &RecordId| Write { record: id.clone(), precondition: Precondition::None, image: row(1), index: None };
        direct.store.write(*shard, Instant::now(), records.iter().map(write).collect()).await.unwrap();
    }
    let mut least = usize::MAX;
    // The first one makes the connection and the script known. Later ones are told apart where the machine stalled only.
    for attempt in 0..20 {
        let before = trips.load(Ordering::SeqCst);
        for answer in store.read_many(groups.clone(), 4 << 20).await {
            assert!(answer.unwrap().slots.iter().all(|slot| matches!(slot, Slot::Image { .. })));
        }
        let took = trips.load(Ordering::SeqCst) - before;
        assert!(took > 0, "nothing passed through the relay");
        if attempt > 0 {
            least = least.min(took);
        }
        if least == 1 {
            break;
        }
    }
    assert_eq!(least, 1);
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_server_that_has_forgotten_the_script_learns_it_in_between() {
    // One of its own: others must not lose their scripts.
    let server = RedisServer::start(&[]).await;
    let b = OnRedis::at(&server.options().url).await;
    for shard in [1, 2, 17] {
        open_shard(&b, Shard(shard)).await;
    }
    put(&b, record(1), row(1)).await;
    for _ in 0..2 {
        let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut b.raw.clone()).await.unwrap();
        let groups = [1, 17, 3, 2].map(|shard| (Shard(shard), vec![record(1)])).to_vec();
        let answers = b.store.read_many(groups, 4 << 20).await;
        assert!(matches!(answers[1].as_ref().unwrap().slots[..], [Slot::Image { .. }]));
        assert_eq!(answers[2], Err(HotStoreError::Closed { shard: Shard(3) }));
        assert!([0, 3].iter().all(|&at| answers[at].as_ref().unwrap().slots == [Slot::Empty]));
    }
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn where_the_server_is_gone_each_shard_is_told_so() {
    let mut server = RedisServer::start(&[]).await;
    let store = server.store().await;
    server.kill();
    let answers = store.read_many(vec![(Shard(1), vec![record(1)]), (Shard(2), Vec::new())], 4 << 20).await;
    let is_away = |error: &HotStoreError| matches!(error, HotStoreError::Unavailable(_) | HotStoreError::Unknown(_));
    assert!(answers.len() == 2 && answers.iter().all(|answer| answer.as_ref().is_err_and(is_away)), "{answers:?}");
}
