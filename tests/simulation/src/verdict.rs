//! Looking at the stores themselves: now and then, and at the end.

use std::{sync::Arc, time::Duration};

use database::{Applied, Batch, Change, Database as _, DatabaseError, DatabaseRow, Owner, ShardClaim};
use event_log::{LogReader as _, TopicPartition};
use history::{Action, Image, Operation, Outcome, Sample, Seen, Span};
use hot_store::{HaltedTables, HotStore as _};
use ingest_svc::read::ReadError;
use model::{Epoch, Event, EventBody, Mutation, Version};
use tokio::time::sleep;

use crate::{
    nature::lock,
    queued::Queued,
    workload::image,
    world::{Record, World},
};

/// Between two looks into the database.
const SAMPLE_EVERY: Duration = Duration::from_millis(70);
/// What was sent by processes that are dead has arrived by then.
const LAST_CALLS: Duration = Duration::from_secs(2);
/// Attempts to read a record at the end.
const READS: usize = 200;

/// Looks into the stores now and then, for ever.
pub(crate) async fn sample(world: Arc<World>) {
    let mut queued = Queued::default();
    loop {
        sleep(world.nature.up_to(SAMPLE_EVERY * 2) + Duration::from_millis(1)).await;
        for record in &world.records {
            look(&world, record, false);
        }
        queued.look(&world).await;
    }
}

fn row_of(world: &World, record: &Record) -> DatabaseRow {
    let table = &world.tables[record.table].name.table;
    match world.stores.database.records(table) {
        Ok(rows) => {
            let key = record.key.to_bytes();
            rows.into_iter().find(|(stored, _)| *stored == key).map_or(DatabaseRow::Absent, |(_, row)| row)
        }
        Err(error) => {
            world.complain(format!("the database does not answer the harness: {error}"));
            DatabaseRow::Absent
        }
    }
}

fn look(world: &World, record: &Record, drained: bool) {
    let table = &world.tables[record.table].name.table;
    let from = world.tick();
    let shard = world.stores.database.shard_state(table, record.shard);
    let horizon = shard.map_or(0, |shard| shard.horizon.get());
    let row = match row_of(world, record) {
        DatabaseRow::Present { version, row } => match image(&row) {
            Some(image) => Some(Seen { version: version.get(), epoch: None, image }),
            None => return world.complain(format!("{} has a row without its columns: {row:?}", record.name)),
        },
        DatabaseRow::Deleted { .. } | DatabaseRow::Absent => None,
    };
    let span = Span::new(from, world.tick());
    world.nature.note(|| format!("DATABASE {} {row:?} horizon {horizon}", record.name));
    lock(&world.history).samples.push(Sample { key: record.name.clone(), span, drained, horizon, row });
}

/// Whether all shards are open.
pub(crate) async fn is_open(world: &World) -> bool {
    for shard in world.shards.all() {
        if !world.stores.hot.header(shard).await.is_ok_and(|header| header.open) {
            return false;
        }
    }
    true
}

/// What is not yet as it should be, if anything.
pub(crate) async fn unhealed(world: &World) -> Option<String> {
    if world.nature.under_way() > 0 {
        return Some(format!("{} calls are under way", world.nature.under_way()));
    }
    for shard in world.shards.all() {
        match world.stores.hot.header(shard).await {
            Ok(header) if !header.open => return Some(format!("shard {shard} is closed")),
            Ok(header) if header.dirty > 0 || header.unqueued > 0 => {
                return Some(format!("shard {shard} has {} dirty, {} unqueued", header.dirty, header.unqueued));
            }
            Ok(header) if header.halt.tables != HaltedTables::default() => {
                return Some(format!("shard {shard} takes no writes: {:?}", header.halt));
            }
            Ok(_) => {}
            Err(error) => return Some(error.to_string()),
        }
    }
    let partitions = partitions(world);
    let bounds = world.stores.log.bounds(&partitions).await;
    let committed = world.stores.log.committed(&partitions).await;
    let (Ok(bounds), Ok(committed)) = (bounds, committed) else { return Some("the log does not answer".to_owned()) };
    for ((at, (_, end)), committed) in partitions.iter().zip(bounds).zip(committed) {
        let done = committed.map_or(0, |committed| committed.done.offset);
        if done < end {
            return Some(format!("{}/{} is drained up to {done} of {end}", at.topic, at.partition));
        }
    }
    None
}

fn partitions(world: &World) -> Vec<TopicPartition> {
    let of = |topic: &model::Topic| {
        let topic = topic.clone();
        world.shards.all().map(move |shard| TopicPartition { topic: topic.clone(), partition: shard.0 })
    };
    world.tables.iter().flat_map(|table| of(&table.settings.topic)).collect()
}

/// Reads everything once more, through a replica and in the database, and replays the log.
pub(crate) async fn look_at_the_end(world: &Arc<World>) {
    for (at, record) in world.records.iter().enumerate() {
        read_at_the_end(world, at, record).await;
    }
    for ingest in world.living_ingests() {
        ingest.kill();
    }
    for drain in world.living_drains() {
        drain.kill();
    }
    // What they have sent arrives all the same.
    sleep(LAST_CALLS).await;
    let before = rows(world);
    for record in &world.records {
        look(world, record, true);
    }
    parked_are_lettered(world).await;
    replay(world).await;
    let after = rows(world);
    if before != after {
        world.complain(format!("replaying the log changed the database from {before:?} to {after:?}"));
    }
}

