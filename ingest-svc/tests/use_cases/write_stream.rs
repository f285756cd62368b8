//! Streams of writes: what waits for what, and how they end.

use std::time::Duration;

use ingest_svc::{
    IngestOptions,
    accept::{Acknowledge, Arrival, StreamEnd, StreamOptions, StreamResult, WriteError},
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, yield_now},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{log::Fate, world::*};

/// Longer than anything takes on a clock that does not stand still.
const LONG: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(30);

/// A stream under way; each write is known by its number.
struct Running {
    sends: mpsc::UnboundedSender<Arrival<usize>>,
    next: usize,
    results: mpsc::Receiver<Vec<StreamResult<usize>>>,
    stopping: CancellationToken,
    end: JoinHandle<StreamEnd>,
}

impl Running {
    /// Batches are of a fourth of the items.
    fn start(world: &World, max_items: usize) -> Self {
        let (sends, sent) = mpsc::unbounded_channel();
        let (taker, results) = mpsc::channel(1);
        let (writer, stopping) = (world.writer.clone(), CancellationToken::new());
        let options = StreamOptions { max_items, max_bytes: 1 << 20, idle: IDLE };
        let end = tokio::spawn({
            let stopping = stopping.clone();
            async move {
                let (arrivals, enter) = (UnboundedReceiverStream::new(sent), || async { Some(()) });
                writer.stream(Acknowledge::default(), options, arrivals, taker, enter, &stopping).await
            }
        });
        Self { sends, next: 0, results, stopping, end }
    }

    fn send(&mut self, changes: impl IntoIterator<Item = ingest_svc::accept::Change>) {
        for change in changes {
            self.sends
                .send(Arrival { about: self.next, write: Some(request(change)), bytes: 100, asked: Instant::now() })
                .unwrap();
            self.next += 1;
        }
    }

    /// What is left of the results, in the order in which they come, and how it ends.
    async fn rest(mut self) -> (Vec<WriteResult>, StreamEnd) {
        drop(self.sends);
        let (mut results, mut at) = (Vec::new(), None);
        while let Some(page) = timeout(LONG, self.results.recv()).await.expect("results, or the end") {
            for (about, result) in page {
                assert!(at.is_none_or(|at| about == at + 1), "{about} came behind {at:?}");
                at = Some(about);
                results.push(result.expect("each is a write"));
            }
        }
        (results, self.end.await.unwrap())
    }
}

async fn until_amount(world: &World, id: &str, amount: i64) {
    let there = async {
        while world.amount(id).await != Some(amount) {
            yield_now().await;
        }
    };
    timeout(LONG, there).await.expect("it is written");
}

/// The log may take its time.
async fn patient_world() -> World {
    World::with(IngestOptions { publish_timeout: LONG, ..quick_options() }, u64::MAX / 1000).await
}

#[tokio::test]
async fn a_write_waits_for_the_earlier_ones_of_its_record_and_for_no_other() {
    let world = patient_world().await;
    world.log.set_fate(Fate::Hold);
    let mut stream = Running::start(&world, 100);
    stream.send([put("a", 1)]);
    until_amount(&world, "a", 1).await;
    stream.send([put("a", 2), put("b", 1), update("a", &[("amount", model::Value::Int64(3))])]);
    until_amount(&world, "b", 1).await;
    assert_eq!(world.amount("a").await, Some(1), "the first one is not in the log yet");
    world.log.set_fate(Fate::Append);
    // Those that are held may come to it one after the other.
    let released = async {
        while world.amount("a").await != Some(3) {
            world.log.release();
            yield_now().await;
        }
    };
    timeout(LONG, released).await.expect("all are written");
    world.log.release();
    let (results, end) = stream.rest().await;
    assert_eq!((results.len(), end), (4, StreamEnd::Finished));
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let versions: Vec<_> = world.logged("a").into_iter().map(|(version, ..)| version).collect();
    assert!(versions.is_sorted() && versions.len() == 3, "{versions:?}");
}

