//! Writes one behind the other, without waiting for their results.

mod outbox;

use std::{sync::Arc, time::Instant};

use proto::v1::{self, write_item_result::Outcome};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use crate::{
    Accepted, Client, ClientError, Pending, Write,
    key_group::group_of,
    retry::{Backoff, Repeat},
};
use outbox::{Entry, Outbox, Settled};

/// The bounds of a [`WriteStream`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteStreamOptions {
    /// Writes without a result, at most; past it [`WriteStream::send`] waits.
    pub max_items: usize,
    /// Their bytes, at most; a larger single write goes when it is alone.
    pub max_bytes: usize,
    /// Writes of one message, at most; not more than the server takes as items of a batch (1,000 unless configured
    /// otherwise).
    pub max_message_items: usize,
    /// Bytes of one message, at most; not more than the server's limit. A larger single write goes by itself.
    pub max_message_bytes: usize,
}

impl Default for WriteStreamOptions {
    fn default() -> Self {
        Self { max_items: 2_000, max_bytes: 8 << 20, max_message_items: 200, max_message_bytes: 512 << 10 }
    }
}

/// Makes writes one behind the other over one stream, for throughput: no round trip is waited for between them.
///
/// Writes of one key take effect in the order in which they were sent; one at a time is under way, so for throughput
/// spread over keys. When the stream ends or breaks, or a write is refused in a way that passes, what has no result is
/// sent again over a new stream, under the same request ids, by the rules of single writes
/// ([`Builder::timeout`](crate::Builder::timeout) counts for each write from when it is first sent).
///
/// What was sent is worked on also when nobody waits for its result any more, and when this is dropped.
#[derive(Debug)]
pub struct WriteStream {
    client: Client,
    items: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_bytes: u32,
    queue: mpsc::UnboundedSender<Entry<Answer>>,
    worker: JoinHandle<()>,
}

