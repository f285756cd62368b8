//! The embedded log: the contract, and what only it has to keep.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use event_log::{
    EventPublisher, EventSource, LogError, LogReader, Outgoing, Progress, PublishError,
    embedded::{EmbeddedLog, EmbeddedOptions, EmbeddedSource, LastWords},
};
use model::Topic;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use crate::{
    cases::contract,
    harness::{
        Backend, Observed, REQUEST_WINDOW, SETTINGS, at, drained, fill, outgoing, progress, publish, read, read_all,
        text, within,
    },
};

struct Embedded {
    _dir: TempDir,
    log: EmbeddedLog,
}

impl Backend for Embedded {
    type Log = EmbeddedLog;
    type Source = EmbeddedSource;

    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions { request_window: REQUEST_WINDOW, ..options(dir.path()) };
        let log = EmbeddedLog::open(options).await.unwrap();
        Self { _dir: dir, log }
    }

    fn log(&self) -> &EmbeddedLog {
        &self.log
    }

    fn topic(&self, name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn join(&self) -> EmbeddedSource {
        self.log.join("member")
    }
}

fn options(dir: &Path) -> EmbeddedOptions {
    EmbeddedOptions { session_timeout: Duration::from_secs(2), ..EmbeddedOptions::new(dir) }
}

fn orders() -> Topic {
    Topic::new("orders").unwrap()
}

async fn with_orders(options: EmbeddedOptions) -> EmbeddedLog {
    let log = EmbeddedLog::open(options).await.unwrap();
    log.ensure_topic(&orders(), 2, SETTINGS).await.unwrap();
    log
}

/// The files as a kill -9 would leave them now.
fn crash_image(dir: &Path) -> TempDir {
    let image = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), image.path().join(entry.file_name())).unwrap();
    }
    image
}

async fn sqlite(dir: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(dir.join("event-log.sqlite"));
    SqliteConnection::connect_with(&options).await.unwrap()
}

async fn commit(log: &EmbeddedLog, partition: u16, offset: i64) {
    let mut member = Observed::subscribed(log.join("drain"), &[orders()]).await;
    member.until("the partitions", |m| m.owned.len() == 2).await;
    member.source.note_progress(&[(at(&orders(), partition), progress(offset, 1))]);
    member.source.close(Duration::from_secs(60)).await.unwrap();
}

mod contract {
    use super::{Embedded, contract};

    contract!(Embedded, []);
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let log = with_orders(options(dir.path())).await;
    for round in 0..10usize {
        fill(&log, &orders(), 0, round * 10..(round + 1) * 10).await;
        fill(&log, &orders(), 1, round..round + 1).await;
        if round == 5 {
            commit(&log, 0, 33).await;
        }
        // No close, no checkpoint: only what was synced.
        let image = crash_image(dir.path());
        let restored = EmbeddedLog::open(options(image.path())).await.unwrap();
        // What is drained is still there: the request window has not passed it.
        let texts: Vec<String> = read_all(&restored, &at(&orders(), 0)).await.iter().map(text).collect();
        assert_eq!(texts, (0..(round + 1) * 10).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(read_all(&restored, &at(&orders(), 1)).await.len(), round + 1);
        let committed = drained(&restored, &[at(&orders(), 0)]).await[0];
        assert_eq!(committed, (round >= 5).then(|| progress(33, 1)));
        // It goes on where it ended.
        assert_eq!(publish(&restored, vec![outgoing(&orders(), 0, "next")]).await, [(round as i64 + 1) * 10]);
    }
}

#[tokio::test]
async fn a_log_that_was_closed_opens_again_and_lets_go_of_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3usize {
        let log = with_orders(options(dir.path())).await;
        fill(&log, &orders(), 1, round..round + 1).await;
        let left_over = log.clone();
        within("closing", log.close()).await;
        assert!(!left_over.is_available());
        let answers = left_over.publish(vec![outgoing(&orders(), 1, "late")]).await;
        assert!(matches!(answers[0], Err(PublishError::Refused(_))), "{answers:?}");
    }
    let log = with_orders(options(dir.path())).await;
    assert_eq!(log.bounds(&[at(&orders(), 1)]).await, Ok(vec![(0, 3)]));
}

#[tokio::test]
async fn a_second_opener_is_refused_and_told_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _first = with_orders(options(dir.path())).await;
    let second = EmbeddedLog::open(options(dir.path())).await;
    let Err(LogError::Fatal(message)) = second else { panic!("opened twice") };
    assert!(message.contains(&dir.path().display().to_string()), "{message}");
}

