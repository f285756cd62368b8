//! Servers that die, freeze, are not there, or refuse.

use super::*;

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_killed_server_closes_its_shards_and_they_can_be_opened_again() {
    let mut server = RedisServer::start(&[]).await;
    let b = OnRedis::at(&server.options().url).await;
    let epoch = open(&b).await;
    let queued = put(&b, record(1), row(1)).await;
    assert!(mark_queued(&b, epoch, record(1), queued).await);
    let unqueued = put(&b, record(2), row(2)).await;
    b.store.checkpoint(b.shard(), epoch, Checkpoint(points(55))).await.unwrap();
    let late = lease(&b, record(3), LONG).await;
    let late_opener = token("late");
    let other = Shard(5);
    b.store.claim(other, &late_opener).await.unwrap();

    let mut ended = server.end_notice().await;
    server.kill();
    ended.recv().await.unwrap();
    let write =
        |number| vec![Write { record: record(number), precondition: Precondition::None, image: row(3), index: None }];
    let refused = b.store.write(b.shard(), Instant::now(), write(9)).await;
    assert!(matches!(refused, Err(HotStoreError::Unavailable(_))), "nothing was sent: {refused:?}");
    server.resume().await;

    let closed = HotStoreError::Closed { shard: b.shard() };
    eventually("the store reconnects", async || {
        !matches!(b.store.read(b.shard(), vec![record(1)]).await, Err(HotStoreError::Unavailable(_)))
    })
    .await;
    // Its scripts are forgotten too; nobody notices.
    assert_eq!(b.store.read(b.shard(), vec![record(1)]).await, Err(closed.clone()));
    assert_eq!(b.store.write(b.shard(), Instant::now(), write(1)).await, Err(closed.clone()));
    let refused = b.store.fill(b.shard(), record(3), late, Fill::Absent, LONG).await;
    assert_eq!(refused, Err(closed));
    let refused = b.store.begin_opening(other, &late_opener, Epoch(1), start(false)).await;
    assert_eq!(refused, Err(HotStoreError::Superseded { shard: other }));

    let found = b.store.claim(b.shard(), &token("a")).await.unwrap().unwrap();
    assert_eq!((found.epoch, found.checkpoint, found.resumed), (epoch, Some(Checkpoint(points(55))), None));
    let now = open(&b).await;
    assert_eq!(now, Epoch(epoch.0 + 1));
    let answer = b.store.read(b.shard(), (1..=3).map(record).collect()).await.unwrap();
    assert_eq!(answer.slots, [image_slot(queued, row(1), true), image_slot(unqueued, row(2), true), Slot::Empty]);
    assert_eq!(dirty(&b, Dirty::Unqueued).await, [unqueued]);
    assert!(put(&b, record(1), row(3)).await > unqueued);
}

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_frozen_server_leaves_the_outcome_unknown() {
    let server = RedisServer::start(&[]).await;
    let options = RedisOptions { response_timeout: Duration::from_millis(200), ..server.options() };
    let store = RedisStore::connect(options).await.unwrap();
    let (url, prefix, raw) = (server.options().url, "sa".to_owned(), server.connection().await.unwrap());
    let b = OnRedis { store, url, prefix, raw };
    open(&b).await;
    // Only a script that the server knows can take effect without an answer.
    put(&b, record(2), row(2)).await;
    server.signal("STOP");
    let write = vec![Write { record: record(1), precondition: Precondition::None, image: row(1), index: None }];
    let answer = b.store.write(b.shard(), Instant::now(), write).await;
    assert!(matches!(answer, Err(HotStoreError::Unknown(_))), "{answer:?}");
    server.signal("CONT");
    // As here, where it took effect after all.
    eventually("the write takes effect", async || {
        matches!(
            b.store.read(b.shard(), vec![record(1)]).await.as_ref().map(|answer| &answer.slots[0]),
            Ok(Slot::Image { stage: Stage::Dirty, .. })
        )
    })
    .await;
}

/// It lies in the server's socket for longer than half of the request window.
#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_write_that_reaches_a_frozen_server_takes_no_effect_when_it_goes_on_too_late() {
    let server = RedisServer::start(&[]).await;
    let (response_timeout, request_window) = (Duration::from_millis(500), Duration::from_secs(4));
    let options = RedisOptions { response_timeout, request_window, ..server.options() };
    let store = RedisStore::connect(options).await.unwrap();
    let (url, prefix, raw) = (server.options().url, "sa".to_owned(), server.connection().await.unwrap());
    let b = OnRedis { store, url, prefix, raw };
    open(&b).await;
    let before = put(&b, record(2), row(2)).await;
    server.signal("STOP");
    let asked = Instant::now();
    let write = vec![Write { record: record(1), precondition: Precondition::None, image: row(1), index: None }];
    let answer = b.store.write(b.shard(), asked, write).await;
    assert!(matches!(answer, Err(HotStoreError::Unknown(_))), "{answer:?}");
    tokio::time::sleep_until(asked + request_window).await;
    server.signal("CONT");
    let header = async || b.store.header(b.shard()).await;
    eventually("the server goes on", async || header().await.is_ok()).await;
    assert_eq!(read(&b, record(1)).await, Slot::Empty);
    assert_eq!(header().await.unwrap().clock, before);
    put(&b, record(1), row(1)).await;
}

