//! Collects the writes of many tasks into batches.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{Accepted, Client, ClientError, Write};

/// How a [`Batcher`] collects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatcherOptions {
    /// Writes of one batch, at most; not more than the server takes (1,000 unless configured otherwise).
    pub max_items: usize,
    /// Bytes of one batch, at most; not more than the server's limit of a message. A larger single write goes by
    /// itself.
    pub max_bytes: usize,
    /// Writes that wait for their batch, at most; past it [`Batcher::submit`] waits.
    pub queue: usize,
}

impl Default for BatcherOptions {
    fn default() -> Self {
        Self { max_items: 500, max_bytes: 3 * 1024 * 1024, queue: 2_000 }
    }
}

#[derive(Debug)]
struct Waiting {
    write: Write,
    answer: oneshot::Sender<Result<Accepted, ClientError>>,
}

/// Collects single writes from many tasks into [`Client::batch_write`] calls.
///
/// While one batch is on its way the next one gathers, so there is no timer: under no load a write leaves at once,
/// under load batches grow by themselves. Writes take effect in the order in which they were submitted, per key, since
/// one batch is on its way at a time; for more throughput than that gives use several batchers, each for its own keys.
///
/// What was submitted is sent also when nobody waits for its result any more, and when the batcher is dropped.
#[derive(Debug)]
pub struct Batcher {
    queue: mpsc::Sender<Waiting>,
    worker: JoinHandle<()>,
}

/// The result of a submitted write, to be awaited.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<Result<Accepted, ClientError>>,
}

impl Pending {
    pub(crate) fn new(answer: oneshot::Receiver<Result<Accepted, ClientError>>) -> Self {
        Self { answer }
    }
}

impl Future for Pending {
    type Output = Result<Accepted, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        // Without an answer the worker was torn down with its runtime, perhaps in the middle of it.
        let gone = |_| ClientError::Transport("the runtime that works on it was shut down".into());
        Poll::Ready(answer.map_err(gone).and_then(|result| result))
    }
}

impl Batcher {
    /// A batcher over a client, whose acknowledgement it uses. Must be called in a Tokio runtime.
    pub fn new(client: Client, options: BatcherOptions) -> Self {
        let (queue, waiting) = mpsc::channel(options.queue.max(1));
        Self { queue, worker: tokio::spawn(work(client, options, waiting)) }
    }

    /// Makes one write with the next batch.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn write(&self, write: Write) -> Result<Accepted, ClientError> {
        self.submit(write).await?.await
    }

    /// Puts a write into the queue and answers when it has its place there; what comes of it is awaited later.
    ///
    /// # Errors
    /// [`ClientError::BatcherClosed`] if the runtime in which the batcher was made has been shut down.
    pub async fn submit(&self, write: Write) -> Result<Pending, ClientError> {
        let (answer, pending) = oneshot::channel();
        match self.queue.send(Waiting { write, answer }).await {
            Ok(()) => Ok(Pending::new(pending)),
            Err(_) => Err(ClientError::BatcherClosed),
        }
    }

    /// Takes no more, and waits until all that was submitted has been answered.
    pub async fn close(self) {
        drop(self.queue);
        // An error would be a panic of the worker, which has been reported and has failed its callers.
        drop(self.worker.await);
    }
}

async fn work(client: Client, options: BatcherOptions, mut queue: mpsc::Receiver<Waiting>) {
    let mut carried: Option<Waiting> = None;
    loop {
        let first = match carried.take() {
            Some(first) => first,
            None => match queue.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let mut bytes = first.write.bytes_at_most();
        let (mut writes, mut answers) = (vec![first.write], vec![first.answer]);
        while writes.len() < options.max_items {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.write.bytes_at_most();
            if bytes > options.max_bytes {
                carried = Some(next);
                break;
            }
            writes.push(next.write);
            answers.push(next.answer);
        }
        let results = client.batch_write(&writes).await;
        for (answer, result) in answers.into_iter().zip(results) {
            // A caller that has gone does not want to know.
            drop(answer.send(result));
        }
    }
}
