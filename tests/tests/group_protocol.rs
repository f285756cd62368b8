//! How drain replicas share the partitions: the protocol that they choose, changes of it while they run, and members with
//! names. On brokers of their own, since these are set up in different ways.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use event_log::{
    EventPublisher, EventSource, LogError, LogReader, LogSettings, Outgoing, Progress, SourceEvent, TopicPartition,
    kafka::{GroupProtocol, KafkaLog, KafkaOptions, KafkaSource},
};
use model::{Epoch, Topic};
use shock_absorber_tests::{eventually, servers::KafkaServer};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};

const PARTITIONS: u16 = 6;
const SESSION: Duration = Duration::from_secs(6);
/// For whatever has to happen at all.
const PATIENCE: Duration = Duration::from_secs(120);
/// No record waits longer for its member, whatever happens to the members.
const STALL: Duration = Duration::from_secs(15);

/// A topic on a broker, and what members have been delivered of it.
struct Stand {
    kafka: KafkaServer,
    log: KafkaLog,
    topic: Topic,
    delivered: Delivered,
}

type Delivered = Arc<Mutex<BTreeMap<(u16, i64), Instant>>>;

impl Stand {
    async fn start(properties: &[(&str, &str)]) -> Self {
        Self::on(KafkaServer::start_with(properties).await.unwrap()).await
    }

    async fn on(kafka: KafkaServer) -> Self {
        let log = KafkaLog::connect(options(&kafka, GroupProtocol::Auto)).await.unwrap();
        let topic = Topic::new("orders").unwrap();
        log.ensure_topic(&topic, PARTITIONS, LogSettings { allow_single_node: true }).await.unwrap();
        Self { kafka, log, topic, delivered: Delivered::default() }
    }

    fn member(&self, protocol: GroupProtocol) -> Member {
        self.member_with(options(&self.kafka, protocol))
    }

    fn member_with(&self, options: KafkaOptions) -> Member {
        Member::start(KafkaSource::join(&options).unwrap(), self.topic.clone(), self.delivered.clone())
    }

    /// The type that the broker says the group has.
    async fn group_type(&self) -> String {
        let list = self.kafka.tool("consumer.group.ConsumerGroupCommand", &["--list", "--type"]).await.unwrap();
        let line = list.lines().find(|line| line.starts_with("drain ")).unwrap_or_else(|| panic!("no group in {list}"));
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// Appends to all partitions until the change is through and each record was delivered; says how long one waited at most.
    async fn under_load<T>(&self, change: impl Future<Output = T>) -> (T, Duration) {
        let mut sent: BTreeMap<(u16, i64), Instant> = BTreeMap::new();
        let mut change = std::pin::pin!(change);
        let result = loop {
            let now = Instant::now();
            let records = (0..PARTITIONS).map(|partition| Outgoing {
                to: TopicPartition { topic: self.topic.clone(), partition },
                key: "key".into(),
                payload: "event".into(),
            });
            let offsets = self.log.publish(records.collect()).await;
            sent.extend((0..).zip(offsets).map(|(partition, offset)| ((partition, offset.unwrap()), now)));
            tokio::select! {
                result = &mut change => break result,
                () = sleep(Duration::from_millis(50)) => {}
            }
        };
        eventually("delivery of every record", PATIENCE, || {
            let all = sent.keys().all(|record| self.delivered.lock().unwrap().contains_key(record));
            async move { Ok(all.then_some(())) }
        })
        .await
        .unwrap();
        let delivered = self.delivered.lock().unwrap();
        let waited = sent.iter().map(|(record, at)| delivered[record].saturating_duration_since(*at));
        (result, waited.max().unwrap())
    }
}

fn options(kafka: &KafkaServer, protocol: GroupProtocol) -> KafkaOptions {
    KafkaOptions {
        group_protocol: protocol,
        session_timeout: SESSION,
        allow_single_node: true,
        ..KafkaOptions::new(kafka.brokers(), "drain")
    }
}

/// A member that works off all that it is delivered, until it is told to leave or the group ends it.
struct Member {
    owned: Arc<Mutex<Vec<u16>>>,
    /// How often it was assigned something.
    assignments: Arc<Mutex<usize>>,
    complaint: Arc<Mutex<Option<LogError>>>,
    leave: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), LogError>>,
}