#[tokio::test]
async fn damage_of_every_kind_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let log = with_orders(options(dir.path())).await;
    for n in 0..5usize {
        fill(&log, &orders(), 0, n..n + 1).await;
    }
    log.close().await;
    for (damage, named) in [
        ("UPDATE blobs SET body = CAST(body || x'00' AS BLOB) WHERE sequence = 3", "blob 3"),
        ("UPDATE blobs SET body = zeroblob(length(body)) WHERE sequence = 2", "blob 2"),
        ("UPDATE blobs SET checksum = checksum + 1 WHERE sequence = 4", "blob 4"),
        (
            "UPDATE blobs SET body = (SELECT body FROM blobs WHERE sequence = 1), \
          checksum = (SELECT checksum FROM blobs WHERE sequence = 1) WHERE sequence = 5",
            "blob 5",
        ),
        ("DELETE FROM blobs WHERE sequence = 3", "blob 4"),
        ("DELETE FROM blobs WHERE sequence = 1", "blob 2"),
        ("DELETE FROM blobs WHERE sequence = 5", "blob 5"),
        ("DELETE FROM topics", "orders/0"),
        (
            "INSERT INTO committed (topic, partition, next_offset, epoch) VALUES ('orders', 0, -4, 1)",
            "committed offset",
        ),
    ] {
        let image = crash_image(dir.path());
        let mut connection = sqlite(image.path()).await;
        sqlx::query(damage).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let opened = EmbeddedLog::open(options(image.path())).await;
        let Err(LogError::Fatal(message)) = opened else { panic!("not found: {damage}") };
        assert!(message.contains("damaged") && message.contains(named), "{damage}: {message}");
    }
    let mut connection = sqlite(dir.path()).await;
    sqlx::query("PRAGMA user_version = 9").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let Err(LogError::Fatal(message)) = EmbeddedLog::open(options(dir.path())).await else { panic!("opened") };
    assert!(message.contains("format 9"), "{message}");
}

#[tokio::test]
async fn a_damaged_page_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let log = with_orders(options(dir.path())).await;
    fill(&log, &orders(), 0, 0..2000).await;
    log.close().await;
    let file = dir.path().join("event-log.sqlite");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&file, bytes).unwrap();
    let opened = EmbeddedLog::open(options(dir.path())).await;
    assert!(matches!(&opened, Err(LogError::Fatal(message)) if message.contains("damaged")), "{opened:?}");
}

#[tokio::test]
async fn a_full_log_refuses_until_it_is_drained_but_takes_fences() {
    let dir = tempfile::tempdir().unwrap();
    let log = with_orders(EmbeddedOptions { max_log_bytes: 100_000, ..options(dir.path()) }).await;
    let payload = "x".repeat(10_000);
    let records = (0..20).map(|_| outgoing(&orders(), 0, &payload)).collect();
    let answers = log.publish(records).await;
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(taken, 4, "a record has its text twice, in the key too");
    for refused in &answers[taken..] {
        assert!(matches!(refused, Err(PublishError::Refused(why)) if why.contains("full")), "{refused:?}");
    }
    assert_eq!(log.fill().1, 100_000);
    assert!(log.is_available());

    let fence = Outgoing { key: Vec::new().into(), ..outgoing(&orders(), 0, &payload.repeat(3)) };
    assert_eq!(publish(&log, vec![fence]).await, [4]);
    assert!(log.publish(vec![outgoing(&orders(), 1, &payload)]).await[0].is_err());

    // A restart changes nothing about it.
    log.close().await;
    let log = with_orders(EmbeddedOptions { max_log_bytes: 100_000, ..options(dir.path()) }).await;
    assert!(log.publish(vec![outgoing(&orders(), 1, &payload)]).await[0].is_err());
    commit(&log, 0, 5).await;
    assert_eq!(log.fill().0, 0);
    assert_eq!(publish(&log, vec![outgoing(&orders(), 1, &payload)]).await, [0]);
}