/// Whatever is parked has a letter, and nothing that the database takes has one.
async fn parked_are_lettered(world: &World) {
    let letters = crate::letters::all(&world.stores.log, &world.tables, world.shards);
    for letter in &letters {
        if let Some(value) = letter.value
            && !world.is_poison(value)
        {
            world.complain(format!("a row that the database takes was dead-lettered: {letter:?}"));
        }
    }
    for table in &world.tables {
        for shard in world.shards.all() {
            let namespace = table.settings.namespace.clone();
            let Ok((_, parked)) = world.stores.hot.parked(shard, namespace, Version::ZERO, usize::MAX).await else {
                continue;
            };
            for record in parked {
                if !letters.iter().any(|it| it.key == record.record.key && it.version == Some(record.version)) {
                    world.complain(format!("{record:?} is parked and has no letter"));
                }
            }
        }
    }
}

fn rows(world: &World) -> Vec<DatabaseRow> {
    world.records.iter().map(|record| row_of(world, record)).collect()
}

async fn read_at_the_end(world: &World, at: usize, record: &Record) {
    let table = &world.tables[record.table].name;
    for _ in 0..READS {
        let living = world.living_ingests();
        if let Some(ingest) = living.iter().find(|ingest| ingest.is_ready()) {
            let from = world.tick();
            let outcome = match ingest.reader().get(table, &World::key_row(record), &[]).await {
                Ok(found) => image(&found.row).map(|image: Image| {
                    let epoch = found.etag.map(|etag| etag.epoch.0);
                    Outcome::Read(Some(Seen { version: found.etag.map_or(0, |etag| etag.version.get()), epoch, image }))
                }),
                Err(ReadError::NotFound(_)) => Some(Outcome::Read(None)),
                Err(_) => None,
            };
            if let Some(outcome) = outcome {
                let span = Span::new(from, world.tick());
                let key = world.records[at].name.clone();
                let read = Operation { client: u32::MAX, key, action: Action::Read, span, batch: None, outcome };
                return lock(&world.history).operations.push(read);
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
    world.complain(format!("{} can't be read at the end", record.name));
}

/// Applies every event of the log once more, in any order, as one does who replays it from the beginning.
async fn replay(world: &World) {
    let owner = Owner("replay".to_owned());
    for table in &world.tables {
        for shard in world.shards.all() {
            let partition = TopicPartition { topic: table.settings.topic.clone(), partition: shard.0 };
            let mut changes = Vec::new();
            for mutation in mutations(world, &partition).await {
                let Mutation { key, version, image, .. } = mutation;
                changes.push(Change { shard, key, version, image });
            }
            shuffle(world, &mut changes);
            let claims = [ShardClaim { table: table.name.table.clone(), shard }];
            if let Err(error) = world.stores.database.take_ownership(&claims, &owner).await {
                return world.complain(format!("a replay can't own a shard: {error}"));
            }
            for change in changes {
                let owners = vec![(shard, owner.clone())];
                let batch = Batch { schema: &table.schema, owners, changes: std::slice::from_ref(&change) };
                match world.stores.database.apply(batch).await {
                    Ok(applied) if applied == [Applied::Written] => {
                        world.complain(format!("a replay wrote {change:?}"));
                    }
                    Ok(_) => {}
                    Err(DatabaseError::Statement { code, .. }) if code == "check" => {}
                    Err(error) => return world.complain(format!("a replay was refused: {error}")),
                }
            }
        }
    }
}

fn shuffle<T>(world: &World, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, world.nature.pick(0..last as u64 + 1) as usize);
    }
}

/// The mutations of a partition that no fence has made void.
async fn mutations(world: &World, partition: &TopicPartition) -> Vec<Mutation> {
    let (low, end) = match world.stores.log.bounds(std::slice::from_ref(partition)).await {
        Ok(bounds) => bounds.first().copied().unwrap_or_default(),
        Err(_) => (0, 0),
    };
    // What is deleted up to the window may have held the fence that is in force behind it.
    let committed = world.stores.log.committed(std::slice::from_ref(partition)).await.unwrap_or_default();
    let before = committed.first().copied().flatten().filter(|_| low > 0);
    let mut in_force = before.map_or(Epoch::ZERO, |committed| committed.window.epoch);
    let mut found = Vec::new();
    let mut each = |record: event_log::LogRecord| {
        match Event::decode(record.payload) {
            Ok(Event { epoch, body: EventBody::Fence(_), .. }) => in_force = in_force.max(epoch),
            Ok(event) if event.epoch.is_void_under(in_force) => {}
            Ok(Event { body: EventBody::Mutations(mutations), .. }) => found.extend(mutations),
            Ok(Event { body: EventBody::Requests(_), .. }) => {}
            Err(error) => world.complain(format!("the log holds what can't be read: {error}")),
        }
        true
    };
    if let Err(error) = world.stores.log.read(partition, low, end, &mut each).await {
        world.complain(format!("the log does not answer the harness: {error}"));
    }
    found
}
