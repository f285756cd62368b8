//! Following partitions as they grow: a consumer of its own, on a thread of its own, in no group.

use std::{collections::BTreeMap, thread, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::mpsc;

use super::{
    bounds::bounds,
    client::{QuietContext, drop_aside, failed, refused_settings, says_no_such_topic},
    contiguous::{Contiguous, Met},
    options::KafkaOptions,
    reader::{GroupClient, gone, missing},
};
use crate::log::{Following, LogError, LogRecord, TopicPartition};

/// Records, and bytes of them, that are handed over at once.
const CHUNK_RECORDS: usize = 500;
const CHUNK_BYTES: usize = 1 << 20;
/// So often it is looked whether anybody still listens.
const LISTENED: Duration = Duration::from_millis(100);

type Chunk = Result<Vec<LogRecord>, LogError>;

/// See [`LogReader::follow`](crate::LogReader::follow).
pub(super) fn follow(options: &KafkaOptions, from: Vec<(TopicPartition, i64)>) -> Following {
    let (chunks, received) = mpsc::channel(1);
    let options = options.clone();
    let thread = thread::Builder::new().name("event-log-follow".into());
    let started = thread.spawn({
        let chunks = chunks.clone();
        move || {
            if let Err(error) = run(&options, &from, &chunks) {
                // Nobody listens any more if this fails.
                drop(chunks.blocking_send(Err(error)));
            }
        }
    });
    if let Err(error) = started {
        let error = LogError::Unavailable(format!("no thread to follow the log: {error}"));
        return stream::once(async { Err(error) }).boxed();
    }
    drop(chunks);
    stream::unfold(Some(received), |received| async move {
        let mut received = received?;
        match received.recv().await {
            Some(Ok(records)) => Some((Ok(records), Some(received))),
            Some(Err(error)) => Some((Err(error), None)),
            // The thread ends without a word only when it panics.
            None => Some((Err(LogError::Unavailable("following the log was broken off".into())), None)),
        }
    })
    .boxed()
}

/// Blocks until nobody listens any more.
fn run(options: &KafkaOptions, from: &[(TopicPartition, i64)], chunks: &mpsc::Sender<Chunk>) -> Result<(), LogError> {
    let client: GroupClient = BaseConsumer::from_config_and_context(&options.follower(), QuietContext)
        .map_err(|error| refused_settings(&error))?;
    let outcome = Follower::new(&client, from).and_then(|mut follower| follower.run(chunks));
    drop_aside(client);
    outcome
}

struct Follower<'a> {
    client: &'a GroupClient,
    partitions: BTreeMap<(String, i32), (TopicPartition, Contiguous)>,
}

impl<'a> Follower<'a> {
    fn new(client: &'a GroupClient, from: &[(TopicPartition, i64)]) -> Result<Self, LogError> {
        let partitions: Vec<_> = from.iter().map(|(partition, _)| partition.clone()).collect();
        for ((partition, from), (first, next)) in from.iter().zip(bounds(client, &partitions)?) {
            if *from < first {
                return Err(gone(partition, *from, first));
            }
            if *from > next {
                let TopicPartition { topic, partition } = partition;
                return Err(LogError::Unfit(format!("{topic}/{partition} ends at offset {next} now, before {from}")));
            }
        }
        let mut assignment = TopicPartitionList::new();
        for (TopicPartition { topic, partition }, from) in from {
            assignment
                .add_partition_offset(topic.as_str(), i32::from(*partition), Offset::Offset(*from))
                .map_err(|error| failed("following the log", &error))?;
        }
        client.assign(&assignment).map_err(|error| failed("following the log", &error))?;
        let place = |(at, from): &(TopicPartition, i64)| {
            let name = (at.topic.as_str().to_owned(), i32::from(at.partition));
            (name, (at.clone(), Contiguous::from(Some(*from))))
        };
        Ok(Self { client, partitions: from.iter().map(place).collect() })
    }

    fn run(&mut self, chunks: &mpsc::Sender<Chunk>) -> Result<(), LogError> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        loop {
            // Wait only with empty hands: what is there is handed over as soon as no more is ready.
            let wait = if chunk.is_empty() { LISTENED } else { Duration::ZERO };
            let met = self.client.poll(wait);
            let is_more = met.is_some();
            match met {
                Some(Ok(message)) => {
                    let name = (message.topic().to_owned(), message.partition());
                    let Some((partition, contiguous)) = self.partitions.get_mut(&name) else { continue };
                    match contiguous.meet(message.offset()) {
                        Met::Next => {}
                        Met::Known => continue,
                        // Whoever reads again from there finds out whether they are lost.
                        Met::Gap(offsets) | Met::Missing(offsets) => return Err(missing(partition, &offsets)),
                    }
                    let (key, payload) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
                    bytes += key.len() + payload.len();
                    chunk.push(LogRecord {
                        from: partition.clone(),
                        offset: message.offset(),
                        key: Bytes::copy_from_slice(key),
                        payload: Bytes::copy_from_slice(payload),
                    });
                }
                Some(Err(error)) => judge(&error)?,
                None if chunks.is_closed() => return Ok(()),
                None => {}
            }
            let is_full = chunk.len() >= CHUNK_RECORDS || bytes >= CHUNK_BYTES;
            if (is_full || !is_more) && !chunk.is_empty() {
                bytes = 0;
                if chunks.blocking_send(Ok(std::mem::take(&mut chunk))).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

fn judge(error: &KafkaError) -> Result<(), LogError> {
    match error.rdkafka_error_code() {
        // Deleted before it was read, or the log has lost its end, or is another one by now.
        Some(code @ (RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)) => {
            Err(LogError::Unavailable(format!("following the log: {code}")))
        }
        _ if says_no_such_topic(error) => Err(LogError::Unavailable(format!("following the log: {error}"))),
        _ => match failed("following the log", error) {
            // librdkafka goes on trying.
            LogError::Unavailable(why) => {
                tracing::debug!("{why}");
                Ok(())
            }
            fatal => Err(fatal),
        },
    }
}
