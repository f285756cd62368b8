//! The memory log: the contract, on one thread and tokio's paused clock, and what simulations rely on.

use std::time::Duration;

use event_log::{
    EventPublisher, EventSource, LogReader, Outgoing, PublishError,
    memory::{MemoryLog, MemoryLogOptions, MemorySource},
};
use model::Topic;
use tokio::time::Instant;

use crate::{
    cases::contract,
    harness::{
        Backend, Observed, REQUEST_WINDOW, SETTINGS, at, both_until, drained, fill, outgoing, progress, publish,
        read_all,
    },
};

struct Memory {
    log: MemoryLog,
}

impl Backend for Memory {
    type Log = MemoryLog;
    type Source = MemorySource;

    async fn start() -> Self {
        let options = MemoryLogOptions { request_window: REQUEST_WINDOW, ..MemoryLogOptions::default() };
        Self { log: MemoryLog::new(options) }
    }

    fn log(&self) -> &MemoryLog {
        &self.log
    }

    fn topic(&self, name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn join(&self) -> MemorySource {
        self.log.member("member")
    }
}

mod contract {
    use super::{Memory, contract};

    contract!(Memory, [], (start_paused = true));
}

fn orders() -> Topic {
    Topic::new("orders").unwrap()
}

async fn with_orders(options: MemoryLogOptions) -> MemoryLog {
    let log = MemoryLog::new(options);
    log.ensure_topic(&orders(), 2, SETTINGS).await.unwrap();
    log
}

#[tokio::test(start_paused = true)]
async fn the_partitions_of_a_member_that_died_go_to_others_exactly_at_its_session_s_end() {
    let timeout = Duration::from_secs(10);
    let log = with_orders(MemoryLogOptions { session_timeout: timeout, ..MemoryLogOptions::default() }).await;
    fill(&log, &orders(), 0, 0..10).await;
    let mut dead = Observed::subscribed(log.member("dead"), &[orders()]).await;
    dead.until("all records", |m| m.delivered() == 10).await;
    dead.source.note_progress(&[(at(&orders(), 0), progress(4, 1))]);
    dead.linger(Duration::from_secs(2)).await;
    // Not committed before it dies.
    dead.source.note_progress(&[(at(&orders(), 0), progress(9, 1))]);
    let died = Instant::now();
    drop(dead);

    let mut heir = Observed::subscribed(log.member("heir"), &[orders()]).await;
    heir.until("the partitions", |m| m.owned.len() == 2).await;
    assert_eq!(died.elapsed(), timeout);
    assert_eq!(heir.last_assigned[0].committed, Some(progress(4, 1)));
    heir.until("the redelivery", |m| m.delivered() == 6).await;
    assert_eq!(heir.owned[&at(&orders(), 0)][0].offset, 4);
    assert_eq!(drained(&log, &[at(&orders(), 0)]).await, [Some(progress(4, 1))]);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_stands_still_is_expelled_and_what_it_notes_counts_no_more() {
    let log = with_orders(MemoryLogOptions::default()).await;
    fill(&log, &orders(), 0, 0..10).await;
    let mut frozen = Observed::subscribed(log.member("frozen"), &[orders()]).await;
    frozen.until("all records", |m| m.delivered() == 10).await;
    let mut busy = Observed::subscribed(log.member("busy"), &[orders()]).await;
    busy.until("everything of the frozen one", |m| m.owned.len() == 2).await;
    busy.until("the redelivery", |m| m.delivered() == 10).await;
    frozen.source.note_progress(&[(at(&orders(), 0), progress(10, 1))]);
    frozen.until("the bad news", |m| m.owned.is_empty()).await;
    assert_eq!(frozen.last_lost.len(), 2);
    both_until("one each", &mut frozen, &mut busy, |f, b| f.owned.len() == 1 && b.owned.len() == 1).await;
    assert_eq!(drained(&log, &[at(&orders(), 0)]).await, [None]);
}

#[tokio::test(start_paused = true)]
async fn a_full_log_says_so_before_it_refuses_and_takes_fences() {
    let log = with_orders(MemoryLogOptions { max_log_bytes: 10_000, ..MemoryLogOptions::default() }).await;
    let text = "x".repeat(400);
    let mut taken = 0;
    while log.has_room(1, 900) {
        publish(&log, vec![outgoing(&orders(), 0, &text)]).await;
        taken += 1;
    }
    // There is room for what was on its way when that was said.
    publish(&log, vec![outgoing(&orders(), 0, &text)]).await;
    let refused = loop {
        match log.publish(vec![outgoing(&orders(), 0, &text)]).await.remove(0) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, PublishError::Refused(why) if why.contains("full")), "{refused:?}");
    assert!(taken > 5);
    let fence = Outgoing { key: Vec::new().into(), ..outgoing(&orders(), 0, &text) };
    let end = publish(&log, vec![fence]).await[0] + 1;

    let mut member = Observed::subscribed(log.member("drain"), &[orders()]).await;
    member.until("the partitions", |m| m.owned.len() == 2).await;
    member.source.note_progress(&[(at(&orders(), 0), progress(end, 1))]);
    member.source.close(Duration::from_secs(1)).await.unwrap();
    assert_eq!(log.fill().0, 0, "what is drained counts no more, though it is kept");
    assert!(log.has_room(1, 900));
    assert_eq!(log.bounds(&[at(&orders(), 0)]).await, Ok(vec![(0, end)]));
}

#[tokio::test(start_paused = true)]
async fn what_is_drained_is_dropped_when_the_window_has_passed_it_if_asked_for() {
    let log = with_orders(MemoryLogOptions { keep_drained: false, ..MemoryLogOptions::default() }).await;
    fill(&log, &orders(), 0, 0..10).await;
    let mut member = Observed::subscribed(log.member("drain"), &[orders()]).await;
    member.until("all records", |m| m.delivered() == 10).await;
    member.note_all(1);
    member.linger(Duration::from_secs(100)).await;
    assert_eq!(log.bounds(&[at(&orders(), 0)]).await, Ok(vec![(0, 10)]));
    assert_eq!(read_all(&log, &at(&orders(), 0)).await.len(), 10);
    member.linger(Duration::from_secs(30)).await;
    assert_eq!(log.bounds(&[at(&orders(), 0)]).await, Ok(vec![(10, 10)]));
}

/// The whole course of three members that come, die and return, twice: the same events at the same times.
#[tokio::test(start_paused = true)]
async fn the_same_calls_have_the_same_outcome() {
    async fn course() -> Vec<(Duration, String)> {
        let log = MemoryLog::default();
        let topics: Vec<Topic> = (0..3).map(|n| Topic::new(format!("topic-{n}")).unwrap()).collect();
        for topic in &topics {
            log.ensure_topic(topic, 8, SETTINGS).await.unwrap();
        }
        let start = Instant::now();
        let mut heard = Vec::new();
        let mut members: Vec<MemorySource> = Vec::new();
        for step in 0..60usize {
            if step % 13 == 0 {
                let mut member = log.member(&format!("member-{step}"));
                member.subscribe(&topics).await.unwrap();
                members.push(member);
            }
            if step % 20 == 19 {
                members.remove(0);
            }
            fill(&log, &topics[step % 3], (step % 8) as u16, step..step + 3).await;
            for (index, member) in members.iter_mut().enumerate() {
                while let Ok(event) = tokio::time::timeout(Duration::from_millis(700), member.next()).await {
                    heard.push((start.elapsed(), format!("{index}: {:?}", event.unwrap())));
                }
            }
        }
        heard
    }
    let first = course().await;
    assert!(first.len() > 60, "{}", first.len());
    assert_eq!(first, course().await);
}
