//! Writes that a client sends one behind the other, without waiting for their results.
//!
//! What has arrived goes to the stores as a batch, at once; what arrives meanwhile is the next one, and several are under
//! way. A write waits for the earlier ones of its record only, and results go out in the order of the stream. What was read
//! and not taken back is bounded, in writes and bytes: past it nothing is read, so that a client that is too fast, or
//! takes no results, is held up by its own connection.
//!
//! Behind a write of unknown outcome the stream ends: it may still take effect, and a later one of its record must not
//! come first. What has not begun then, or when the service stops, is refused, and what was not read is not touched.

mod window;

use std::{future::Future, time::Duration};

use database::Database;
use event_log::{EventPublisher, LogReader};
use futures::{FutureExt as _, Stream, StreamExt as _, stream::FuturesUnordered};
use hot_store::{HotStore, RecordId};
use planted::Bug;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Accepted, AckLevel, Acknowledge, WriteError, WriteRequest, Writer, accept, validate};
use window::{Batch, Room, Window};

/// Batches of one stream under way at once.
const BATCHES: usize = 4;
/// Results that are handed over together, at most; fewer where writes failed.
const RESULTS: usize = 100;
/// A client gets so long to take the last results when the service stops.
const LAST_RESULTS: Duration = Duration::from_secs(5);
/// Between two looks whether the log has room, and for how long it is waited for: then the writes are refused.
const LOG_LOOK: Duration = Duration::from_millis(10);
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// The bounds of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    /// Writes that were read and whose results were not taken.
    pub max_items: usize,
    /// Their bytes; the last one may go beyond.
    pub max_bytes: usize,
    /// A stream on which nothing comes and nothing is taken for so long is ended.
    pub idle: Duration,
}

/// Something that was read from a stream.
#[derive(Debug)]
pub struct Arrival<T> {
    /// What the reader wants to know with its result.
    pub about: T,
    /// The write; `None` if it could not be read as one.
    pub write: Option<WriteRequest>,
    /// How large it is.
    pub bytes: usize,
    /// When it was read: a write that waits here for longer than its request is remembered must not take effect.
    pub asked: Instant,
}

/// What something that was read came to, and what was to be known with it; `None` for what was no write.
pub type StreamResult<T> = (T, Option<Result<Accepted, WriteError>>);

/// Why a stream has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamEnd {
    /// All of it was read and answered.
    #[error("all of it was answered")]
    Finished,
    /// Nobody takes results any more.
    #[error("nobody takes its results any more")]
    Gone,
    /// The service stops.
    #[error("the server is being stopped")]
    Stopping,
    /// The outcome of a write is unknown.
    #[error("the outcome of a write of it is unknown, and none of the later ones may overtake that")]
    Unknown,
    /// Nothing was sent on it for too long.
    #[error("nothing was sent on it for as long as the server waits")]
    Idle,
    /// The client did not take the results that there were for it.
    #[error("its results were not taken for as long as the server waits")]
    Untaken,
}