impl Member {
    fn start(mut source: KafkaSource, topic: Topic, delivered: Delivered) -> Self {
        let (owned, assignments) = (Arc::<Mutex<Vec<u16>>>::default(), Arc::<Mutex<usize>>::default());
        let complaint = Arc::<Mutex<Option<LogError>>>::default();
        let (leave, mut told) = oneshot::channel();
        let task = tokio::spawn({
            let (owned, assignments, complaint) = (owned.clone(), assignments.clone(), complaint.clone());
            async move {
                source.subscribe(std::slice::from_ref(&topic)).await?;
                loop {
                    let event = tokio::select! {
                        _ = &mut told => break,
                        event = source.next() => event,
                    };
                    match event {
                        Ok(SourceEvent::Records(records)) => {
                            for record in records {
                                let at = (record.from.partition, record.offset);
                                delivered.lock().unwrap().entry(at).or_insert_with(Instant::now);
                                let done = Progress { offset: record.offset + 1, epoch: Epoch(1) };
                                source.note_progress(&[(record.from, done)]);
                            }
                        }
                        Ok(SourceEvent::Assigned(assigned)) => {
                            owned.lock().unwrap().extend(assigned.iter().map(|a| a.partition.partition));
                            *assignments.lock().unwrap() += usize::from(!assigned.is_empty());
                        }
                        Ok(SourceEvent::Revoked(gone) | SourceEvent::Lost(gone)) => {
                            owned.lock().unwrap().retain(|p| !gone.iter().any(|gone| gone.partition == *p));
                        }
                        Ok(SourceEvent::Missing(..)) => panic!("records are missing"),
                        Err(error @ LogError::Unavailable(_)) => *complaint.lock().unwrap() = Some(error),
                        Err(error) => return Err(error),
                    }
                }
                source.close(Duration::from_secs(60)).await
            }
        });
        Self { owned, assignments, complaint, leave: Some(leave), task }
    }

    fn owns(&self) -> usize {
        self.owned.lock().unwrap().len()
    }

    async fn until_it_owns(&self, what: &str, mut wanted: impl FnMut(usize) -> bool) {
        let waited = eventually(what, PATIENCE, || {
            let owned = self.owns();
            assert!(!self.task.is_finished(), "the member has ended");
            let there = wanted(owned).then_some(());
            async move { Ok(there) }
        });
        if let Err(error) = waited.await {
            panic!("{error}: it owns {:?} and complains of {:?}", self.owned, self.complaint);
        }
    }

    async fn leave(mut self) {
        self.leave.take().unwrap().send(()).unwrap();
        (&mut self.task).await.unwrap().unwrap();
    }

    /// Waits until the group has ended it, and says why.
    async fn ended(mut self) -> String {
        let ended = tokio::time::timeout(PATIENCE, &mut self.task).await.expect("it goes on");
        ended.unwrap().expect_err("it ended in peace").to_string()
    }
}

const ALL: usize = PARTITIONS as usize;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn brokers_that_offer_the_new_protocol_are_spoken_to_in_it() {
    let stand = Stand::start(&[]).await;
    let member = stand.member(GroupProtocol::Auto);
    member.until_it_owns("share of everything", |n| n == ALL).await;
    assert_eq!(stand.group_type().await, "Consumer");
    let ((), _) = stand.under_load(async {}).await;
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn brokers_that_do_not_offer_it_are_spoken_to_in_the_classic_one() {
    let stand = Stand::start(&[("group.coordinator.rebalance.protocols", "classic")]).await;
    let member = stand.member(GroupProtocol::Auto);
    member.until_it_owns("share of everything", |n| n == ALL).await;
    assert_eq!(stand.group_type().await, "Classic");
    let ((), _) = stand.under_load(async {}).await;
    let told = stand.member(GroupProtocol::Consumer).ended().await;
    assert!(told.contains("kafka.group_protocol") && told.contains("4.0"), "{told}");
    member.leave().await;
}

/// The settings offer it, and a feature that is finalised for the whole cluster does not: brokers that were upgraded one by
/// one are so until an operator says that all of them were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn brokers_that_refuse_what_their_settings_offer_are_spoken_to_in_the_classic_one() {
    let kafka = KafkaServer::start().await.unwrap();
    kafka.tool("FeatureCommand", &["downgrade", "--feature", "group.version=0"]).await.unwrap();
    let stand = Stand::on(kafka).await;
    let member = stand.member(GroupProtocol::Auto);
    member.until_it_owns("share of everything", |n| n == ALL).await;
    assert_eq!(stand.group_type().await, "Classic");
    let ((), _) = stand.under_load(async {}).await;
    member.leave().await;
}