#[tokio::test]
async fn what_the_table_refuses_is_answered_in_its_turn() {
    let world = World::new().await;
    let mut stream = Running::start(&world, 100);
    stream.send([put("a", 1)]);
    stream
        .sends
        .send(Arrival {
            about: 1,
            write: Some(ingest_svc::accept::WriteRequest { table: table("nope"), ..request(put("a", 2)) }),
            bytes: 1,
            asked: Instant::now(),
        })
        .unwrap();
    stream.next = 2;
    stream.send([update("a", &[("nope", model::Value::Int64(1))]), put("a", 3)]);
    let (results, end) = stream.rest().await;
    assert_eq!(end, StreamEnd::Finished);
    assert_eq!(results[1], Err(WriteError::TableNotEnabled(table("nope"))));
    assert!(results[0].is_ok() && matches!(results[2], Err(WriteError::Invalid { .. })) && results[3].is_ok());
    assert_eq!(world.amount("a").await, Some(3));
}

#[tokio::test]
async fn behind_an_unknown_outcome_nothing_of_the_stream_is_begun() {
    let world = World::new().await;
    world.store.lose_answers(true);
    // One write a batch, and no more than four read.
    let mut stream = Running::start(&world, 4);
    stream.send([put("a", 1), put("a", 2), put("a", 3), put("a", 4), put("b", 1), put("c", 1)]);
    let (results, end) = stream.rest().await;
    assert_eq!(end, StreamEnd::Unknown);
    assert!(matches!(results[0], Err(WriteError::OutcomeUnknown(_))), "{results:?}");
    assert_eq!(results[1..], vec![Err(WriteError::NotBegun(StreamEnd::Unknown)); 3]);
    world.store.lose_answers(false);
    assert_eq!(world.amount("a").await, Some(1), "it took effect after all, and none of the later ones did");
    assert_eq!((world.amount("b").await, world.amount("c").await), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_read_later_while_the_log_has_no_room_and_refused_only_when_that_lasts() {
    let world = World::new().await;
    world.log.set_room(false);
    let mut stream = Running::start(&world, 100);
    stream.send([put("a", 1)]);
    assert!(timeout(Duration::from_secs(2), stream.results.recv()).await.is_err(), "it waits");
    world.log.set_room(true);
    let page = timeout(Duration::from_secs(1), stream.results.recv()).await.unwrap().unwrap();
    assert!(matches!(page.as_slice(), [(0, Some(Ok(_)))]), "{page:?}");
    world.log.set_room(false);
    stream.send([put("a", 2)]);
    let (results, end) = stream.rest().await;
    assert_eq!((results, end), (vec![Err(WriteError::LogQueueFull)], StreamEnd::Finished));
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn a_stop_refuses_what_was_not_begun_and_answers_what_was() {
    let world = patient_world().await;
    world.log.set_fate(Fate::Hold);
    let mut stream = Running::start(&world, 100);
    stream.send([put("a", 1)]);
    until_amount(&world, "a", 1).await;
    stream.send([put("a", 2), put("b", 1)]);
    until_amount(&world, "b", 1).await;
    stream.stopping.cancel();
    stream.send([put("late", 1)]);
    while world.unqueued().await > 0 {
        world.log.release();
        yield_now().await;
    }
    let (results, end) = stream.rest().await;
    assert_eq!(end, StreamEnd::Stopping);
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert_eq!(results[1], Err(WriteError::NotBegun(StreamEnd::Stopping)));
    assert_eq!((results.len(), world.amount("a").await, world.amount("late").await), (3, Some(1), None));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_does_not_hold_up_the_end_and_is_not_told_that_nothing_happened() {
    let world = World::new().await;
    let mut stream = Running::start(&world, 400);
    // More than are handed over ahead.
    stream.send((0..400).map(|n| put(&format!("p{n}"), n)));
    until_amount(&world, "p399", 399).await;
    stream.stopping.cancel();
    assert_eq!(timeout(LONG, stream.end).await.unwrap().unwrap(), StreamEnd::Untaken);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_behind_an_unknown_outcome_does_not_hold_up_the_end() {
    let world = World::new().await;
    world.store.lose_answers(true);
    let mut stream = Running::start(&world, 400);
    stream.send((0..400).map(|n| put(&format!("p{n}"), n)));
    // What it has done, and what it refuses for that, waits for a client that takes nothing.
    assert!(timeout(IDLE / 2, &mut stream.end).await.is_err(), "the client has all of that time");
    stream.stopping.cancel();
    assert_eq!(timeout(IDLE / 4, stream.end).await.expect("it ends soon").unwrap(), StreamEnd::Untaken);
}

#[tokio::test(start_paused = true)]
async fn a_stream_on_which_nothing_comes_is_ended_and_one_that_is_worked_on_is_not() {
    let world = World::with(IngestOptions { publish_timeout: 4 * IDLE, ..quick_options() }, u64::MAX / 1000).await;
    world.log.set_fate(Fate::Hold);
    let mut stream = Running::start(&world, 100);
    stream.send([put("a", 1)]);
    assert!(timeout(2 * IDLE, stream.results.recv()).await.is_err());
    world.log.release();
    assert!(stream.results.recv().await.unwrap()[0].1.as_ref().unwrap().is_ok());
    assert_eq!(timeout(2 * IDLE, stream.end).await.unwrap().unwrap(), StreamEnd::Idle);
}

#[tokio::test]
async fn what_was_begun_is_finished_when_the_client_has_gone_and_the_rest_is_not_begun() {
    let world = patient_world().await;
    world.log.set_fate(Fate::Hold);
    let mut stream = Running::start(&world, 100);
    stream.send([put("a", 1)]);
    until_amount(&world, "a", 1).await;
    stream.send([put("a", 2)]);
    drop(stream.results);
    assert_eq!(timeout(LONG, stream.end).await.unwrap().unwrap(), StreamEnd::Gone);
    let finished = async {
        while world.unqueued().await > 0 {
            world.log.release();
            yield_now().await;
        }
    };
    timeout(LONG, finished).await.expect("its event is in the log");
    assert_eq!((world.logged("a").len(), world.amount("a").await), (1, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_waits_longer_than_its_request_is_remembered_takes_no_effect() {
    use ingest_svc::accept::WriteRequest;
    let world = World::new().await;
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let (sends, sent) = mpsc::unbounded_channel();
    let (taker, mut results) = mpsc::channel(10);
    let (writer, stopping) = (world.writer.clone(), CancellationToken::new());
    let options = StreamOptions { max_items: 100, max_bytes: 1 << 20, idle: IDLE };
    let end = tokio::spawn({
        let gate = gate.clone();
        async move {
            let enter = || async { gate.clone().acquire_owned().await.ok() };
            let arrivals = UnboundedReceiverStream::new(sent);
            writer.stream(Acknowledge::default(), options, arrivals, taker, enter, &stopping).await
        }
    });
    let first = || WriteRequest { request_id: Some(model::RequestId::new("r-1").unwrap()), ..request(put("a", 1)) };
    sends.send(Arrival { about: 0_usize, write: Some(first()), bytes: 100, asked: Instant::now() }).unwrap();
    for _ in 0..100 {
        yield_now().await;
    }
    // The client has heard nothing, sends it again elsewhere, and then another one.
    world.writer.write(first(), Acknowledge::default()).await.unwrap();
    world.write(put("a", 2)).await.unwrap();
    world.drain().await;
    tokio::time::advance(Duration::from_secs(180)).await;
    gate.add_permits(9);
    drop(sends);
    let mut told = Vec::new();
    while let Some(page) = results.recv().await {
        told.extend(page);
    }
    end.await.unwrap();
    assert_eq!(world.amount("a").await, Some(2), "the older value is back: {told:?}");
}
