//! Reads of one record or many: checked, read once each, answered item by item.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use database::{CatalogTable, Database, DatabaseRow};
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, stream};
use hot_store::{HotStore, HotStoreError, RecordId, Slot};
use model::{ColumnName, Content, Epoch, Row, Shard, TableRef, Value};
use tokio::time::Instant;

use super::{
    Consistency, Found, Get,
    cold::{self, ColdRecord, RECORDS_AT_ONCE},
    database_rows,
    error::ReadError,
    form::{self, Use},
    outages::Question,
};
use crate::{Core, Etag, Part, StoreError};

/// Statements of one batch that are under way at once.
const STATEMENTS_AT_ONCE: usize = 4;

/// A record that is asked for, perhaps by several items.
struct Wanted {
    table: Arc<CatalogTable>,
    consistency: Consistency,
    cold: ColdRecord,
    /// The columns that its items want; all, if none is named.
    columns: Vec<ColumnName>,
    /// Items that are not answered yet.
    items: usize,
    /// What is known of it by now.
    state: State,
}

enum State {
    Unread,
    /// The hot store holds it as its table was before.
    Earlier(Slot, Epoch),
    Read(Result<Held, ReadError>),
}

/// What is answered of a record.
#[derive(Clone)]
enum Held {
    Row { row: Row, etag: Option<Etag> },
    Nothing,
}

/// What an item asks for: which record, and what of it.
struct Item {
    wanted: usize,
    columns: Vec<ColumnName>,
}

pub(super) async fn read<H, L, D>(
    core: &Core<H, L, D>,
    gets: Vec<Get>,
    max_bytes: usize,
) -> Vec<Result<Found, ReadError>>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut wanted = Vec::new();
    let mut places = HashMap::new();
    let items: Vec<Result<Item, ReadError>> =
        gets.into_iter().map(|get| accept(core, get, &mut wanted, &mut places)).collect();
    let epochs = read_hot(core, &mut wanted, max_bytes).await;
    bring_up_to_date(core, &mut wanted).await;
    read_rest(core, &mut wanted, &epochs, max_bytes).await;
    let mut room = Room { left: max_bytes, is_untouched: true };
    items
        .into_iter()
        .map(|item| item.and_then(|item| answer(&mut wanted[item.wanted], &item.columns, &mut room)))
        .collect()
}

/// Checks what is asked, and notes the record if it is a new one.
fn accept<H, L, D>(
    core: &Core<H, L, D>,
    get: Get,
    wanted: &mut Vec<Wanted>,
    places: &mut HashMap<(Consistency, RecordId), usize>,
) -> Result<Item, ReadError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let Get { table, key, columns, consistency } = get;
    let enabled = core.directory.table(&table).ok_or(ReadError::TableNotEnabled(table))?;
    let schema = &enabled.schema;
    let invalid = |part| move |violations| ReadError::Invalid { part, violations };
    let key = schema.accept_key(&key).map_err(invalid(Part::Key))?;
    let columns = schema.accept_selection(&columns).map_err(invalid(Part::Columns))?;
    let shard = schema.shard_of(&key, core.shards);
    let record = RecordId { namespace: enabled.settings.namespace.clone(), key: key.to_bytes() };
    let place = places.entry((consistency, record.clone())).or_insert_with(|| {
        let cold = ColdRecord { shard, record, key };
        let columns = columns.clone();
        wanted.push(Wanted { table: enabled, consistency, cold, columns, items: 0, state: State::Unread });
        wanted.len() - 1
    });
    wanted[*place].items += 1;
    let all = &mut wanted[*place].columns;
    if columns.is_empty() {
        all.clear();
    } else if !all.is_empty() {
        all.extend(columns.iter().cloned());
    }
    Ok(Item { wanted: *place, columns })
}

/// Asks the hot store for all at once; the epochs of the shards that answered.
async fn read_hot<H: HotStore, L, D>(
    core: &Core<H, L, D>,
    wanted: &mut [Wanted],
    max_bytes: usize,
) -> HashMap<Shard, Epoch> {
    let mut by_shard: BTreeMap<Shard, Vec<usize>> = BTreeMap::new();
    for (at, wanted) in wanted.iter().enumerate().filter(|(_, wanted)| wanted.consistency == Consistency::Newest) {
        by_shard.entry(wanted.cold.shard).or_default().push(at);
    }
    let mut epochs = HashMap::new();
    if by_shard.is_empty() {
        return epochs;
    }
    let unreadable = ask_hot(core, wanted, &mut epochs, by_shard.into_iter().collect(), max_bytes).await;
    if !unreadable.is_empty() {
        // It may be the fault of one value, which must not be that of the others.
        let used: usize = wanted.iter().map(Wanted::bytes).sum();
        let alone = unreadable.into_iter().map(|at| (wanted[at].cold.shard, vec![at])).collect();
        ask_hot(core, wanted, &mut epochs, alone, max_bytes.saturating_sub(used)).await;
    }
    epochs
}

