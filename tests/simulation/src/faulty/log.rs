//! The event log of one process that is in no group.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use event_log::{
    Committed, EventPublisher, Following, LogError, LogReader, LogRecord, LogSettings, Outgoing, PublishError,
    TopicPartition,
};
use futures::{StreamExt as _, stream};
use model::Topic;
use tokio::sync::oneshot;

use super::Faulty;
use crate::{
    climate::{End, Fate},
    nature::{Place, brief},
    process::{Fault, Process, wait},
};

impl Fault for LogError {
    fn refused() -> Self {
        Self::Unavailable("simulated".to_owned())
    }

    fn unanswered() -> Self {
        Self::Unavailable("simulated: no answer".to_owned())
    }
}

fn unanswered() -> PublishError {
    PublishError::Unknown("simulated".to_owned())
}

impl<L: EventPublisher> EventPublisher for Faulty<L> {
    fn is_available(&self) -> bool {
        self.inner.is_available() && !self.process.nature().is_away(Place::Log)
    }

    fn has_room(&self, records: usize, bytes: usize) -> bool {
        self.inner.has_room(records, bytes)
    }

    fn max_payload_bytes(&self) -> usize {
        self.inner.max_payload_bytes()
    }

    async fn ensure_topic(&self, topic: &Topic, partitions: u16, settings: LogSettings) -> Result<(), LogError> {
        let (inner, topic) = (self.inner.clone(), topic.clone());
        let effect = async move { inner.ensure_topic(&topic, partitions, settings).await };
        self.process.call(Place::Log, self.process.shown(|| "ensure_topic".to_owned()), effect).await
    }

    /// Each partition has a fate of its own: of one call some records get through and others don't, and what is told
    /// to have an unknown outcome may lie in the log, get there much later, or never.
    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<i64, PublishError>> {
        self.process.turn().await;
        let count = records.len();
        let mut by_partition: BTreeMap<TopicPartition, (Vec<usize>, Vec<Outgoing>)> = BTreeMap::new();
        for (place, record) in records.into_iter().enumerate() {
            let (places, records) = by_partition.entry(record.to.clone()).or_default();
            places.push(place);
            records.push(record);
        }
        let calls: Vec<_> =
            by_partition.into_iter().map(|(at, (places, records))| (places, self.send(at, records))).collect();
        let mut answers = vec![Err(unanswered()); count];
        let mut slowest = Duration::ZERO;
        for (places, sent) in calls {
            slowest = slowest.max(sent.after);
            for (place, answer) in places.into_iter().zip(sent.answers().await) {
                answers[place] = answer;
            }
        }
        wait(slowest).await;
        self.process.turn().await;
        self.process
            .nature()
            .note(|| format!("{} publish told {}", self.process.name(), brief(&format!("{answers:?}"))));
        answers
    }

    async fn flush(&self, within: Duration) {
        self.process.turn().await;
        self.inner.flush(within).await;
    }
}

/// What was sent to one partition.
struct Sent {
    count: usize,
    fate: Fate,
    after: Duration,
    answered: Option<oneshot::Receiver<Vec<Result<i64, PublishError>>>>,
    /// Of a call that is not answered, the first records may be.
    answered_first: usize,
}

impl<L: EventPublisher> Faulty<L> {
    fn send(&self, at: TopicPartition, records: Vec<Outgoing>) -> Sent {
        let nature = self.process.nature();
        let fate = nature.fate(Place::Log);
        let call = self.process.name_call(self.process.shown(|| {
            let shown: Vec<String> = records.iter().map(shown).collect();
            format!("publish({}/{}, {})", at.topic, at.partition, shown.join(", "))
        }));
        nature.note(|| format!("{call} sent {fate:?}"));
        let count = records.len();
        let answered_first = match fate.end {
            End::Unanswered => nature.pick(0..count as u64) as usize,
            _ => 0,
        };
        let mut sent = Sent { count, fate, after: fate.after, answered: None, answered_first };
        if matches!(fate.end, End::Refused | End::Lost) {
            return sent;
        }
        let (answer, answered) = oneshot::channel();
        sent.answered = Some(answered);
        let (inner, process, under_way) = (self.inner.clone(), self.process.clone(), nature.begin());
        tokio::spawn(async move {
            wait(fate.before).await;
            if let End::Late(by) = fate.end {
                wait(by).await;
            }
            if process.is_dead() && !fate.survives_caller {
                process.nature().note(|| format!("{call} dies with its process"));
                return;
            }
            let again = fate.again.map(|by| (by, records.clone()));
            let answers = inner.publish(records).await;
            process.nature().note(|| format!("{call} done {answers:?}"));
            let _ = answer.send(answers);
            if let Some((by, records)) = again {
                wait(by).await;
                let answers = inner.publish(records).await;
                process.nature().note(|| format!("{call} done again {answers:?}"));
            }
            drop(under_way);
        });
        sent
    }
}

