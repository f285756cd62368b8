//! The consumer of one group member, on a thread of its own: librdkafka calls back on the thread that polls, and
//! what it wants there (a synchronous commit before partitions are given up) must not block a runtime.
//!
//! The thread sleeps until the consumer's queue becomes non-empty or somebody signals. Deliveries leave in the
//! order in which things happened: what was polled before a rebalance stands before it.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::AtomicBool,
        mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use model::Topic;
use rdkafka::{
    Message, Offset,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    client::{REQUEST_TIMEOUT, drop_aside, failed, topic_shape},
    commit::list,
    contiguous::{Contiguous, Met},
    membership::Membership,
    options::KafkaOptions,
    protocol,
    rebalance::{COMPARE_TIMEOUT, Delivery, MemberContext, commit},
};
use crate::{
    ledger::ProgressLedger,
    log::{Assignment, LogError, LogRecord, TopicPartition},
};

/// Noted progress is committed so often.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// The thread looks round at least so often; a wake-up that was missed costs no more than this.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// Records and bytes of one delivery.
const CHUNK_RECORDS: usize = 500;
const CHUNK_BYTES: usize = 4 << 20;
/// All partitions are taken up again at most so often.
const RESTART_INTERVAL: Duration = Duration::from_secs(3);
/// To set a partition back may take so long.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two questions at the end.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Errors that pass are reported at most so often.
const ERROR_INTERVAL: Duration = Duration::from_secs(1);
/// Between two attempts to join under a name that another process has.
const NAME_INTERVAL: Duration = Duration::from_secs(1);

/// What the drain's end asks for.
pub(super) enum Signal {
    /// The consumer's queue is no longer empty.
    Ready,
    /// A delivery was taken.
    Room,
    Subscribe(Vec<Topic>, oneshot::Sender<Result<(), LogError>>),
    Pause(Vec<TopicPartition>),
    Resume(Vec<TopicPartition>),
    /// Until when there is time for the last commit, and where to say what came of it.
    Close(Instant, oneshot::Sender<Result<(), LogError>>),
}

/// See the module.
pub(super) struct Member {
    membership: Membership,
    consumer: BaseConsumer<MemberContext>,
    context: Arc<MemberContext>,
    signals: Receiver<Signal>,
    deliver: mpsc::Sender<Delivery>,
    outbox: VecDeque<Delivery>,
    /// Names of topics, so that a record needs no new one.
    topics: HashMap<String, Topic>,
    /// What has come of each partition, to notice what is missing.
    met: HashMap<TopicPartition, Contiguous>,
    next_commit: Instant,
    next_error: Instant,
    subscribed: Vec<Topic>,
    next_restart: Instant,
    /// Why everything has to be taken up again as soon as it may.
    restart_due: Option<String>,
    /// When to join under our name again, which another process has.
    next_join: Option<Instant>,
}

enum Flow {
    Continue,
    Stop,
}

impl Member {
    pub(super) fn new(
        options: &KafkaOptions,
        ledger: Arc<Mutex<ProgressLedger>>,
        signal: Sender<Signal>,
        signals: Receiver<Signal>,
        deliver: mpsc::Sender<Delivery>,
        closing: Arc<AtomicBool>,
    ) -> Result<Self, LogError> {
        let membership = Membership::new(options, ledger, signal, closing);
        let consumer = membership.consumer()?;
        let now = Instant::now();
        Ok(Self {
            context: Arc::clone(consumer.context()),
            membership,
            consumer,
            signals,
            deliver,
            outbox: VecDeque::new(),
            topics: HashMap::new(),
            met: HashMap::new(),
            next_commit: now + COMMIT_INTERVAL,
            next_error: now,
            subscribed: Vec::new(),
            next_restart: now,
            restart_due: None,
            next_join: None,
        })
    }