/// Asks the hot store for these groups; the places of those groups of several in which something can't be read.
async fn ask_hot<H: HotStore, L, D>(
    core: &Core<H, L, D>,
    wanted: &mut [Wanted],
    epochs: &mut HashMap<Shard, Epoch>,
    groups: Vec<(Shard, Vec<usize>)>,
    max_bytes: usize,
) -> Vec<usize> {
    let records = |places: &Vec<usize>| places.iter().map(|&at| wanted[at].cold.record.clone()).collect();
    let asked = groups.iter().map(|(shard, places)| (*shard, records(places))).collect();
    let answers = core.hot.read_many(asked, max_bytes).await;
    let mut unreadable = Vec::new();
    for ((shard, places), answer) in groups.into_iter().zip(answers) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(HotStoreError::Corrupt { .. }) if places.len() > 1 => {
                unreadable.extend(places);
                continue;
            }
            Err(error) => {
                let error = StoreError::from(error);
                for at in places {
                    wanted[at].state = State::Read(Err(error.clone().into()));
                }
                continue;
            }
        };
        // A shard that is opened again between this read and a fill has another epoch than the etag says: the etag
        // will not match then, which is the safe side. So is the earliest, if it was opened again in between.
        epochs.entry(shard).and_modify(|epoch| *epoch = answer.epoch.min(*epoch)).or_insert(answer.epoch);
        let mut slots = answer.slots.into_iter();
        for at in places {
            wanted[at].state = match slots.next() {
                Some(Slot::Empty | Slot::Leased) => State::Unread,
                Some(slot) if form::is_earlier(&wanted[at].table, &slot) => State::Earlier(slot, answer.epoch),
                Some(slot) => State::Read(Ok(held_in(slot, answer.epoch))),
                None => State::Read(Err(ReadError::NoRoom)),
            };
        }
    }
    unreadable
}

/// What was stored before its table was altered is answered as the table is now.
async fn bring_up_to_date<H, L, D>(core: &Core<H, L, D>, wanted: &mut [Wanted])
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let earlier: Vec<usize> = (0..wanted.len()).filter(|&at| matches!(wanted[at].state, State::Earlier(..))).collect();
    if earlier.is_empty() {
        return;
    }
    let known: &[Wanted] = wanted;
    let present = |at: usize| async move {
        let Wanted { table, cold, columns, state, .. } = &known[at];
        let State::Earlier(slot, epoch) = state else { return (at, State::Unread) };
        let wanted = Use::Read(columns);
        let present = form::present(core, table, &cold.key, slot.clone(), wanted).await;
        // Not before there was an answer: while the database is away what there is of it is better than nothing.
        if present.is_ok()
            && form::asks_each_time(table, slot, wanted)
            && core.hot.evict(cold.shard, vec![cold.record.clone()]).await.is_ok()
        {
            return (at, State::Unread);
        }
        (at, State::Read(present.map(|slot| held_in(slot, *epoch)).map_err(ReadError::from)))
    };
    let read: Vec<(usize, State)> =
        stream::iter(earlier).map(present).buffer_unordered(STATEMENTS_AT_ONCE).collect().await;
    for (at, state) in read {
        wanted[at].state = state;
    }
}

/// Asks the databases for what is left: table by table, some records by one statement, until the bytes are used up.
async fn read_rest<H, L, D>(
    core: &Core<H, L, D>,
    wanted: &mut [Wanted],
    epochs: &HashMap<Shard, Epoch>,
    max_bytes: usize,
) where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut by_table: BTreeMap<(TableRef, Consistency), Vec<usize>> = BTreeMap::new();
    for (at, wanted) in wanted.iter().enumerate().filter(|(_, wanted)| matches!(wanted.state, State::Unread)) {
        by_table.entry((wanted.table.schema.table.clone(), wanted.consistency)).or_default().push(at);
    }
    if by_table.is_empty() {
        return;
    }
    let used: usize = wanted.iter().map(Wanted::bytes).sum();
    let left = AtomicUsize::new(max_bytes.saturating_sub(used));
    let any = used > 0;
    let chunks: Vec<(Consistency, Vec<usize>)> = by_table
        .into_iter()
        .flat_map(|((_, consistency), places)| {
            places.chunks(RECORDS_AT_ONCE).map(|chunk| (consistency, chunk.to_vec())).collect::<Vec<_>>()
        })
        .collect();
    let known: &[Wanted] = wanted;
    let left = &left;
    let read = |(number, (consistency, places)): (usize, (Consistency, Vec<usize>))| async move {
        if left.load(Ordering::Relaxed) == 0 && (any || number > 0) {
            return places.into_iter().map(|at| (at, Err(ReadError::NoRoom))).collect();
        }
        let chunk: Vec<&Wanted> = places.iter().map(|&at| &known[at]).collect();
        let held = read_chunk(core, consistency, &chunk, epochs).await;
        let bytes = held.iter().flatten().map(Held::bytes).sum();
        // Of several that end at once each takes what it needs: so it may be somewhat more.
        let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(bytes)));
        places.into_iter().zip(held).collect::<Vec<_>>()
    };
    let parts: Vec<Vec<(usize, Result<Held, ReadError>)>> =
        stream::iter(chunks.into_iter().enumerate()).map(read).buffer_unordered(STATEMENTS_AT_ONCE).collect().await;
    for (at, held) in parts.into_iter().flatten() {
        wanted[at].state = State::Read(held);
    }
}

