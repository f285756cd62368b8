//! Dead letters as operators meet them.

use event_log::{EventPublisher as _, LogReader as _, LogRecord, Outgoing, TopicPartition};
use hot_store::{HotStore as _, RecordId, Stamp};
use jiff::Timestamp;
use model::{
    DatabaseName, DeadLetter, DeadLetterBody, DeadLetterCause as Cause, DeadLetterRecord, Event, EventBody, KeyBytes,
    Shard, TableName, Version,
};
use shock_absorber_client::{
    Client, ClientError, Code, DeadLetter as Listed, DeadLetterCause, DeadLetterFilter, DeadLetterName,
    DeadLetterOutcome, DeadLetterState, Reason, TableRef,
};

use tokio::time::timeout;

use crate::world::{LONG, World, id, payment};

fn payments() -> model::TableRef {
    model::TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("payments").unwrap() }
}

/// Does with all that was put so far what the drain does when the database refuses it for good.
async fn refuse_all(world: &World) {
    let core = &world.core;
    let table = core.directory.table(&payments()).unwrap();
    for shard in core.shards.all() {
        let from = TopicPartition { topic: table.settings.topic.clone(), partition: shard.0 };
        let end = core.log.bounds(std::slice::from_ref(&from)).await.unwrap()[0].1;
        let mut records = Vec::new();
        let mut each = |record: LogRecord| {
            records.push(record);
            true
        };
        core.log.read(&from, 0, end, &mut each).await.unwrap();
        for record in records {
            let EventBody::Mutations(mut mutations) = Event::decode(record.payload.clone()).unwrap().body else {
                continue;
            };
            let mutation = mutations.remove(0);
            let key = mutation.key.to_bytes();
            write_letter(world, &record, key.clone(), Some(mutation.version)).await;
            let record = RecordId { namespace: table.settings.namespace.clone(), key };
            core.hot.park(shard, vec![Stamp { record, version: mutation.version }]).await.unwrap();
        }
    }
}

async fn write_letter(world: &World, about: &LogRecord, key: KeyBytes, version: Option<Version>) {
    let letter = DeadLetter {
        topic: about.from.topic.clone(),
        offset: about.offset,
        key: key.clone(),
        payload: about.payload.clone(),
        version,
        cause: if version.is_some() { Cause::Permanent } else { Cause::Undecodable },
        code: "19".into(),
        message: "CHECK constraint failed".into(),
        attempts: 2,
        first_refused_at: Timestamp::UNIX_EPOCH,
        dead_lettered_at: Timestamp::now(),
        replica: "drain".into(),
        is_cut: false,
    };
    let shard = Shard(about.from.partition);
    let payload = DeadLetterRecord { table: payments(), shard, body: DeadLetterBody::Letter(letter) }.encode();
    let to = TopicPartition { topic: about.from.topic.dead_letters().unwrap(), partition: shard.0 };
    let written = world.core.log.publish(vec![Outgoing { to, key: key.as_bytes().clone(), payload }]).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
}

async fn list(client: &Client, filter: DeadLetterFilter) -> Result<Vec<Listed>, ClientError> {
    let mut pages = client.list_dead_letters(&filter).await?;
    let mut all = Vec::new();
    while let Some(page) = pages.next().await? {
        all.extend(page);
    }
    Ok(all)
}

#[tokio::test]
async fn dead_letters_are_listed_shown_replayed_and_purged() {
    let world = World::new().await;
    let client = world.client();
    let unresolved = || list(&client, DeadLetterFilter::default());
    assert_eq!(unresolved().await.unwrap(), []);
    for n in 0..20 {
        client.put("payments", payment(&format!("p{n}"), n)).await.unwrap();
    }
    refuse_all(&world).await;
    let letters = unresolved().await.unwrap();
    assert_eq!(letters.len(), 20);
    let letter = &letters[0];
    assert_eq!((letter.cause, letter.state), (DeadLetterCause::Permanent, DeadLetterState::Unresolved));
    assert_eq!((letter.code.as_str(), letter.attempts, letter.replica.as_str()), ("19", 2, "drain"));

    let shown = client.get_dead_letter(&letter.name).await.unwrap();
    let record = shown.record.unwrap();
    let amount = client.get("payments", record.key.clone()).await.unwrap().row.get("amount").cloned();
    assert_eq!((&shown.letter, record.row.unwrap().get("amount")), (letter, amount.as_ref()));

    let names: Vec<DeadLetterName> = letters.into_iter().map(|letter| letter.name).collect();
    let replayed = client.replay_dead_letters(&names[..10]).await.unwrap();
    assert!(replayed.iter().all(|outcome| matches!(outcome, DeadLetterOutcome::Replayed(_))), "{replayed:?}");
    let again = client.replay_dead_letters(&names[..1]).await.unwrap();
    assert!(matches!(again[..], [DeadLetterOutcome::Settled(DeadLetterState::Superseded)]), "{again:?}");
    let purged = client.purge_dead_letters(&names[10..]).await.unwrap();
    assert!(purged.iter().all(|outcome| matches!(outcome, DeadLetterOutcome::Purged)), "{purged:?}");
    assert_eq!(unresolved().await.unwrap(), []);
    let all = list(&client, DeadLetterFilter { all_states: true, ..DeadLetterFilter::default() }).await.unwrap();
    let in_state = |state| all.iter().filter(|letter| letter.state == state).count();
    assert_eq!((in_state(DeadLetterState::Superseded), in_state(DeadLetterState::Purged)), (10, 10));
    let purged = client.get_dead_letter(&names[19]).await.unwrap();
    // The database has none of them.
    let gone = client.get("payments", purged.record.unwrap().key).await.unwrap_err();
    assert!(gone.is(Reason::NotFound), "{gone}");
}