/// Who waits for a result, and the room that the write takes until then.
#[derive(Debug)]
struct Answer {
    result: oneshot::Sender<Result<Accepted, ClientError>>,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl WriteStream {
    /// A stream over a client, whose acknowledgement it uses; it is opened when something is sent. Must be called in a
    /// Tokio runtime.
    pub fn new(client: Client, options: WriteStreamOptions) -> Self {
        // What is in it has a place among `max_items`.
        let (queue, submitted) = mpsc::unbounded_channel();
        let max_bytes = u32::try_from(options.max_bytes.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX >> 3);
        let worker = Worker { client: client.clone(), options, submitted: Some(submitted), outbox: Outbox::default() };
        Self {
            client,
            items: Arc::new(Semaphore::new(options.max_items.clamp(1, Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(max_bytes as usize)),
            max_bytes,
            queue,
            worker: tokio::spawn(worker.run()),
        }
    }

    /// Sends a write as soon as there is room, and answers when it has its place behind the earlier ones; what comes
    /// of it is awaited later.
    ///
    /// # Errors
    /// If the server can't say what the table's primary key is: nothing was sent. [`ClientError::BatcherClosed`] if the
    /// runtime in which the stream was made has been shut down.
    pub async fn send(&self, write: Write) -> Result<Pending, ClientError> {
        let keys = self.client.known_key_columns(&write.table).await?;
        let bytes = u32::try_from(write.bytes_at_most()).unwrap_or(u32::MAX).min(self.max_bytes);
        // Whoever waits for bytes holds a place: so the order in which places are given is that of the writes.
        let item = self.items.clone().acquire_owned().await.map_err(|_| ClientError::BatcherClosed)?;
        let bytes = self.bytes.clone().acquire_many_owned(bytes).await.map_err(|_| ClientError::BatcherClosed)?;
        let (result, pending) = oneshot::channel();
        let (id, group) = (self.client.id_of(&write), group_of(&write, &keys));
        let entry = Entry::new(write, id, group, Answer { result, _room: (item, bytes) });
        self.queue.send(entry).map_err(|_| ClientError::BatcherClosed)?;
        Ok(Pending::new(pending))
    }

    /// Makes one write among the others, and waits for its result.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn write(&self, write: Write) -> Result<Accepted, ClientError> {
        self.send(write).await?.await
    }

    /// Takes no more, and waits until all that was sent has its result.
    pub async fn close(self) {
        drop(self.queue);
        // An error would be a panic of the worker, which has been reported and has failed its callers.
        drop(self.worker.await);
    }
}

/// An open stream.
struct Connected {
    messages: mpsc::Sender<v1::WriteStreamRequest>,
    answers: Streaming<v1::WriteStreamResponse>,
}

struct Worker {
    client: Client,
    options: WriteStreamOptions,
    /// `None` when no more comes.
    submitted: Option<mpsc::UnboundedReceiver<Entry<Answer>>>,
    outbox: Outbox<Answer>,
}

impl Worker {
    async fn run(mut self) {
        // While no stream can be opened.
        let mut opening: Option<Backoff> = None;
        while self.until_ready().await {
            let error = match self.open().await {
                Ok(connected) => {
                    opening = None;
                    let Some(error) = self.carry(connected).await else { continue };
                    let failed = self.outbox.ended(&error, Instant::now(), rand::random);
                    tell(failed);
                    continue;
                }
                Err(error) => error,
            };
            let backoff = opening.get_or_insert_with(|| self.client.backoff_of_writes());
            let passes = Repeat::Harmless.may_follow(&error);
            match if passes { backoff.delay(error.retry_after(), rand::random()) } else { None } {
                Some(delay) => sleep(delay).await,
                None => {
                    tell(self.outbox.fail_all(&error));
                    opening = None;
                }
            }
        }
    }

    /// Waits until something may be sent; `false` if nothing will be any more.
    async fn until_ready(&mut self) -> bool {
        loop {
            self.outbox.come_due(Instant::now());
            if self.outbox.has_ready() {
                return true;
            }
            if self.is_done() {
                return false;
            }
            let due = self.outbox.next_due();
            tokio::select! {
                () = self.receive() => {}
                () = until(due) => {}
            }
        }
    }

    fn is_done(&self) -> bool {
        self.submitted.is_none() && self.outbox.is_empty()
    }

    /// Takes in what is handed in next, and all that is there with it; waits for ever when no more comes.
    async fn receive(&mut self) {
        let Some(submitted) = &mut self.submitted else { return std::future::pending().await };
        match submitted.recv().await {
            Some(entry) => {
                self.outbox.push(entry);
                while let Ok(entry) = submitted.try_recv() {
                    self.outbox.push(entry);
                }
            }
            None => self.submitted = None,
        }
    }

    /// Opens a stream. When that fails nothing was sent over it.
    async fn open(&self) -> Result<Connected, ClientError> {
        let limit = self.client.attempt_timeout();
        let (messages, sent) = mpsc::channel(1);
        let acknowledgement = Some(self.client.acknowledge().to_proto());
        let first = v1::WriteStreamRequest { items: Vec::new(), acknowledgement };
        drop(messages.try_send(first));
        let mut records = self.client.connection().records;
        match timeout(limit, records.write_stream(Request::new(ReceiverStream::new(sent)))).await {
            Ok(Ok(answers)) => Ok(Connected { messages, answers: answers.into_inner() }),
            Ok(Err(status)) => Err(match ClientError::from(status) {
                ClientError::Transport(problem) => ClientError::Connect(problem),
                other => other,
            }),
            Err(_) => Err(ClientError::Connect(format!("the server did not open a stream within {limit:?}"))),
        }
    }

    /// Sends and takes results until all is answered (`None`), or the stream is over: why.
    async fn carry(&mut self, Connected { messages, mut answers }: Connected) -> Option<ClientError> {
        let stall = 2 * self.client.attempt_timeout() + self.client.acknowledge().wait;
        let mut moved = Instant::now();
        let mut takes_more = true;
        loop {
            self.outbox.come_due(Instant::now());
            if self.is_done() {
                return None;
            }
            if !self.outbox.has_sent() {
                moved = Instant::now();
            }
            let due = self.outbox.next_due();
            tokio::select! {
                biased;
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        moved = Instant::now();
                        for result in answer.results {
                            match self.outbox.answered(outcome(result), moved, rand::random()) {
                                Ok(settled) => tell(settled),
                                Err(error) => return Some(error),
                            }
                        }
                    }
                    Ok(None) => return Some(ClientError::Transport("the server ended the stream".into())),
                    Err(status) => return Some(ClientError::from(status)),
                },
                () = self.receive() => {}
                place = messages.reserve(), if takes_more && self.outbox.has_ready() => match place {
                    Ok(place) => {
                        let WriteStreamOptions { max_message_items, max_message_bytes, .. } = self.options;
                        let client = &self.client;
                        let backoff = || client.backoff_of_writes();
                        let entries = self.outbox.take_ready(max_message_items, max_message_bytes, backoff);
                        let items = entries.iter().map(|entry| entry.write.to_item(entry.id.as_deref())).collect();
                        place.send(v1::WriteStreamRequest { items, acknowledgement: None });
                    }
                    // The answers tell why.
                    Err(_) => takes_more = false,
                },
                () = until(due) => {}
                () = until(Some(moved + stall)), if self.outbox.has_sent() => return Some(ClientError::TimedOut(stall)),
            }
        }
    }
}

/// Waits for a moment; for ever if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

fn outcome(result: v1::WriteItemResult) -> Result<Accepted, ClientError> {
    match result.outcome {
        Some(Outcome::Result(result)) => Accepted::from_answer(Some(result)),
        Some(Outcome::Status(status)) => Err(ClientError::from_item(&status)),
        None => Err(ClientError::BadAnswer("a write has no outcome".into())),
    }
}

fn tell(settled: impl IntoIterator<Item = Settled<Answer>>) {
    for (answer, result) in settled {
        // A caller that has gone does not want to know.
        drop(answer.result.send(result));
    }
}