/// Reads some records of one table.
async fn read_chunk<H, L, D>(
    core: &Core<H, L, D>,
    consistency: Consistency,
    chunk: &[&Wanted],
    epochs: &HashMap<Shard, Epoch>,
) -> Vec<Result<Held, ReadError>>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let Some(table) = chunk.first().map(|first| first.table.clone()) else { return Vec::new() };
    match consistency {
        Consistency::Newest => {
            let records: Vec<ColdRecord> = chunk.iter().map(|wanted| wanted.cold.clone()).collect();
            let slots = cold::look(core, &table, &records).await;
            let held = |(slot, cold): (Result<Slot, StoreError>, &ColdRecord)| {
                let epoch = epochs.get(&cold.shard).copied().unwrap_or(Epoch::ZERO);
                Ok(held_in(slot?, epoch))
            };
            slots.into_iter().zip(&records).map(held).collect()
        }
        Consistency::Database => committed(core, &table, chunk).await,
    }
}

/// What is committed in the database, by as few readers at once as cold reads.
async fn committed<H, L, D: Database>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    chunk: &[&Wanted],
) -> Vec<Result<Held, ReadError>> {
    let all = |error: StoreError| chunk.iter().map(|_| Err(error.clone().into())).collect();
    if let Err(error) = core.outages.check(&table.schema.table, Question::Rows) {
        return all(error);
    }
    let deadline = Instant::now() + core.options.lease_ttl * 2;
    let _permit = match cold::cold_read(core, deadline, chunk.len()).await {
        Ok(permit) => permit,
        Err(error) => return all(error),
    };
    let keys: Vec<_> = chunk.iter().map(|wanted| wanted.cold.key.clone()).collect();
    let held = |row| match row {
        DatabaseRow::Present { row, .. } => Held::Row { row, etag: None },
        DatabaseRow::Deleted { .. } | DatabaseRow::Absent => Held::Nothing,
    };
    let rows = database_rows::read(core, table, &keys).await.into_iter();
    rows.map(|row| row.map(held).map_err(ReadError::from)).collect()
}

fn held_in(slot: Slot, epoch: Epoch) -> Held {
    match slot {
        Slot::Image { version, image, .. } => match image.content {
            Content::Row(row) => Held::Row { row, etag: Some(Etag { version, epoch }) },
            Content::Tombstone => Held::Nothing,
        },
        Slot::Absent | Slot::Leased | Slot::Empty => Held::Nothing,
    }
}

/// What is left for the answer. A record is counted for each item that names it, before it is copied for it.
struct Room {
    left: usize,
    is_untouched: bool,
}

impl Room {
    /// Whether so much more fits; the first one always does.
    fn take(&mut self, bytes: usize) -> bool {
        let fits = self.is_untouched || bytes <= self.left;
        if fits {
            self.left = self.left.saturating_sub(bytes);
            self.is_untouched = false;
        }
        fits
    }
}

fn answer(wanted: &mut Wanted, columns: &[ColumnName], room: &mut Room) -> Result<Found, ReadError> {
    wanted.items -= 1;
    match &mut wanted.state {
        State::Read(Ok(Held::Row { row, etag })) => {
            let is_chosen = |name: &ColumnName| columns.is_empty() || columns.contains(name);
            let bytes = row.iter().filter(|(name, _)| is_chosen(name)).map(|(name, value)| bytes_of(name, value)).sum();
            if !room.take(bytes) {
                return Err(ReadError::NoRoom);
            }
            let row = match (columns.is_empty(), wanted.items) {
                // Nobody else wants it.
                (true, 0) => std::mem::take(row),
                (true, _) => row.clone(),
                (false, _) => row.select(columns),
            };
            Ok(Found { row, etag: *etag })
        }
        State::Read(Ok(Held::Nothing)) => Err(ReadError::NotFound(wanted.table.schema.table.clone())),
        State::Read(Err(error)) => Err(error.clone()),
        State::Unread | State::Earlier(..) => Err(ReadError::NoRoom),
    }
}

impl Wanted {
    /// What it takes of the answer.
    fn bytes(&self) -> usize {
        match &self.state {
            State::Read(Ok(held)) => held.bytes(),
            State::Read(Err(_)) | State::Unread | State::Earlier(..) => 0,
        }
    }
}

impl Held {
    /// About what it takes in a message.
    fn bytes(&self) -> usize {
        let Self::Row { row, .. } = self else { return 0 };
        row.iter().map(|(name, value)| bytes_of(name, value)).sum()
    }
}

fn bytes_of(name: &ColumnName, value: &Value) -> usize {
    let value = match value {
        Value::Text(text) | Value::Json(text) | Value::Decimal(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 16,
    };
    name.as_str().len() + value + 8
}