#[tokio::test]
async fn what_is_drained_leaves_memory_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let at_once = EmbeddedOptions { request_window: Duration::ZERO, ..options(dir.path()) };
    let log = with_orders(at_once.clone()).await;
    for n in 0..200usize {
        publish(&log, vec![outgoing(&orders(), 0, &n.to_string())]).await;
    }
    publish(&log, vec![outgoing(&orders(), 1, "stays")]).await;
    commit(&log, 0, 200).await;
    assert_eq!(log.bounds(&[at(&orders(), 0), at(&orders(), 1)]).await, Ok(vec![(200, 200), (0, 1)]));
    let mut each = |_| true;
    let gone = log.read(&at(&orders(), 0), 150, 200, &mut each).await;
    assert!(matches!(gone, Err(LogError::Unfit(_))), "{gone:?}");

    // Deleted in the background, a bounded number at a time.
    let started = Instant::now();
    loop {
        let image = crash_image(dir.path());
        let mut connection = sqlite(image.path()).await;
        let blobs: i64 = sqlx::query_scalar("SELECT count(*) FROM blobs").fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        if blobs == 1 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(90), "{blobs} blobs are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    log.close().await;
    let log = with_orders(at_once).await;
    assert_eq!(log.bounds(&[at(&orders(), 0), at(&orders(), 1)]).await, Ok(vec![(200, 200), (0, 1)]));
    assert_eq!(publish(&log, vec![outgoing(&orders(), 0, "on")]).await, [200]);
}

#[tokio::test]
async fn what_the_window_keeps_is_read_from_the_file_also_after_a_restart_and_counts_not_against_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let small = EmbeddedOptions { max_log_bytes: 20_000, ..options(dir.path()) };
    let log = with_orders(small.clone()).await;
    let mut drained = 0;
    // Several times of what the log may hold undrained.
    for round in 0..10usize {
        fill(&log, &orders(), 0, round * 100..(round + 1) * 100).await;
        fill(&log, &orders(), 1, round..round + 1).await;
        drained += 100;
        commit(&log, 0, drained).await;
        assert!(log.fill().0 < 2_000, "{:?}", log.fill());
    }
    let expected: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
    for _ in 0..2 {
        assert_eq!(log.bounds(&[at(&orders(), 0), at(&orders(), 1)]).await, Ok(vec![(0, 1000), (0, 10)]));
        assert_eq!(read_all(&log, &at(&orders(), 0)).await.iter().map(text).collect::<Vec<_>>(), expected);
        let part = read(&log, &at(&orders(), 0), 150, 350).await;
        assert_eq!(part.iter().map(|record| record.offset).collect::<Vec<_>>(), (150..350).collect::<Vec<_>>());
        assert_eq!(read_all(&log, &at(&orders(), 1)).await.len(), 10);
    }
    log.close().await;
    let log = with_orders(small).await;
    assert_eq!(read_all(&log, &at(&orders(), 0)).await.iter().map(text).collect::<Vec<_>>(), expected);
    let committed = log.committed(&[at(&orders(), 0)]).await.unwrap()[0].unwrap();
    assert_eq!((committed.done, committed.window), (progress(1000, 1), Progress::BEGINNING));
}

#[tokio::test]
async fn a_log_says_that_it_is_nearly_full_before_it_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let log = with_orders(EmbeddedOptions { max_log_bytes: 100_000, ..options(dir.path()) }).await;
    assert!(log.has_room(1, 500_000), "what never fits is not a matter of room");
    let payload = "x".repeat(1_000);
    let mut taken = 0;
    while log.has_room(1, 2_100) {
        publish(&log, vec![outgoing(&orders(), 0, &payload)]).await;
        taken += 1;
    }
    assert!(taken > 30, "{taken}");
    publish(&log, vec![outgoing(&orders(), 0, &payload)]).await;
    commit(&log, 0, taken + 1).await;
    assert!(log.has_room(1, 2_100));
}

/// A file as the first releases wrote it.
#[tokio::test]
async fn a_file_of_the_first_format_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let log = with_orders(options(dir.path())).await;
    for round in 0..3usize {
        fill(&log, &orders(), 0, round * 10..(round + 1) * 10).await;
    }
    commit(&log, 0, 14).await;
    log.close().await;
    let mut connection = sqlite(dir.path()).await;
    for statement in [
        "ALTER TABLE committed DROP COLUMN window_offset",
        "ALTER TABLE committed DROP COLUMN window_epoch",
        "DELETE FROM blobs WHERE sequence = 1",
        "PRAGMA user_version = 1",
    ] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    for _ in 0..2 {
        let log = with_orders(options(dir.path())).await;
        assert_eq!(log.bounds(&[at(&orders(), 0)]).await, Ok(vec![(14, 30)]), "nothing was kept for a window");
        let committed = log.committed(&[at(&orders(), 0)]).await.unwrap()[0].unwrap();
        assert_eq!((committed.done, committed.window), (progress(14, 1), progress(14, 1)));
        assert_eq!(read_all(&log, &at(&orders(), 0)).await.len(), 16);
        log.close().await;
    }
}