impl<H, L, D> Writer<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// Accepts the writes of a stream; each gets a result, in the order of the stream. `enter` waits until a batch may
    /// be worked on; `None` if none may any more. A batch that was begun is finished whatever becomes of the client.
    pub async fn stream<T, P, F>(
        &self,
        ack: Acknowledge,
        options: StreamOptions,
        arrivals: impl Stream<Item = Arrival<T>> + Unpin,
        results: mpsc::Sender<Vec<StreamResult<T>>>,
        enter: impl Fn() -> F,
        stopping: &CancellationToken,
    ) -> StreamEnd
    where
        P: Send + 'static,
        F: Future<Output = Option<P>>,
    {
        let max_items = options.max_items.max(1);
        let mut window = Window::new(Room { items: max_items, bytes: options.max_bytes.max(1) });
        let mut arrivals = arrivals.fuse();
        let mut running = FuturesUnordered::new();
        // Why nothing more is read.
        let mut end: Option<StreamEnd> = None;
        let mut stops = false;
        let mut moved = Instant::now();
        loop {
            match end {
                None | Some(StreamEnd::Finished) => {
                    while running.len() < BATCHES
                        && let Some(batch) = window.next_batch(max_items.div_ceil(BATCHES))
                    {
                        running.push(self.work_on(batch, ack, &enter));
                    }
                }
                Some(why) => window.refuse_waiting(&WriteError::NotBegun(why)),
            }
            if let Some(end) = end
                && window.is_empty()
            {
                return end;
            }
            let last = if stops { LAST_RESULTS } else { options.idle };
            tokio::select! {
                biased;
                () = results.closed() => return StreamEnd::Gone,
                Some((places, answers)) = running.next(), if !running.is_empty() => {
                    if answers.iter().any(|answer| matches!(answer, Err(WriteError::OutcomeUnknown(_)))) {
                        end = end.filter(|end| *end != StreamEnd::Finished).or(Some(StreamEnd::Unknown));
                    }
                    window.finish(places, answers);
                    moved = Instant::now();
                }
                Ok(taker) = results.reserve(), if window.has_results() => {
                    let mut taken = window.take_results(RESULTS);
                    if planted::is(Bug::StreamTurned) {
                        taken.reverse();
                    }
                    taker.send(taken);
                    moved = Instant::now();
                }
                () = stopping.cancelled(), if !stops => {
                    stops = true;
                    end = end.filter(|end| *end != StreamEnd::Finished).or(Some(StreamEnd::Stopping));
                    moved = Instant::now();
                }
                arrival = arrivals.next(), if end.is_none() && window.has_room() => {
                    moved = Instant::now();
                    let mut next = Some(arrival);
                    while let Some(arrival) = next.take() {
                        match arrival {
                            Some(arrival) => self.take_in(&mut window, arrival),
                            None => end = Some(StreamEnd::Finished),
                        }
                        if end.is_none() && window.has_room() {
                            // What is there already goes along.
                            next = arrivals.next().now_or_never();
                        }
                    }
                }
                () = sleep_until(moved + last), if running.is_empty() => {
                    if !window.is_empty() {
                        return StreamEnd::Untaken;
                    }
                    end = Some(StreamEnd::Idle);
                }
            }
        }
    }

    /// Finds out which record a write is about. One that the table refuses is answered at once.
    fn take_in<T>(&self, window: &mut Window<T>, Arrival { about, write, bytes, asked }: Arrival<T>) {
        let Some(request) = write else { return window.push_answered(about, bytes, None) };
        match self.record_of(&request) {
            Ok(record) => window.push(about, bytes, asked, record, request),
            Err(error) => window.push_answered(about, bytes, Some(Err(error))),
        }
    }

    fn record_of(&self, request: &WriteRequest) -> Result<RecordId, WriteError> {
        let core = &*self.core;
        let table = core.directory.table(&request.table);
        let table = table.ok_or_else(|| WriteError::TableNotEnabled(request.table.clone()))?;
        if let Some(record) = validate::record_of(&table, &request.change) {
            return Ok(record);
        }
        let (max, moment) = (core.log.max_payload_bytes(), core.options.moment());
        Ok(validate::check(table, request.clone(), core.shards, max, moment)?.record)
    }

    /// Works on a batch when that may be; its results come with its places.
    async fn work_on<P, F>(
        &self,
        batch: Batch,
        ack: Acknowledge,
        enter: impl Fn() -> F,
    ) -> (Vec<u64>, Vec<Result<Accepted, WriteError>>)
    where
        P: Send + 'static,
        F: Future<Output = Option<P>>,
    {
        let Batch { places, requests, bytes, asked } = batch;
        let count = places.len();
        if ack.required != Some(AckLevel::Logged) {
            self.room_in_log(count, bytes).await;
        }
        let Some(permit) = enter().await else {
            return (places, vec![Err(WriteError::NotBegun(StreamEnd::Stopping)); count]);
        };
        let core = self.core.clone();
        let work = async move {
            let results = accept(core, asked, requests, ack).await;
            drop(permit);
            results
        };
        (places, self.finish(work, count).await)
    }

    /// Waits until the log's queue takes so much, for a while: a stream is read later rather than refused.
    async fn room_in_log(&self, records: usize, bytes: usize) {
        let core = &*self.core;
        let deadline = Instant::now() + LOG_PATIENCE;
        while core.log.is_available() && !core.log.has_room(records, bytes) && Instant::now() < deadline {
            sleep(LOG_LOOK.mul_f64(core.options.chance.jitter(0.5..1.5))).await;
        }
    }
}