    /// Runs until it is closed, left alone or ended by the group.
    pub(super) fn run(mut self) {
        loop {
            loop {
                match self.signals.try_recv() {
                    Ok(signal) => {
                        if let Flow::Stop = self.obey(signal) {
                            return;
                        }
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            if self.deliver.is_closed() {
                self.until_closed();
                return;
            }
            self.commit_when_due();
            if let Err(error) = self.join_when_due() {
                self.outbox.push_back(Delivery::Ended(error));
            }
            let Some(room) = self.hand_over() else { return };
            if room && self.collect() {
                continue;
            }
            let wait = IDLE_WAIT.min(self.next_commit.saturating_duration_since(Instant::now()));
            match self.signals.recv_timeout(wait) {
                Ok(signal) => {
                    if let Flow::Stop = self.obey(signal) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn obey(&mut self, signal: Signal) -> Flow {
        match signal {
            Signal::Ready => self.membership.heard(),
            Signal::Room => {}
            Signal::Subscribe(topics, answer) => {
                // Who has gone away meanwhile needs no answer.
                let _ = answer.send(self.subscribe(&topics));
            }
            Signal::Pause(partitions) => self.log_failure("pausing", self.consumer.pause(&list(&partitions))),
            Signal::Resume(partitions) => self.log_failure("resuming", self.consumer.resume(&list(&partitions))),
            Signal::Close(deadline, answer) => {
                let _ = answer.send(self.leave(deadline));
                return Flow::Stop;
            }
        }
        Flow::Continue
    }

    fn log_failure<E: fmt::Display>(&self, what: &str, result: Result<(), E>) {
        if let Err(error) = result {
            tracing::warn!(%error, "{what} partitions");
        }
    }

    fn subscribe(&mut self, topics: &[Topic]) -> Result<(), LogError> {
        for topic in topics {
            if topic_shape(self.consumer.client(), topic, REQUEST_TIMEOUT)?.is_none() {
                return Err(LogError::NoSuchTopic(topic.clone()));
            }
        }
        self.settle_protocol()?;
        topics.clone_into(&mut self.subscribed);
        if topics.is_empty() {
            self.consumer.unsubscribe();
            return Ok(());
        }
        self.join()
    }

    /// Before it joins for the first time. Not again: the brokers may offer another protocol by then, and the others follow
    /// when they are started.
    fn settle_protocol(&mut self) -> Result<(), LogError> {
        if self.membership.has_settled() {
            return Ok(());
        }
        let spoken = protocol::choose(self.membership.options(), self.consumer.client())?;
        if self.membership.settle(spoken) {
            self.renew()?;
        }
        Ok(())
    }

    /// Puts a consumer that has joined nothing yet in the place of one that has not either.
    fn renew(&mut self) -> Result<(), LogError> {
        let consumer = self.membership.consumer()?;
        self.context = Arc::clone(consumer.context());
        drop_aside(std::mem::replace(&mut self.consumer, consumer));
        Ok(())
    }

    fn join_when_due(&mut self) -> Result<(), LogError> {
        if self.next_join.is_some_and(|at| at <= Instant::now()) {
            self.next_join = None;
            self.renew()?;
            self.join()?;
        }
        Ok(())
    }

    fn join(&self) -> Result<(), LogError> {
        let names: Vec<&str> = self.subscribed.iter().map(Topic::as_str).collect();
        self.consumer.subscribe(&names).map_err(|error| failed("subscribing", &error))
    }

    /// The log is not what it was: gives all partitions up without a commit and joins anew, so that each is taken up
    /// where that is right now.
    fn start_again(&mut self, why: String) {
        self.context.ledger().distrust_all();
        let now = Instant::now();
        if now < self.next_restart {
            // The client says it once, and then reads that partition no more: it must not be forgotten.
            self.restart_due = Some(why);
            return;
        }
        if self.subscribed.is_empty() {
            return;
        }
        self.next_restart = now + RESTART_INTERVAL;
        tracing::error!(why, "the drain's partitions are taken up again");
        self.consumer.unsubscribe();
        self.log_failure("joining again for", self.join());
    }

    /// Commits what was noted. The group is left when the consumer is dropped, after the answer: that may hang, and
    /// whoever closes must learn of the commit all the same.
    fn leave(&mut self, deadline: Instant) -> Result<(), LogError> {
        let due = self.context.ledger().due(Instant::now());
        // Without this answer a commit might count in a log that it is not of. So it is asked for as long as there is
        // time, and else nothing is committed.
        let amiss = loop {
            match self.context.compare(&self.consumer, &due) {
                Err(LogError::Unavailable(why)) if Instant::now() + COMPARE_TIMEOUT < deadline => {
                    tracing::debug!(why, "comparing with the committed progress once more before leaving");
                    thread::sleep(ASK_AGAIN);
                }
                answer => break answer?,
            }
        };
        if let Some(why) = amiss {
            return Err(LogError::Unavailable(format!("nothing was committed at the end: {why}")));
        }
        let committed = commit(&self.consumer, &due, CommitMode::Sync);
        if committed.is_ok() {
            let mut ledger = self.context.ledger();
            for (partition, committed) in &due {
                ledger.confirm(partition, *committed, Instant::now());
            }
        }
        committed.map_err(|error| failed("committing progress at the end", &error))
    }

    fn commit_when_due(&mut self) {
        let now = Instant::now();
        if now < self.next_commit {
            return;
        }
        self.next_commit = now + COMMIT_INTERVAL;
        if let Some(why) = self.restart_due.take() {
            return self.start_again(why);
        }
        if self.consumer.assignment_lost() {
            return;
        }
        let due = self.context.ledger().due(now);
        match self.context.compare(&self.consumer, &due) {
            Ok(None) => {}
            Ok(Some(why)) => return self.start_again(why),
            Err(error) => {
                // The question may have taken long: records first.
                self.next_commit = Instant::now() + COMMIT_INTERVAL;
                return self.log_failure("comparing with the committed progress of", Err(error));
            }
        }
        let due = self.context.ledger().due(now);
        self.log_failure("committing progress of", commit(&self.consumer, &due, CommitMode::Async));
    }

    /// Delivers as far as there is room. `Some(true)`: everything is out. `None`: the last word was spoken.
    fn hand_over(&mut self) -> Option<bool> {
        while let Some(delivery) = self.outbox.pop_front() {
            let last = matches!(delivery, Delivery::Ended(_));
            match self.deliver.try_send(delivery) {
                Ok(()) if last => return None,
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(delivery)) => {
                    self.outbox.push_front(delivery);
                    return Some(false);
                }
                // The next round of the loop sees it.
                Err(mpsc::error::TrySendError::Closed(_)) => return Some(false),
            }
        }
        Some(true)
    }

    /// The drain's end takes no more: it was dropped, or its wish to close is on the way. (The signals alone don't
    /// tell: the consumer's callback holds a sender too.)
    fn until_closed(&mut self) {
        while let Ok(signal) = self.signals.recv_timeout(IDLE_WAIT) {
            if let Flow::Stop = self.obey(signal) {
                return;
            }
        }
    }

    /// Polls what is ready into the outbox. Whether there was anything.
    fn collect(&mut self) -> bool {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        loop {
            let served = self.context.served();
            let polled = self.consumer.poll(Duration::ZERO);
            let happened = self.context.take_happened();
            if !happened.is_empty() {
                // It was polled before: it stands before.
                push_records(&mut self.outbox, &mut chunk);
                for delivery in &happened {
                    begin_anew(&mut self.met, delivery);
                }
                self.outbox.extend(happened);
            }
            match polled {
                Some(Ok(message)) => {
                    let Some(record) = record(&mut self.topics, &message) else { continue };
                    if !self.context.ledger().owns(&record.from) {
                        continue;
                    }
                    let met = self.met.entry(record.from.clone()).or_insert_with(|| Contiguous::from(None));
                    match met.meet(record.offset) {
                        Met::Next => {}
                        Met::Known => continue,
                        Met::Gap(offsets) => {
                            drop(message);
                            self.ask_again(&record.from, &offsets);
                            continue;
                        }
                        Met::Missing(offsets) => {
                            push_records(&mut self.outbox, &mut chunk);
                            self.outbox.push_back(Delivery::Missing(record.from.clone(), offsets));
                        }
                    }
                    bytes += record.key.len() + record.payload.len();
                    chunk.push(record);
                    if chunk.len() >= CHUNK_RECORDS || bytes >= CHUNK_BYTES {
                        break;
                    }
                }
                Some(Err(error)) => {
                    if let Some(delivery) = self.judge(&error) {
                        push_records(&mut self.outbox, &mut chunk);
                        self.outbox.push_back(delivery);
                        break;
                    }
                }
                None if self.context.served() != served => {}
                None => break,
            }
        }
        push_records(&mut self.outbox, &mut chunk);
        !self.outbox.is_empty()
    }

    /// Some records did not come though later ones did: the partition is read again from there.
    ///
    /// If they don't come then either it goes on behind them. To stand still would help nobody: what the brokers have
    /// lost does not come back, and to set the group's offset by hand would skip the same records. It is safe, because
    /// nothing marks what is missing clean: it stays dirty in the hot store, and the relay, which sees that the drain has
    /// passed it, produces it again.
    fn ask_again(&mut self, at: &TopicPartition, offsets: &Range<i64>) {
        let TopicPartition { topic, partition } = at;
        tracing::warn!(%topic, partition, from = offsets.start, before = offsets.end,
            "records did not come though later ones did; asking for them again");
        let again = Offset::Offset(offsets.start);
        if let Err(error) = self.consumer.seek(topic.as_str(), i32::from(*partition), again, SEEK_TIMEOUT) {
            self.start_again(format!("{topic}/{partition} can't be read again from {}: {error}", offsets.start));
        }
    }

    fn judge(&mut self, error: &KafkaError) -> Option<Delivery> {
        let is_fatal = matches!(error, KafkaError::MessageConsumptionFatal(_))
            || error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal);
        if is_fatal {
            return self.refused_by_group(error);
        }
        let reason = self.context.last_error();
        if let Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) = error.rdkafka_error_code()
        {
            self.start_again("the log does not hold the offset that was to be read next".to_owned());
            return None;
        }
        let now = Instant::now();
        if now < self.next_error {
            return None;
        }
        self.next_error = now + ERROR_INTERVAL;
        Some(Delivery::Failed(failed(&reason, error)))
    }
}

impl Member {
    /// The consumer is of no use any more. Where it has not been a member yet, another may have better luck.
    fn refused_by_group(&mut self, error: &KafkaError) -> Option<Delivery> {
        if self.next_join.is_some() {
            return None;
        }
        let told = self.consumer.client().fatal_error();
        let code = told.as_ref().map(|(code, _)| *code).or(error.rdkafka_error_code());
        let reason = told.map_or_else(|| self.context.last_error(), |(_, reason)| reason);
        if !self.context.has_joined() {
            if code.is_some_and(is_unsupported) && self.membership.falls_back() {
                tracing::info!(reason, "the brokers refuse the new group protocol; the classic one is used");
                return self.renew().and_then(|()| self.join()).err().map(Delivery::Ended);
            }
            if code == Some(RDKafkaErrorCode::UnreleasedInstanceId) {
                self.next_join = Some(Instant::now() + NAME_INTERVAL);
                return Some(Delivery::Failed(LogError::Unavailable(self.membership.name_is_taken())));
            }
        }
        let message = match code {
            Some(RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::UnreleasedInstanceId) => {
                self.membership.name_was_taken()
            }
            _ => format!("the group refuses this member: {error}: {reason}; start it again"),
        };
        Some(Delivery::Ended(LogError::Fatal(message)))
    }
}

fn is_unsupported(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature)
}

fn push_records(outbox: &mut VecDeque<Delivery>, chunk: &mut Vec<LogRecord>) {
    if !chunk.is_empty() {
        outbox.push_back(Delivery::Records(std::mem::take(chunk)));
    }
}

fn begin_anew(met: &mut HashMap<TopicPartition, Contiguous>, delivery: &Delivery) {
    match delivery {
        Delivery::Assigned(assigned) => {
            for (Assignment { partition, committed }, _) in assigned {
                met.insert(partition.clone(), Contiguous::from(committed.map(|progress| progress.offset)));
            }
        }
        Delivery::Revoked(partitions) | Delivery::Lost(partitions) => {
            for partition in partitions {
                met.remove(partition);
            }
        }
        Delivery::Records(_) | Delivery::Missing(..) | Delivery::Failed(_) | Delivery::Ended(_) => {}
    }
}

fn record<M: Message>(topics: &mut HashMap<String, Topic>, message: &M) -> Option<LogRecord> {
    let topic = match topics.get(message.topic()) {
        Some(topic) => topic.clone(),
        None => {
            let topic = Topic::new(message.topic()).ok()?;
            topics.insert(message.topic().to_owned(), topic.clone());
            topic
        }
    };
    Some(LogRecord {
        from: TopicPartition { topic, partition: u16::try_from(message.partition()).ok()? },
        offset: message.offset(),
        key: Bytes::copy_from_slice(message.key().unwrap_or_default()),
        payload: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
    })
}