impl Sent {
    async fn answers(self) -> Vec<Result<i64, PublishError>> {
        let all = |error: PublishError| vec![Err(error); self.count];
        match (self.fate.end, self.answered) {
            (End::Refused, _) => all(PublishError::Refused("simulated".to_owned())),
            (End::Late(_), _) => {
                wait(self.fate.before).await;
                all(unanswered())
            }
            (End::Lost, _) | (_, None) => all(unanswered()),
            (end, Some(answered)) => match answered.await {
                Err(_) => all(unanswered()),
                Ok(answers) if end == End::Answered => answers,
                Ok(mut answers) => {
                    answers.iter_mut().skip(self.answered_first).for_each(|answer| *answer = Err(unanswered()));
                    answers
                }
            },
        }
    }
}

/// An event as the trace shows it.
pub(crate) fn shown(record: &Outgoing) -> String {
    match model::Event::decode(record.payload.clone()) {
        Ok(event) => match event.body {
            model::EventBody::Fence(_) => format!("fence e{}", event.epoch),
            model::EventBody::Requests(notes) => notes
                .iter()
                .map(|note| format!("e{} v{} request {}", event.epoch, note.version, note.request.id.as_str()))
                .collect::<Vec<_>>()
                .join(" "),
            model::EventBody::Mutations(mutations) => mutations
                .iter()
                .map(|m| format!("e{} v{} {:?} {:?}", event.epoch, m.version, m.key, m.image.content))
                .collect::<Vec<_>>()
                .join(" "),
        },
        Err(error) => error.to_string(),
    }
}

impl<L: LogReader> LogReader for Faulty<L> {
    async fn bounds(&self, partitions: &[TopicPartition]) -> Result<Vec<(i64, i64)>, LogError> {
        let (inner, partitions) = (self.inner.clone(), partitions.to_vec());
        let effect = async move { inner.bounds(&partitions).await };
        self.process.call(Place::Log, self.process.shown(|| "bounds".to_owned()), effect).await
    }

    async fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, LogError> {
        let (inner, partitions) = (self.inner.clone(), partitions.to_vec());
        let effect = async move { inner.committed(&partitions).await };
        self.process.call(Place::Log, self.process.shown(|| "committed".to_owned()), effect).await
    }

    async fn read(
        &self,
        partition: &TopicPartition,
        from: i64,
        to: i64,
        each: &mut (dyn FnMut(LogRecord) -> bool + Send),
    ) -> Result<(), LogError> {
        let (inner, at) = (self.inner.clone(), partition.clone());
        let effect = async move {
            let mut records = Vec::new();
            inner
                .read(&at, from, to, &mut |record| {
                    records.push(record);
                    true
                })
                .await?;
            Ok(records)
        };
        let what = self.process.shown(|| format!("read({}/{}, {from}..{to})", partition.topic, partition.partition));
        let records: Vec<LogRecord> = self.process.call(Place::Log, what, effect).await?;
        for record in records {
            if !each(record) {
                break;
            }
        }
        Ok(())
    }

    /// What comes, comes late; and now and then the log can't be followed any more.
    fn follow(&self, from: Vec<(TopicPartition, i64)>) -> Following {
        let (process, following) = (self.process.clone(), Some(self.inner.follow(from)));
        let next = async move |(process, following): (Arc<Process>, Option<Following>)| {
            let mut following = following?;
            process.turn().await;
            let fate = process.nature().fate(Place::Log);
            wait(fate.before).await;
            if fate.end == End::Refused {
                return Some((Err(LogError::refused()), (process, None)));
            }
            let met = following.next().await?;
            process.turn().await;
            let following = met.is_ok().then_some(following);
            Some((met, (process, following)))
        };
        stream::unfold((process, following), next).boxed()
    }
}