#[tokio::test]
async fn letters_are_filtered_and_what_can_t_be_read_is_shown_as_bytes() {
    let world = World::new().await;
    let client = world.client();
    client.put("payments", payment("p", 1)).await.unwrap();
    refuse_all(&world).await;
    let topic = world.core.directory.table(&payments()).unwrap().settings.topic.clone();
    let strange = LogRecord {
        from: TopicPartition { topic, partition: 2 },
        offset: 77,
        key: b"k".to_vec().into(),
        payload: b"no event".to_vec().into(),
    };
    write_letter(&world, &strange, KeyBytes::from_stored(strange.key.clone()), None).await;
    let undecodable = DeadLetterFilter {
        table: Some("payments".into()),
        causes: vec![DeadLetterCause::Undecodable],
        since: Some(Timestamp::UNIX_EPOCH),
        ..DeadLetterFilter::default()
    };
    let found = list(&client, undecodable).await.unwrap();
    assert_eq!(found.iter().map(|letter| (letter.offset, letter.version)).collect::<Vec<_>>(), [(77, None)]);
    let name = found[0].name.clone();
    let shown = client.get_dead_letter(&name).await.unwrap();
    assert_eq!((shown.record, shown.event_key, shown.event_payload), (None, b"k".to_vec(), b"no event".to_vec()));
    let failed = client.replay_dead_letters(&[name]).await.unwrap();
    let [DeadLetterOutcome::Failed(error)] = &failed[..] else { panic!("{failed:?}") };
    assert!(error.is(Reason::DeadLetterUnreadable), "{error}");
    let before = DeadLetterFilter { until: Some(Timestamp::UNIX_EPOCH), ..DeadLetterFilter::default() };
    assert_eq!(list(&client, before).await.unwrap(), []);
}

#[tokio::test]
async fn what_does_not_exist_is_told_with_its_field() {
    let world = World::with(&["ingest.max_batch_items=2"]).await;
    let client = world.client();
    let name = |table: &str, id: &str| DeadLetterName { table: TableRef::from(table), id: id.into() };
    let unknown = client.get_dead_letter(&name("payments", "1-99")).await.unwrap_err();
    assert!(unknown.is(Reason::UnknownDeadLetter), "{unknown}");
    let never = DeadLetterFilter { table: Some("orders".into()), ..DeadLetterFilter::default() };
    let never = list(&client, never).await.unwrap_err();
    assert!(never.is(Reason::TableNotEnabled), "{never}");
    let wrong = client.purge_dead_letters(&[name("payments", "1-0"), name("payments", "x")]).await.unwrap_err();
    assert_eq!(wrong.server().unwrap().fields[0].field, "names[1].id", "{wrong}");
    let many = vec![name("payments", "1-0"); 3];
    assert!(client.replay_dead_letters(&many).await.unwrap_err().is(Reason::BatchTooLarge));
    let outcomes = client.purge_dead_letters(&many[..2]).await.unwrap();
    for outcome in outcomes {
        assert!(matches!(&outcome, DeadLetterOutcome::Failed(error) if error.is(Reason::UnknownDeadLetter)));
    }
    assert!(client.get("payments", id("p")).await.unwrap_err().is(Reason::NotFound));
}

#[tokio::test]
async fn who_waits_for_what_was_refused_is_told() {
    let world = World::new().await;
    let client = world.client();
    let token = client.put("payments", payment("p", 1)).await.unwrap().token;
    refuse_all(&world).await;
    let dead = client.wait_applied(&[token], LONG).await.unwrap_err();
    assert_eq!((dead.reason(), dead.code()), (Some("DEAD_LETTERED"), Code::FailedPrecondition), "{dead}");
}

#[tokio::test]
async fn beside_too_many_refused_records_others_are_refused_until_an_operator_has_looked() {
    let world = World::with(&["tables.defaults.max_parked_records=1"]).await;
    let client = world.client();
    client.put("payments", payment("p", 1)).await.unwrap();
    refuse_all(&world).await;
    let full = timeout(LONG, async {
        loop {
            if let Err(error) = client.put("payments", payment("q", 1)).await {
                return error;
            }
        }
    });
    let full = full.await.unwrap();
    assert_eq!((full.reason(), full.code()), (Some("PARKED_FULL"), Code::ResourceExhausted), "{full}");
    assert!(full.is_refusal() && full.retry_after().is_some());
    client.put("payments", payment("p", 2)).await.unwrap();
}
