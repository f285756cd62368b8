//! What the database refuses for good, and what nobody can read.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use database::{Database, DatabaseRow, ErrorClass};
use drain_svc::DrainOptions;
use event_log::{EventPublisher, LogError, LogSettings, Outgoing, PublishError, embedded::EmbeddedLog};
use hot_store::{Slot, Stage, memory::Survives};
use model::{DeadLetterCause, Epoch, Event, EventBody, Fence, Image, Mutation, Operation, Shard, Topic, Version};

use crate::{
    db::id,
    world::{Group, Still, World, options, partition, until, until_within},
};

/// What a row must not have.
pub(crate) const BAD: i64 = 4711;

impl<L: Group, D: Database> World<L, D> {
    pub(crate) fn refuse_bad_amounts(&self, class: ErrorClass) {
        self.db.bad_amount.lock().unwrap().replace((BAD, class));
    }

    pub(crate) async fn is_parked(&self, n: i64, at: Version, amount: Option<i64>) -> bool {
        let Slot::Image { version, image, stage } = self.slot(n).await else { return false };
        (version, image.content, stage) == (at, self.image(n, amount).content, Stage::Parked)
    }

    /// The versions of the letters of a key.
    async fn lettered(&self, n: i64) -> BTreeSet<Version> {
        let letters = self.letters().await;
        letters.into_iter().filter(|it| it.key == id(n).to_bytes()).filter_map(|it| it.version).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_can_never_be_written_is_lettered_and_parked_and_all_others_land() {
    let world = World::new().await;
    world.refuse_bad_amounts(ErrorClass::Permanent);
    let (bad, mut at) = (7, (Version::ZERO, 0));
    for n in 0..64 {
        let written = world.write(n, Some(if n == bad { BAD } else { n })).await;
        if n == bad {
            at = written;
        }
    }
    let (version, offset) = at;
    let drain = world.start(options());
    world.until_clean().await;
    until("everything is done", || async {
        let noted = drain.told.lock().unwrap().noted.clone();
        (0..4).zip(world.ends().await).all(|(shard, end)| noted.get(&shard).map_or(0, |it| it.offset) == end)
    })
    .await;
    drain.stop().await;
    world.assert_all_committed().await;

    assert!(world.is_parked(bad, version, Some(BAD)).await);
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = &letters[0];
    assert_eq!((letter.key.clone(), letter.version, letter.offset), (id(bad).to_bytes(), Some(version), offset));
    assert_eq!(letter.payload, world.payload(world.shard(&id(bad)), offset).await);
    assert_eq!((letter.cause, letter.code.as_str()), (DeadLetterCause::Permanent, "HY000/1"));
    assert_eq!(letter.replica, "test");
    assert!(!letter.message.is_empty() && !letter.message.contains("4711"), "{}", letter.message);
    assert!(letter.first_refused_at <= letter.dead_lettered_at);
    let tried = world.db.attempts().iter().filter(|a| a.changes.iter().any(|(key, _)| *key == id(bad))).count();
    assert_eq!(letter.attempts as usize, tried);
    assert!(tried <= 6 + 2, "{tried} statements to find one of 64");

    let others = world.rows((0..64).filter(|n| *n != bad)).await;
    assert!(others.values().all(|row| matches!(row, DatabaseRow::Present { .. })));
    assert_eq!(world.rows([bad]).await[&bad], DatabaseRow::Absent);
    // A newer version is written as ever.
    let drain = world.start(options());
    world.write(bad, Some(1)).await;
    world.until_clean().await;
    world.assert_rows_are_as_written().await;
    drain.stop().await;
    world.assert_all_committed().await;
    assert_eq!(world.letters().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_good_older_version_under_a_bad_one_lands() {
    let world = World::new().await;
    world.refuse_bad_amounts(ErrorClass::Permanent);
    for n in 0..20 {
        world.write(n, Some(n)).await;
    }
    let (oldest, _) = world.write(3, Some(1)).await;
    let (good, _) = world.write(3, Some(2)).await;
    let (bad, _) = world.write(3, Some(BAD)).await;
    let (worse, _) = world.write(3, Some(BAD)).await;
    let drain = world.start(options());
    world.until_clean().await;
    until("it is parked", || world.is_parked(3, worse, Some(BAD))).await;
    drain.stop().await;
    world.assert_all_committed().await;
    assert_eq!(world.rows([3]).await[&3], DatabaseRow::Present { version: good, row: world.row(3, 2) });
    assert!(!world.db.was_tried(&id(3), oldest), "it is superseded by one that landed");
    assert_eq!(world.lettered(3).await, BTreeSet::from([bad, worse]));
    assert_eq!(world.letters().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_older_delete_lands_and_where_all_are_bad_the_newest_is_parked() {
    let world = World::new().await;
    world.write(1, Some(1)).await;
    world.write(2, Some(2)).await;
    let drain = world.start(options());
    world.until_clean().await;
    drain.stop().await;
    world.refuse_bad_amounts(ErrorClass::Permanent);
    let (deleted, _) = world.write(1, None).await;
    let (bad, _) = world.write(1, Some(BAD)).await;
    let (first, _) = world.write(2, Some(BAD)).await;
    let (second, _) = world.write(2, Some(BAD)).await;
    let drain = world.start(options());
    world.until_clean().await;
    drain.stop().await;
    world.assert_all_committed().await;
    assert_eq!(world.rows([1]).await[&1], DatabaseRow::Deleted { version: deleted });
    assert!(world.is_parked(1, bad, Some(BAD)).await);
    assert!(world.is_parked(2, second, Some(BAD)).await);
    assert_eq!((world.lettered(1).await, world.lettered(2).await), ([bad].into(), [first, second].into()));
}

/// What is in another's way may go; what has been waited for in vain is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_depends_on_another_is_given_up_when_it_was_waited_for_long_enough() {
    let world = World::new().await;
    world.refuse_bad_amounts(ErrorClass::Dependent);
    let (patience, begun) = (Duration::from_millis(400), tokio::time::Instant::now());
    for n in 0..20 {
        world.write(n, Some(n)).await;
    }
    let (older, _) = world.write(5, Some(50)).await;
    let (bad, _) = world.write(5, Some(BAD)).await;
    let mut patient = options();
    patient.dependent_patience = patience;
    let drain = world.start(patient);
    until("the others are there", || async {
        world.rows((0..20).filter(|n| *n != 5)).await.values().all(|row| *row != DatabaseRow::Absent)
    })
    .await;
    until("it is parked", || world.is_parked(5, bad, Some(BAD))).await;
    assert!(begun.elapsed() >= patience);
    until("it is done", || world.is_clean()).await;
    drain.stop().await;
    world.assert_all_committed().await;
    assert_eq!(world.rows([5]).await[&5], DatabaseRow::Present { version: older, row: world.row(5, 50) });
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].cause, letters[0].version), (DeadLetterCause::Dependent, Some(bad)));
    assert!(letters[0].attempts > 2, "{} attempts", letters[0].attempts);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_written_again_and_again_is_waited_for_once() {
    let world = Still::still().await;
    world.refuse_bad_amounts(ErrorClass::Dependent);
    let (patience, begun) = (Duration::from_secs(600), tokio::time::Instant::now());
    let drain = world.start(DrainOptions { dependent_patience: patience, ..options() });
    let mut versions = BTreeSet::new();
    for wait in [300, 200, 50] {
        versions.insert(world.write(5, Some(BAD)).await.0);
        tokio::time::sleep(Duration::from_secs(wait)).await;
    }
    assert!(versions.iter().all(|version| world.db.was_tried(&id(5), *version)), "each is tried when it comes");
    let newest = *versions.last().unwrap();
    until_within(Duration::from_secs(700), "it is parked", || world.is_parked(5, newest, Some(BAD))).await;
    let waited = begun.elapsed();
    assert!(patience <= waited && waited <= patience + Duration::from_secs(1), "{waited:?}");
    until("it is done", || world.is_clean()).await;
    drain.stop().await;
    world.assert_all_committed().await;
    assert_eq!(world.lettered(5).await, versions);
    assert!(world.letters().await.iter().all(|letter| letter.cause == DeadLetterCause::Dependent));
}

#[tokio::test(start_paused = true)]
async fn what_a_row_waits_for_lets_the_newest_version_through_whichever_was_refused() {
    let world = Still::still().await;
    world.refuse_bad_amounts(ErrorClass::Dependent);
    let drain = world.start(DrainOptions { dependent_patience: Duration::from_secs(600), ..options() });
    for _ in 0..3 {
        world.write(5, Some(BAD)).await;
        tokio::time::sleep(Duration::from_secs(199)).await;
    }
    world.db.bad_amount.lock().unwrap().take();
    world.until_clean().await;
    drain.stop().await;
    world.assert_all_committed().await;
    world.assert_rows_are_as_written().await;
    assert!(world.letters().await.is_empty());
}

/// The other row could not come either.
#[tokio::test(start_paused = true)]
async fn a_row_is_not_given_up_for_the_time_that_the_database_was_away() {
    let world = Still::still().await;
    world.refuse_bad_amounts(ErrorClass::Dependent);
    let drain = world.start(DrainOptions {
        dependent_patience: Duration::from_secs(400),
        retry_initial: Duration::from_secs(1),
        retry_max: Duration::from_secs(5),
        ..options()
    });
    world.write(5, Some(BAD)).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    world.db.away.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(500)).await;
    world.db.away.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(world.letters().await.is_empty(), "it was waited for while nothing could come");
    world.db.bad_amount.lock().unwrap().take();
    world.until_clean().await;
    drain.stop().await;
    world.assert_all_committed().await;
    world.assert_rows_are_as_written().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_is_refused_by_an_older_row_is_lettered_at_once() {
    let world = World::new().await;
    let drain = world.start(options());
    let (older, _) = world.write(1, Some(1)).await;
    world.until_clean().await;
    let (version, epoch) = world.store(1, Some(2)).await;
    let shard = world.shard(&id(1));
    let image = Image { since: Some(version), operation: Operation::Create, ..world.image(1, Some(2)) };
    let mutation = Mutation { table: world.schema.table.clone(), key: id(1), version, image };
    world.append(shard, Event { shard, epoch, body: EventBody::Mutations(vec![mutation]) }.encode()).await;
    until("it is parked", || world.is_parked(1, version, Some(2))).await;
    drain.stop().await;
    world.assert_all_committed().await;
    assert_eq!(world.rows([1]).await[&1], DatabaseRow::Present { version: older, row: world.row(1, 1) });
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].cause, letters[0].version), (DeadLetterCause::Since, Some(version)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_nobody_can_read_is_lettered_and_its_partition_goes_on() {
    let world = World::new().await;
    let shard = world.shard(&id(0));
    let behind = (1..100).find(|n| world.shard(&id(*n)) == shard).unwrap();
    world.write(0, Some(1)).await;
    let junk = Bytes::from_static(b"\xffnothing that we wrote");
    let of_junk = world.append(shard, junk.clone()).await;
    let elsewhere = Shard((shard.0 + 1) % 4);
    let fence = EventBody::Fence(Fence { opener: "stray".into() });
    let stray = Event { shard: elsewhere, epoch: Epoch(9), body: fence }.encode();
    let of_stray = world.append(shard, stray.clone()).await;
    world.write(behind, Some(1)).await;
    let drain = world.start(options());
    world.until_clean().await;
    until("all is done", || async {
        let end = world.ends().await[usize::from(shard.0)];
        drain.told.lock().unwrap().noted.get(&shard.0).is_some_and(|progress| progress.offset == end)
    })
    .await;
    drain.stop().await;
    world.assert_all_committed().await;
    world.assert_rows_are_as_written().await;
    assert_eq!(
        world.committed().await[usize::from(shard.0)].unwrap().epoch,
        Epoch(0),
        "the stray fence is not in force"
    );
    let letters = world.letters().await;
    let told: Vec<_> = letters.iter().map(|it| (it.offset, it.cause, it.payload.clone(), it.version)).collect();
    assert_eq!(
        told,
        [(of_junk, DeadLetterCause::Undecodable, junk, None), (of_stray, DeadLetterCause::Misplaced, stray, None)]
    );
}

/// A log that refuses dead letters while it is told to.
struct NoLetters {
    inner: EmbeddedLog,
    refuses: AtomicBool,
    refused: AtomicBool,
}

impl EventPublisher for NoLetters {
    fn is_available(&self) -> bool {
        self.inner.is_available()
    }

    fn has_room(&self, records: usize, bytes: usize) -> bool {
        self.inner.has_room(records, bytes)
    }

    fn max_payload_bytes(&self) -> usize {
        self.inner.max_payload_bytes()
    }

    async fn ensure_topic(&self, topic: &Topic, partitions: u16, settings: LogSettings) -> Result<(), LogError> {
        self.inner.ensure_topic(topic, partitions, settings).await
    }

    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<i64, PublishError>> {
        if self.refuses.load(Ordering::SeqCst) {
            self.refused.store(true, Ordering::SeqCst);
            return records.iter().map(|_| Err(PublishError::Unknown("told to".into()))).collect();
        }
        self.inner.publish(records).await
    }

    async fn flush(&self, within: Duration) {
        self.inner.flush(within).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_letter_a_record_is_neither_parked_nor_done_and_others_go_on() {
    let world = World::new().await;
    world.refuse_bad_amounts(ErrorClass::Permanent);
    let log = NoLetters { inner: world.log.clone(), refuses: AtomicBool::new(true), refused: AtomicBool::new(false) };
    let log = std::sync::Arc::new(log);
    let (bad, offset) = world.write(0, Some(BAD)).await;
    let drain = world.start_with(world.hot.clone(), log.clone(), options());
    until("a letter is refused", || async { log.refused.load(Ordering::SeqCst) }).await;
    for n in 1..40 {
        world.write(n, Some(n)).await;
    }
    until("the others are there", || async { world.rows(1..40).await.values().all(|row| *row != DatabaseRow::Absent) })
        .await;
    let shard = world.shard(&id(0));
    assert!(matches!(world.slot(0).await, Slot::Image { stage: Stage::Dirty, .. }));
    assert!(drain.told.lock().unwrap().noted.get(&shard.0).is_none_or(|progress| progress.offset <= offset));
    log.refuses.store(false, Ordering::SeqCst);
    until("it is parked", || world.is_parked(0, bad, Some(BAD))).await;
    drain.stop().await;
    world.assert_all_committed().await;
    assert_eq!(world.lettered(0).await, [bad].into());
}

/// The bytes of a foreign record, with its key, may be as large as a record can be; a letter has the key twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_is_too_large_is_cut_and_its_partition_goes_on() {
    let world = World::new().await;
    let shard = world.shard(&id(0));
    let key = Bytes::from(vec![0xff; 6000]);
    let payload = Bytes::from(vec![0xff; world.log.max_payload_bytes() - key.len()]);
    let record = Outgoing { to: partition(shard), key: key.clone(), payload };
    let offset = world.log.publish(vec![record]).await.remove(0).unwrap();
    world.write(0, Some(1)).await;
    let drain = world.start(options());
    world.until_clean().await;
    until("all is done", || async {
        let end = world.ends().await[usize::from(shard.0)];
        drain.told.lock().unwrap().noted.get(&shard.0).is_some_and(|progress| progress.offset == end)
    })
    .await;
    drain.stop().await;
    world.assert_all_committed().await;
    world.assert_rows_are_as_written().await;
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.offset, letter.cause, letter.is_cut), (offset, DeadLetterCause::Undecodable, true));
    assert!(letter.key.as_bytes().len() < key.len() && !letter.payload.is_empty());
}

/// A log that takes nothing larger.
struct Narrow {
    log: EmbeddedLog,
    most: AtomicUsize,
}

impl EventPublisher for Narrow {
    fn is_available(&self) -> bool {
        self.log.is_available()
    }

    fn has_room(&self, records: usize, bytes: usize) -> bool {
        self.log.has_room(records, bytes)
    }

    fn max_payload_bytes(&self) -> usize {
        self.log.max_payload_bytes()
    }

    async fn ensure_topic(&self, topic: &Topic, partitions: u16, settings: LogSettings) -> Result<(), LogError> {
        self.log.ensure_topic(topic, partitions, settings).await
    }

    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<i64, PublishError>> {
        let mut answers = Vec::new();
        for record in records {
            let bytes = record.key.len() + record.payload.len();
            answers.push(match bytes <= self.most.load(Ordering::SeqCst) {
                true => self.log.publish(vec![record]).await.remove(0),
                false => Err(PublishError::TooLarge { bytes }),
            });
        }
        answers
    }

    async fn flush(&self, within: Duration) {
        self.log.flush(within).await;
    }
}

/// Somebody has set `max.message.bytes` of the topic far too low.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_too_small_even_for_a_cut_letter_loses_nothing_and_holds_up_only_its_record() {
    let world = World::new().await;
    world.refuse_bad_amounts(ErrorClass::Permanent);
    let (bad, offset) = world.write(0, Some(BAD)).await;
    let shard = world.shard(&id(0));
    let log = std::sync::Arc::new(Narrow { log: world.log.clone(), most: AtomicUsize::new(50) });
    let drain = world.start_with(world.hot.clone(), log.clone(), options());
    for n in 1..40 {
        world.write(n, Some(n)).await;
    }
    until("all others are written", || async { world.dirty().await == 1 }).await;
    assert!(world.letters().await.is_empty() && !world.is_parked(0, bad, Some(BAD)).await);
    assert!(drain.told.lock().unwrap().noted.get(&shard.0).is_none_or(|progress| progress.offset <= offset));
    // The operator has raised it.
    log.most.store(usize::MAX, Ordering::SeqCst);
    until("it is parked", || world.is_parked(0, bad, Some(BAD))).await;
    drain.stop().await;
    world.assert_all_committed().await;
    let letters = world.letters().await;
    assert!(letters.len() == 1 && !letters[0].is_cut, "{letters:?}");
}

/// A log that finds whatever it is handed at once too large, unless it is one record.
struct OneByOne(EmbeddedLog);

impl EventPublisher for OneByOne {
    fn is_available(&self) -> bool {
        self.0.is_available()
    }