/// It may have been the server's clock that was put forward.
#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn who_was_refused_as_late_asks_for_the_time_and_nobody_else_does() {
    let server = RedisServer::start(&[]).await;
    let b = OnRedis::at(&server.options().url).await;
    open(&b).await;
    let write = async |asked| {
        let write = Write { record: record(1), precondition: Precondition::None, image: row(1), index: None };
        b.store.write(b.shard(), asked, vec![write]).await
    };
    // Scripts ask for it, too.
    let asked_for_time = async || {
        let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut b.raw.clone()).await.unwrap();
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_time:calls=")?.split(',').next());
        calls.map_or(0, |calls| calls.parse::<u64>().unwrap())
    };
    write(Instant::now()).await.unwrap();
    let first = asked_for_time().await;
    write(Instant::now()).await.unwrap();
    assert_eq!(asked_for_time().await, first + 1);
    assert_eq!(write(Instant::now() - hot_store::REQUEST_WINDOW).await, Err(HotStoreError::Late));
    assert_eq!(asked_for_time().await, first + 2);
    write(Instant::now()).await.unwrap();
    assert_eq!(asked_for_time().await, first + 4);
}

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_server_that_is_not_there_is_unavailable() {
    let mut server = RedisServer::start(&[]).await;
    server.kill();
    let refused = RedisStore::connect(server.options()).await.map(drop);
    assert!(matches!(refused, Err(HotStoreError::Unavailable(_))), "{refused:?}");
}

/// A store that logs in as a user with these rights less.
async fn restricted(b: &OnRedis, less: &[&str]) -> RedisStore {
    let rules = [&["SETUSER", "restricted", "reset", "on", ">sesame", "~*", "&*", "+@all"], less].concat();
    let () = redis::cmd("ACL").arg(&rules[..]).query_async(&mut b.raw.clone()).await.unwrap();
    let (username, password) = (Some("restricted".to_owned()), Some("sesame".to_owned()));
    RedisStore::connect(RedisOptions { username, password, ..b.options() }).await.unwrap()
}

/// Several replicas open shards at the same time, and one of them is the first to ask.
#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn an_opening_does_not_mind_that_the_file_is_being_written_anew() {
    let server = RedisServer::start(&["--auto-aof-rewrite-percentage", "0"]).await;
    let url = server.options().url;
    let first = OnRedis::at(&url).await;
    let mut refused = 0;
    for _ in 0..20 {
        redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut first.raw.clone()).await.unwrap();
        let asked = redis::cmd("BGREWRITEAOF").exec_async(&mut first.raw.clone()).await;
        let b = OnRedis::at(&url).await;
        refused += u32::from(asked.is_err());
        open(&b).await;
    }
    assert!(refused > 0, "it was never being written when an opening began");
}

/// What was refused before it ran has done nothing; a script that was refused one of its commands may have run others.
#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_right_that_a_script_lacks_leaves_the_outcome_unknown() {
    let server = RedisServer::start(&[]).await;
    let b = OnRedis::at(&server.options().url).await;
    open(&b).await;
    let write = || vec![Write { record: record(1), precondition: Precondition::None, image: row(1), index: None }];
    // MSET comes before ZADD: the image is there, though its mark is not.
    let store = restricted(&b, &["-zadd"]).await;
    let refused = store.write(b.shard(), Instant::now(), write()).await;
    assert!(matches!(refused, Err(HotStoreError::Unknown(_))), "{refused:?}");
    assert!(matches!(read(&b, record(1)).await, Slot::Image { stage: Stage::Clean, .. }));

    let store = restricted(&b, &["-evalsha"]).await;
    let refused = store.write(b.shard(), Instant::now(), write()).await;
    assert!(matches!(refused, Err(HotStoreError::Unavailable(_))), "{refused:?}");
}

/// A power loss may leave the first commands of a script and not the others.
#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn parking_that_broke_off_is_finished_by_the_next_attempt_or_by_an_opening() {
    let server = RedisServer::start(&[]).await;
    let b = OnRedis::at(&server.options().url).await;
    open(&b).await;
    let first = put(&b, record(1), row(1)).await;
    let second = put(&b, record(2), row(2)).await;
    let stamps = |number, version| vec![Stamp { record: record(number), version }];
    let backlog = async || {
        let found = b.store.backlog(b.shard(), vec![record(1).namespace]).await.unwrap().1[0];
        (found.records, found.bytes, found.parked, found.lowest_parked)
    };
    for (lacks, version, number) in [("-zadd", first, 1), ("-zrem", second, 2)] {
        let store = restricted(&b, &[lacks]).await;
        let broken_off = store.park(b.shard(), stamps(number, version)).await;
        assert!(matches!(broken_off, Err(HotStoreError::Unknown(_))), "{broken_off:?}");
        assert!(matches!(read(&b, record(number)).await, Slot::Image { stage: Stage::Parked, .. }));
    }
    assert_eq!(dirty(&b, Dirty::All).await, [first, second], "both are produced and refused again");
    assert_eq!(b.store.park(b.shard(), stamps(1, first)).await, Ok(vec![ParkOutcome::Parked]));
    let bytes = row(2).encode().len() as u64;
    assert_eq!(backlog().await, (1, bytes, 2, Some(first)));
    b.restart().await;
    let event = Restore::Dirty { record: record(2), version: second, behind: second, image: row(2) };
    open_with(&b, false, vec![event], Version::ZERO).await;
    assert_eq!((dirty(&b, Dirty::All).await, backlog().await), (vec![], (0, 0, 2, Some(first))));
}