#[tokio::test]
async fn a_failed_commit_is_the_end_and_acknowledges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    with_orders(options(dir.path())).await.close().await;
    let mut connection = sqlite(dir.path()).await;
    let trap = "CREATE TRIGGER trap BEFORE INSERT ON blobs WHEN new.sequence = 2 \
                BEGIN SELECT RAISE(ABORT, 'the disk has failed'); END";
    sqlx::query(trap).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let heard = Arc::new(Mutex::new(Vec::new()));
    let last_words = {
        let heard = Arc::clone(&heard);
        LastWords::new(move |reason| heard.lock().unwrap().push(reason.to_owned()))
    };
    let log = with_orders(EmbeddedOptions { last_words, ..options(dir.path()) }).await;
    let mut member = Observed::subscribed(log.join("drain"), &[orders()]).await;
    member.until("the partitions", |m| m.owned.len() == 2).await;
    assert_eq!(publish(&log, vec![outgoing(&orders(), 0, "kept")]).await, [0]);
    let answers = within("publishing", log.publish(vec![outgoing(&orders(), 0, "doomed")])).await;
    assert!(matches!(answers[0], Err(PublishError::Unknown(_))), "{answers:?}");
    let end = within("the member's end", async {
        loop {
            if let Err(error) = member.source.next().await {
                return error;
            }
        }
    });
    assert!(matches!(end.await, LogError::Fatal(_)));
    assert!(!log.is_available());
    assert!(log.publish(vec![outgoing(&orders(), 0, "late")]).await[0].is_err());
    let heard = heard.lock().unwrap().clone();
    assert!(heard.len() == 1 && heard[0].contains("the disk has failed"), "{heard:?}");
    drop((member, log));
}

#[tokio::test]
async fn a_member_that_is_silent_loses_its_partitions_and_its_progress_counts_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let log = with_orders(EmbeddedOptions {
        session_timeout: Duration::from_millis(300),
        ..EmbeddedOptions::new(dir.path())
    })
    .await;
    fill(&log, &orders(), 0, 0..10).await;
    let mut silent = Observed::subscribed(log.join("silent"), &[orders()]).await;
    silent.until("all records", |m| m.delivered() == 10).await;
    silent.source.note_progress(&[(at(&orders(), 0), progress(9, 1))]);
    let mut busy = Observed::subscribed(log.join("busy"), &[orders()]).await;
    busy.until("everything of the silent one", |m| m.owned.len() == 2).await;
    assert!(busy.last_assigned.iter().all(|assignment| assignment.committed.is_none()));
    busy.until("the redelivery", |m| m.delivered() == 10).await;

    silent.until("the bad news", |m| m.owned.is_empty()).await;
    assert_eq!(silent.last_lost.len(), 2);
    silent.source.note_progress(&[(at(&orders(), 0), progress(10, 1))]);
    silent.source.close(Duration::from_secs(60)).await.unwrap();
    assert_eq!(drained(&log, &[at(&orders(), 0)]).await, [None]);
}

/// Figures for the report: `cargo test -p event-log --test contract -- --ignored --nocapture embedded::figures`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; asserts nothing that a slow machine could break"]
async fn figures() {
    let dir = tempfile::tempdir().unwrap();
    let log = with_orders(options(dir.path())).await;
    let payload = "x".repeat(300);
    let mut times = Vec::new();
    for _ in 0..500 {
        let begun = Instant::now();
        publish(&log, vec![outgoing(&orders(), 0, &payload)]).await;
        times.push(begun.elapsed());
    }
    times.sort();
    eprintln!("embedded, one record at a time: p50 {:?}, p99 {:?}", times[250], times[495]);
    for publishers in [1, 16] {
        let begun = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..publishers {
            let (log, payload) = (log.clone(), payload.clone());
            tasks.push(tokio::spawn(async move {
                for _ in 0..100 {
                    let records = (0..100).map(|n| outgoing(&orders(), n % 2, &payload)).collect();
                    publish(&log, records).await;
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let rate = f64::from(publishers * 10_000) / begun.elapsed().as_secs_f64();
        eprintln!("embedded, {publishers} publishers with batches of 100: {rate:.0} records/s");
    }
}