    fn has_room(&self, records: usize, bytes: usize) -> bool {
        self.0.has_room(records, bytes)
    }

    fn max_payload_bytes(&self) -> usize {
        self.0.max_payload_bytes()
    }

    async fn ensure_topic(&self, topic: &Topic, partitions: u16, settings: LogSettings) -> Result<(), LogError> {
        self.0.ensure_topic(topic, partitions, settings).await
    }

    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<i64, PublishError>> {
        if records.len() > 1 {
            return records.iter().map(|it| Err(PublishError::TooLarge { bytes: it.payload.len() })).collect();
        }
        self.0.publish(records).await
    }

    async fn flush(&self, within: Duration) {
        self.0.flush(within).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_that_are_too_large_together_are_written_whole_one_by_one() {
    let world = World::new().await;
    world.refuse_bad_amounts(ErrorClass::Permanent);
    let (first, _) = world.write(2, Some(BAD)).await;
    let (second, offset) = world.write(2, Some(BAD)).await;
    let drain = world.start_with(world.hot.clone(), std::sync::Arc::new(OneByOne(world.log.clone())), options());
    until("it is parked", || world.is_parked(2, second, Some(BAD))).await;
    drain.stop().await;
    world.assert_all_committed().await;
    let letters = world.letters().await;
    assert!(letters.iter().all(|letter| !letter.is_cut));
    let newest = letters.iter().find(|letter| letter.offset == offset).unwrap();
    assert_eq!(newest.payload, world.payload(world.shard(&id(2)), offset).await);
    assert_eq!(world.lettered(2).await, [first, second].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_the_letter_and_the_parking_only_doubles_the_letter() {
    let world = World::new().await;
    world.refuse_bad_amounts(ErrorClass::Permanent);
    let (bad, offset) = world.write(0, Some(BAD)).await;
    // Every shard is closed until it is opened again.
    world.hot.restart(Survives::Everything);
    let drain = world.start(options());
    until("it is lettered", || async { !world.letters().await.is_empty() }).await;
    let shard = world.shard(&id(0));
    assert!(drain.told.lock().unwrap().noted.get(&shard.0).is_none_or(|progress| progress.offset <= offset));
    drain.kill().await;
    assert_eq!(world.committed().await[usize::from(shard.0)], None);
    world.open(Epoch(2)).await;
    let drain = world.start(options());
    until("it is parked", || world.is_parked(0, bad, Some(BAD))).await;
    drain.stop().await;
    world.assert_all_committed().await;
    assert_eq!(world.lettered(0).await, [bad].into());
    assert_eq!(world.letters().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_parking_of_a_record_that_was_written_again_leaves_the_newer_one_alone() {
    let world = World::new().await;
    world.refuse_bad_amounts(ErrorClass::Permanent);
    let (bad, _) = world.write(0, Some(BAD)).await;
    // Written, and not in the log yet.
    let (newer, epoch) = world.store(0, Some(1)).await;
    let drain = world.start(options());
    let shard = usize::from(world.shard(&id(0)).0);
    until("the bad one is lettered", || async { world.lettered(0).await == BTreeSet::from([bad]) }).await;
    until("it is done", || async {
        drain.told.lock().unwrap().noted.get(&(shard as u16)).is_some_and(|it| it.offset == 1)
    })
    .await;
    assert!(matches!(world.slot(0).await, Slot::Image { version, stage: Stage::Dirty, .. } if version == newer));
    world.publish(0, newer, epoch, Some(1)).await;
    world.until_clean().await;
    drain.stop().await;
    world.assert_all_committed().await;
    assert_eq!(world.rows([0]).await[&0], DatabaseRow::Present { version: newer, row: world.row(0, 1) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_parked_is_purged_past_and_a_schema_error_letters_nothing() {
    let world = World::new().await;
    world.refuse_bad_amounts(ErrorClass::Schema);
    let shard = world.shard(&id(0));
    let mut mine = (1..100).filter(|n| world.shard(&id(*n)) == shard);
    let (before, after) = (mine.next().unwrap(), mine.next().unwrap());
    world.write(before, None).await;
    world.write(0, Some(BAD)).await;
    let mut often = options();
    often.purge_interval = Duration::from_millis(20);
    often.tombstone_retention = Duration::ZERO;
    let drain = world.start(often);
    until("it is tried alone again and again", || async {
        world.db.attempts().iter().filter(|a| a.changes.len() == 1 && !a.applied).count() > 4
    })
    .await;
    assert_eq!(world.letters().await, []);
    world.refuse_bad_amounts(ErrorClass::Permanent);
    let Slot::Image { version: parked, .. } = world.slot(0).await else { panic!("it is not there") };
    until("it is parked", || world.is_parked(0, parked, Some(BAD))).await;
    until("what is older is forgotten", || async { world.rows([before]).await[&before] == DatabaseRow::Absent }).await;
    world.write(after, None).await;
    world.until_clean().await;
    let calls = world.db.calls().len();
    until("purges went by", || async {
        world.db.calls().split_off(calls).iter().filter(|call| call.contains("count tombstones payments")).count() > 12
    })
    .await;
    drain.stop().await;
    assert!(matches!(world.rows([after]).await[&after], DatabaseRow::Deleted { .. }));
}
