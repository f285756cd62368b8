//! WriteStream: messages taken apart into the writes of one stream, and what these came to put into messages.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use prost::Message as _;
use proto::{Reason, v1};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Streaming};

use super::{
    failure::{Failure, FieldProblem},
    records::item_result,
    request::{Databases, acknowledge, name},
};
use crate::accept::{Acknowledge, Arrival, StreamEnd, StreamResult, WriteError};

/// What the answer to an item says besides what became of it, or why it is no write.
type About = Result<Told, Failure>;

/// Where a write stands.
pub(super) struct Told {
    place: u64,
    field: &'static str,
    named: bool,
}

/// The writes of a stream, as they come in.
pub(super) struct Arrivals {
    messages: Streaming<v1::WriteStreamRequest>,
    databases: Arc<Databases>,
    max_message_items: usize,
    /// Those of a message that has been read.
    read: VecDeque<Arrival<About>>,
    /// The place of the next one in the stream.
    next: u64,
    /// Why no more are read; it is told when all others are answered.
    refused: Option<Failure>,
}

impl Arrivals {
    pub(super) fn new(
        messages: Streaming<v1::WriteStreamRequest>,
        databases: Arc<Databases>,
        max_message_items: usize,
    ) -> Self {
        Self { messages, databases, max_message_items, read: VecDeque::new(), next: 0, refused: None }
    }

    /// Waits for the first message, which says how the writes are to be acknowledged.
    pub(super) async fn begin(&mut self, idle: Duration, stopping: &CancellationToken) -> Result<Acknowledge, Failure> {
        let first = match stopping.run_until_cancelled(timeout(idle, self.messages.next())).await {
            None => return Err(ended(StreamEnd::Stopping)),
            Some(Err(_)) => return Err(ended(StreamEnd::Idle)),
            Some(Ok(None)) => return Ok(Acknowledge::default()),
            Some(Ok(Some(message))) => message.map_err(|status| Failure::of_transport(&status))?,
        };
        let ack = acknowledge(first.acknowledgement)?;
        self.take_apart(v1::WriteStreamRequest { acknowledgement: None, ..first })?;
        Ok(ack)
    }

    /// What the client is told when all that was read is answered.
    pub(super) fn ended(self, end: StreamEnd) -> Result<(), Failure> {
        match end {
            StreamEnd::Finished => self.refused.map_or(Ok(()), Err),
            StreamEnd::Gone => Ok(()),
            end => Err(ended(end)),
        }
    }

    fn take_apart(&mut self, message: v1::WriteStreamRequest) -> Result<(), Failure> {
        if message.acknowledgement.is_some() {
            let problem = "may be set in the first message of a stream only";
            return Err(Failure::of_fields(vec![FieldProblem::invalid("acknowledgement", problem)]));
        }
        let (count, max) = (message.items.len(), self.max_message_items);
        if count > max {
            let problem = format!("the message has {count} items, the server takes {max}");
            return Err(Failure::new(Reason::BatchTooLarge, problem).with("max_items", max));
        }
        let asked = Instant::now();
        for item in message.items {
            let (place, bytes) = (self.next, item.encoded_len());
            self.next += 1;
            let field = item.operation.as_ref().map_or("", name);
            let (about, write) = match self.databases.item(place, item) {
                Ok(write) => (Ok(Told { place, field, named: write.request_id.is_some() }), Some(write)),
                Err(failure) => (Err(failure), None),
            };
            self.read.push_back(Arrival { about, write, bytes, asked });
        }
        Ok(())
    }
}

impl Stream for Arrivals {
    type Item = Arrival<About>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(arrival) = self.read.pop_front() {
                return Poll::Ready(Some(arrival));
            }
            if self.refused.is_some() {
                return Poll::Ready(None);
            }
            self.refused = match ready!(self.messages.poll_next_unpin(context)) {
                None => return Poll::Ready(None),
                Some(Ok(message)) => self.take_apart(message).err(),
                // The client, or its connection, is gone: nobody would read it.
                Some(Err(status)) if matches!(status.code(), Code::Cancelled | Code::Unknown) => {
                    return Poll::Ready(None);
                }
                Some(Err(status)) => Some(Failure::of_transport(&status)),
            };
        }
    }
}

fn ended(end: StreamEnd) -> Failure {
    let reason = if end == StreamEnd::Untaken { Reason::OutcomeUnknown } else { Reason::StreamEnded };
    Failure::new(reason, format!("the server has ended the stream: {end}"))
}

/// Results as a message.
pub(super) fn results(results: Vec<StreamResult<About>>) -> v1::WriteStreamResponse {
    let outcome = |(about, result): StreamResult<About>| {
        let Told { place, field, named } = about?;
        let result = result.unwrap_or_else(|| Err(WriteError::OutcomeUnknown("it has no result".to_owned())));
        result.map_err(|error| Failure::from(error).repeatable(named).within(&format!("items[{place}].{field}")))
    };
    v1::WriteStreamResponse { results: results.into_iter().map(|result| item_result(outcome(result))).collect() }
}