async fn replaced_one_by_one(stand: &Stand, from: GroupProtocol, to: GroupProtocol) -> Duration {
    let old = [stand.member(from), stand.member(from)];
    for member in &old {
        member.until_it_owns("share", |n| n == ALL / 2).await;
    }
    let change = async {
        let mut new = Vec::new();
        for member in old {
            member.leave().await;
            let next = stand.member(to);
            // How members of two protocols share is the broker's affair.
            next.until_it_owns("share", |n| n > 0).await;
            new.push(next);
        }
        new
    };
    let (new, stall) = stand.under_load(change).await;
    for member in new {
        member.leave().await;
    }
    stall
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn a_fleet_goes_over_to_the_new_protocol_and_back_replica_by_replica() {
    let stand = Stand::start(&[]).await;
    for (from, to) in [(GroupProtocol::Classic, GroupProtocol::Auto), (GroupProtocol::Consumer, GroupProtocol::Classic)]
    {
        let stall = replaced_one_by_one(&stand, from, to).await;
        eprintln!("from {from:?} to {to:?}: a record waited {stall:?} at most");
        assert!(stall <= STALL, "from {from:?} to {to:?}: a record waited {stall:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn where_a_group_may_not_go_over_while_it_has_members_newcomers_join_it_as_it_is() {
    let stand = Stand::start(&[("group.consumer.migration.policy", "disabled")]).await;
    let stall = replaced_one_by_one(&stand, GroupProtocol::Classic, GroupProtocol::Auto).await;
    assert!(stall <= STALL, "a record waited {stall:?}");
    // Nobody is left, so nobody is in the way.
    let member = stand.member(GroupProtocol::Auto);
    member.until_it_owns("share of everything", |n| n == ALL).await;
    assert_eq!(stand.group_type().await, "Consumer");
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn who_insists_on_the_new_protocol_there_waits_until_the_others_have_left() {
    let stand = Stand::start(&[("group.consumer.migration.policy", "disabled")]).await;
    let old = stand.member(GroupProtocol::Classic);
    old.until_it_owns("share of everything", |n| n == ALL).await;
    let new = stand.member(GroupProtocol::Consumer);
    let ((), stall) = stand.under_load(sleep(Duration::from_secs(3))).await;
    assert!(stall <= STALL, "a record waited {stall:?}");
    assert_eq!((old.owns(), new.owns()), (ALL, 0));
    let ((), stall) = stand
        .under_load(async {
            old.leave().await;
            new.until_it_owns("share of everything", |n| n == ALL).await;
        })
        .await;
    assert!(stall <= STALL, "a record waited {stall:?}");
    new.leave().await;
}

fn named(stand: &Stand, protocol: GroupProtocol) -> KafkaOptions {
    KafkaOptions { group_instance_id: Some("drain-0".into()), ..options(&stand.kafka, protocol) }
}

/// A member with a name leaves and comes back: its partitions wait for it, and nobody else's move.
async fn a_restart_moves_nothing(protocol: GroupProtocol) {
    let stand = Stand::start(&[]).await;
    let other = stand
        .member_with(KafkaOptions { group_instance_id: Some("drain-1".into()), ..options(&stand.kafka, protocol) });
    let member = stand.member_with(named(&stand, protocol));
    for member in [&member, &other] {
        member.until_it_owns("share", |n| n == ALL / 2).await;
    }
    let (before, assignments) = (member.owned.lock().unwrap().clone(), *other.assignments.lock().unwrap());
    let (again, stall) = stand
        .under_load(async {
            member.leave().await;
            let again = stand.member_with(named(&stand, protocol));
            again.until_it_owns("share", |n| n == ALL / 2).await;
            again
        })
        .await;
    let sorted = |mut partitions: Vec<u16>| {
        partitions.sort_unstable();
        partitions
    };
    assert_eq!(sorted(again.owned.lock().unwrap().clone()), sorted(before));
    assert_eq!(*other.assignments.lock().unwrap(), assignments, "nobody else was assigned anything");
    assert!(stall < SESSION, "it did not wait for the session's end: {stall:?}");
    again.leave().await;
    other.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn the_restart_of_a_named_member_moves_no_partition_in_the_classic_protocol() {
    a_restart_moves_nothing(GroupProtocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn the_restart_of_a_named_member_moves_no_partition_in_the_new_protocol() {
    a_restart_moves_nothing(GroupProtocol::Consumer).await;
}

/// The newcomer gets in; the first one is told, and commits nothing any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn in_the_classic_protocol_a_second_member_of_a_name_takes_the_place_of_the_first() {
    let stand = Stand::start(&[]).await;
    let first = stand.member_with(named(&stand, GroupProtocol::Classic));
    first.until_it_owns("share of everything", |n| n == ALL).await;
    let second = stand.member_with(named(&stand, GroupProtocol::Classic));
    second.until_it_owns("share of everything", |n| n == ALL).await;
    let told = first.ended().await;
    assert!(told.contains("`drain-0`") && told.contains("kafka.group_instance_id"), "{told}");
    let ((), stall) = stand.under_load(async {}).await;
    assert!(stall <= STALL, "a record waited {stall:?}");
    second.leave().await;
}

/// The newcomer waits, and tells why; it is a replica's successor as often as its double.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn in_the_new_protocol_a_second_member_of_a_name_waits_for_the_first() {
    let stand = Stand::start(&[]).await;
    let first = stand.member_with(named(&stand, GroupProtocol::Consumer));
    first.until_it_owns("share of everything", |n| n == ALL).await;
    let second = stand.member_with(named(&stand, GroupProtocol::Consumer));
    let told = eventually("complaint", PATIENCE, || {
        let complaint = second.complaint.lock().unwrap().as_ref().map(ToString::to_string);
        async move { Ok(complaint) }
    })
    .await
    .unwrap();
    assert!(told.contains("`drain-0`") && told.contains("kafka.group_instance_id"), "{told}");
    let ((), stall) = stand.under_load(async {}).await;
    assert!(stall <= STALL, "a record waited {stall:?}");
    let ((), stall) = stand
        .under_load(async {
            first.leave().await;
            second.until_it_owns("share of everything", |n| n == ALL).await;
        })
        .await;
    assert!(stall <= STALL, "a record waited {stall:?}");
    second.leave().await;
}

/// What a member that was fenced has done since is not committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn a_fenced_member_commits_nothing() {
    let stand = Stand::start(&[]).await;
    let all = (0..PARTITIONS).map(|partition| TopicPartition { topic: stand.topic.clone(), partition });
    let all: Vec<_> = all.collect();
    let mut first = KafkaSource::join(&named(&stand, GroupProtocol::Classic)).unwrap();
    first.subscribe(std::slice::from_ref(&stand.topic)).await.unwrap();
    while !matches!(first.next().await, Ok(SourceEvent::Assigned(assigned)) if assigned.len() == ALL) {}
    let second = stand.member_with(named(&stand, GroupProtocol::Classic));
    second.until_it_owns("share of everything", |n| n == ALL).await;
    // In flight until now.
    let done = Progress { offset: 0, epoch: Epoch(7) };
    first.note_progress(&all.iter().map(|partition| (partition.clone(), done)).collect::<Vec<_>>());
    let closed = first.close(Duration::from_secs(5)).await;
    assert!(closed.is_err(), "it was told that its work is committed");
    let committed = stand.log.committed(&all).await.unwrap();
    assert!(committed.iter().flatten().all(|committed| committed.done.epoch != Epoch(7)), "{committed:?}");
    second.leave().await;
}
