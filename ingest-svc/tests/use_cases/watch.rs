//! Watches: what is told, in which order, what never is, and where one goes on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use event_log::TopicPartition;
use hot_store::memory::Survives;
use ingest_svc::{
    IngestOptions, StoreError, accept,
    watch::{Change, Told, WatchError, WatchRequest, WatchToken, Watcher},
};
use model::{Operation, Row, Shard, Value, Version};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    db::{BentDatabase, payment_columns},
    log::{BentLog, Fate},
    store::BentStore,
    world::*,
};

type Watchers = Watcher<BentStore, BentLog, BentDatabase>;

/// Nothing takes so long. The clock is paused, so waiting for it costs nothing.
const LONG: Duration = Duration::from_secs(3600);

fn all() -> WatchRequest {
    let (keys, columns) = (Vec::new(), Vec::new());
    WatchRequest { table: table("payments"), keys, columns, from: None, max_bytes: 64 << 10 }
}

fn from(token: &WatchToken) -> WatchRequest {
    WatchRequest { from: Some(token.clone()), ..all() }
}

fn of(ids: &[&str]) -> WatchRequest {
    WatchRequest { keys: ids.iter().map(|id| key_row(id)).collect(), ..all() }
}

struct Watch {
    told: mpsc::Receiver<Told>,
    ended: JoinHandle<WatchError>,
    token: Option<WatchToken>,
    live: bool,
}

impl Watch {
    fn begin(watchers: &Watchers, request: WatchRequest) -> Self {
        let (tell, told) = mpsc::channel(1);
        let watchers = watchers.clone();
        let stopping = CancellationToken::new();
        let ended = tokio::spawn(async move { watchers.watch(&request, &tell, &stopping).await });
        Self { told, ended, token: None, live: false }
    }

    /// One that is live from its first message on, which has no changes.
    async fn live(watchers: &Watchers, request: WatchRequest) -> Self {
        let mut watch = Self::begin(watchers, request);
        let told = watch.next().await;
        assert!(told.is_live && told.changes.is_empty(), "{told:?}");
        watch
    }

    async fn next(&mut self) -> Told {
        match timeout(LONG, self.told.recv()).await.expect("nothing is told") {
            Some(told) => {
                assert!(told.is_live || !self.live, "it was live before");
                (self.token, self.live) = (Some(told.token.clone()), told.is_live);
                told
            }
            None => panic!("it has ended: {:?}", (&mut self.ended).await),
        }
    }

    /// So many changes.
    async fn changes(&mut self, count: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < count {
            changes.extend(self.next().await.changes);
        }
        assert_eq!(changes.len(), count, "{changes:?}");
        changes
    }

    /// Amounts by id, `None` for a delete, in the order in which they were told.
    async fn amounts(&mut self, count: usize) -> Vec<(String, Option<i64>)> {
        self.changes(count).await.iter().map(amount).collect()
    }

    /// Nothing but that it goes on.
    async fn nothing(&mut self) {
        for _ in 0..3 {
            let told = self.next().await;
            assert_eq!(told.changes, []);
        }
    }

    fn token(&self) -> WatchToken {
        self.token.clone().unwrap()
    }

    async fn error(mut self) -> WatchError {
        while timeout(LONG, self.told.recv()).await.expect("it goes on").is_some() {}
        self.ended.await.unwrap()
    }
}

fn id(key: &Row) -> String {
    match key.get("id") {
        Some(Value::Text(id)) => id.clone(),
        other => panic!("{other:?} is no id"),
    }
}

fn amount(change: &Change) -> (String, Option<i64>) {
    let amount = change.row.as_ref().map(|row| match row.get("amount") {
        Some(Value::Int64(amount)) => *amount,
        other => panic!("{other:?} is no amount"),
    });
    (id(&change.key), amount)
}

fn told(changes: &[(&str, Option<i64>)]) -> Vec<(String, Option<i64>)> {
    changes.iter().map(|(id, amount)| ((*id).to_owned(), *amount)).collect()
}

fn watchers(world: &World) -> Watchers {
    Watcher::new(world.core.clone())
}

async fn refusal(watchers: &Watchers, request: WatchRequest) -> WatchError {
    Watch::begin(watchers, request).error().await
}

#[tokio::test(start_paused = true)]
async fn each_write_is_told_with_what_it_did_and_the_row_after_it() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    let mut watch = Watch::live(&watchers(&world), all()).await;
    let etags = [
        etag(world.write(put("a", 2)).await),
        etag(world.write(update("a", &[("status", Value::Text("paid".into()))])).await),
        etag(world.write(delete("a")).await),
        etag(world.write(create("a", 3)).await),
    ];
    let changes = watch.changes(4).await;
    let operations: Vec<_> = changes.iter().map(|change| change.operation).collect();
    assert_eq!(operations, [Operation::Put, Operation::Update, Operation::Delete, Operation::Create]);
    let paid = full_payment("a", 2).merged_with(row(&[("status", Value::Text("paid".into()))]));
    let rows: Vec<_> = changes.iter().map(|change| change.row.clone()).collect();
    assert_eq!(rows, [Some(full_payment("a", 2)), Some(paid), None, Some(full_payment("a", 3))]);
    assert!(changes.iter().all(|change| change.key == key_row("a")));
    assert!(changes.is_sorted_by(|a, b| a.version < b.version));
    assert_eq!(changes.iter().map(|change| change.etag).collect::<Vec<_>>(), etags);
    assert!(changes.iter().all(|change| change.etag.version == change.version));
    let micros = |change: &Change| u64::try_from(change.written_at.as_microsecond()).unwrap();
    assert!(changes.iter().all(|change| micros(change) == change.version.get()));
}

#[tokio::test(start_paused = true)]
async fn only_the_keys_and_columns_that_are_named_are_told() {
    let world = World::new().await;
    let watchers = watchers(&world);
    let mut watch = Watch::live(&watchers, of(&["a", "b"])).await;
    let columns = vec!["status".to_owned(), "id".to_owned()];
    let mut narrow = Watch::live(&watchers, WatchRequest { columns, ..all() }).await;
    for id in ["a", "x", "b", "y", "z"] {
        world.write(put(id, 1)).await.unwrap();
    }
    let mut amounts = watch.amounts(2).await;
    amounts.sort();
    assert_eq!(amounts, told(&[("a", Some(1)), ("b", Some(1))]));
    watch.nothing().await;
    let rows: Vec<_> = narrow.changes(5).await.into_iter().map(|change| change.row.unwrap()).collect();
    assert!(rows.iter().all(|row| row.len() == 2 && row.get("status") == Some(&Value::Text("new".into()))));

    let wrong = refusal(&watchers, WatchRequest { columns: vec!["nope".into()], ..all() }).await;
    assert!(matches!(wrong, WatchError::Invalid { .. }), "{wrong}");
    let keys = vec![key_row("a"), row(&[("amount", Value::Int64(1))])];
    let wrong = refusal(&watchers, WatchRequest { keys, ..all() }).await;
    assert!(matches!(wrong, WatchError::InvalidKey { at: 1, .. }), "{wrong}");
    let unknown = refusal(&watchers, WatchRequest { table: table("orders"), ..all() }).await;
    assert_eq!(unknown, WatchError::TableNotEnabled(table("orders")));
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_behind_its_token_also_at_another_replica() {
    let world = World::new().await;
    let here = watchers(&world);
    let mut first = Watch::live(&here, all()).await;
    let ids: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
    for id in &ids[..4] {
        world.write(put(id, 1)).await.unwrap();
    }
    first.changes(4).await;
    let token = first.token();
    drop(first);
    for id in &ids[4..] {
        world.write(put(id, 2)).await.unwrap();
    }
    let other = replica(&world, 4);
    other.directory.refresh(false).await.unwrap();
    let there = Watcher::new(other);
    for watchers in [&here, &there] {
        let mut watch = Watch::begin(watchers, from(&token));
        let begun = watch.next().await;
        assert_eq!((begun.is_live, begun.changes.len(), &begun.token), (false, 0, &token), "at once, where it stands");
        let mut seen = BTreeMap::new();
        while !watch.live {
            for (id, amount) in watch.next().await.changes.iter().map(amount) {
                assert_eq!(seen.insert(id, amount), None, "twice");
            }
        }
        assert_eq!(seen, ids[4..].iter().map(|id| (id.clone(), Some(2))).collect());
        drop(watch.told);
        watch.ended.await.unwrap();
    }
    // One key of a token of the whole table, by its text.
    let request = WatchRequest { from: Some(token.to_string().parse().unwrap()), ..of(&["k7"]) };
    let mut one = Watch::begin(&here, request);
    one.next().await;
    assert_eq!(one.amounts(1).await, told(&[("k7", Some(2))]));
    assert!(one.live);
    world.write(put("k7", 3)).await.unwrap();
    assert_eq!(one.amounts(1).await, told(&[("k7", Some(3))]));
}

#[tokio::test(start_paused = true)]
async fn what_a_fence_made_void_is_never_told() {
    let world = World::new().await;
    let watchers = watchers(&world);
    let mut watch = Watch::live(&watchers, all()).await;
    let begun = watch.token();
    world.write(put("a", 1)).await.unwrap();
    assert_eq!(watch.amounts(1).await, told(&[("a", Some(1))]));
    let before = watch.token();
    world.log.set_fate(Fate::Delay);
    world.write(put("a", 2)).await.unwrap_err();
    world.log.set_fate(Fate::Append);
    // The store loses it, and the log gets it behind the fence.
    world.restart(Survives::Nothing).await;
    let mut after = Watch::live(&watchers, all()).await;
    world.log.land();
    assert_eq!(world.logged("a").len(), 2);
    world.write(put("a", 3)).await.unwrap();
    assert_eq!(world.amount("a").await, Some(3));
    for watch in [&mut watch, &mut after] {
        assert_eq!(watch.amounts(1).await, told(&[("a", Some(3))]));
        watch.nothing().await;
    }
    let mut resumed = Watch::begin(&watchers, from(&before));
    assert_eq!(resumed.amounts(1).await, told(&[("a", Some(3))]));
    let mut from_the_start = Watch::begin(&watchers, from(&begun));
    assert_eq!(from_the_start.amounts(2).await, told(&[("a", Some(1)), ("a", Some(3))]));
    let token = from_the_start.token();
    let mut later = Watch::begin(&watchers, from(&token));
    later.nothing().await;
}

/// An opening between the question for the epochs and the one for the log's ends: what is void in the new epoch must not
/// be told by a watch that took the old one for the one in force.
#[tokio::test(start_paused = true)]
async fn a_watch_that_begins_in_the_middle_of_an_opening_knows_what_is_void() {
    let world = Arc::new(World::new().await);
    // Its shard's epoch is asked for first.
    let id = (0..).map(|n| format!("k{n}")).find(|id| world.shard(id) == Shard(0)).unwrap();
    world.log.set_fate(Fate::Delay);
    world.write(put(&id, 2)).await.unwrap_err();
    world.log.set_fate(Fate::Append);
    world.store.before_header(Shard(3), {
        let world = world.clone();
        async move { world.restart(Survives::Nothing).await }
    });
    let mut watch = Watch::live(&watchers(&world), all()).await;
    world.log.land();
    world.write(put("b", 1)).await.unwrap();
    assert_eq!(watch.amounts(1).await, told(&[("b", Some(1))]));
    watch.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_late_into_the_log_is_left_out_and_who_begins_in_between_is_told_by_its_version() {
    let world = World::new().await;
    let watchers = watchers(&world);
    let mut watch = Watch::live(&watchers, all()).await;
    world.log.set_fate(Fate::Delay);
    world.write(put("a", 1)).await.unwrap_err();
    world.log.set_fate(Fate::Append);
    world.write(put("a", 2)).await.unwrap();
    assert_eq!(watch.amounts(1).await, told(&[("a", Some(2))]));
    let mut late = Watch::live(&watchers, all()).await;
    let read = world.get("a").await.unwrap();
    world.log.land();
    world.log.append_again(&world.partition("a"));
    world.write(put("a", 3)).await.unwrap();
    assert_eq!(watch.amounts(1).await, told(&[("a", Some(3))]), "neither older ones nor those that were told");
    watch.nothing().await;
    let changes = late.changes(3).await;
    assert_eq!(changes.iter().map(amount).collect::<Vec<_>>(), told(&[("a", Some(1)), ("a", Some(2)), ("a", Some(3))]));
    // By version it is right all the same.
    let mut known: (Version, Row) = (read.etag.unwrap().version, read.row);
    for change in changes {
        if change.version > known.0 {
            known = (change.version, change.row.unwrap());
        }
    }
    assert_eq!(known.1, full_payment("a", 3));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_something_else_is_refused_and_one_that_the_log_has_outlived_says_so() {
    let world = World::new().await;
    world.db.make_table("orders", Some(payment_columns()));
    world.tables.enable(&table("orders")).await.unwrap();
    let watchers = watchers(&world);
    for n in 0..40 {
        world.write(put(&format!("k{n}"), 1)).await.unwrap();
    }
    let mut watch = Watch::live(&watchers, all()).await;
    for n in 0..40 {
        world.write(put(&format!("k{n}"), 2)).await.unwrap();
    }
    let stale = watch.token();
    watch.changes(40).await;
    let newest = watch.token();
    let other = refusal(&watchers, WatchRequest { table: table("orders"), ..from(&newest) }).await;
    assert!(matches!(other, WatchError::OtherToken(_)), "{other}");
    let (a, b) =
        (world.partition("k0"), (1..).map(|n| format!("k{n}")).find(|id| world.partition(id) != world.partition("k0")));
    let of_one = Watch::live(&watchers, of(&["k0"])).await.token();
    let other = refusal(&watchers, WatchRequest { from: Some(of_one), ..of(&[&b.unwrap()]) }).await;
    assert!(matches!(other, WatchError::OtherToken(_)), "{other}");

    let end = world.log.events(&a).last().unwrap().0 + 1;
    world.log.trim(&a, end);
    let expired = refusal(&watchers, from(&stale)).await;
    assert!(matches!(expired, WatchError::Expired(_)), "{expired}");
    // At the very end nothing is missing.
    let mut resumed = Watch::begin(&watchers, from(&newest));
    assert!(resumed.next().await.is_live);
    resumed.nothing().await;
    drop(resumed);

    // The topic is made anew: first it is shorter, and then it is not.
    for shard in world.core.shards.all() {
        world.log.make_anew(&TopicPartition { topic: a.topic.clone(), partition: shard.0 });
    }
    let anew = refusal(&watchers, from(&newest)).await;
    assert!(matches!(anew, WatchError::Expired(_)), "{anew}");
    for n in 0..200 {
        world.write(put(&format!("k{n}"), 3)).await.unwrap();
    }
    let anew = refusal(&watchers, from(&newest)).await;
    assert!(matches!(anew, WatchError::Expired(_)), "{anew}");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_s_token_moves_on_with_what_others_write() {
    let world = World::new().await;
    let watchers = watchers(&world);
    let mut watch = Watch::live(&watchers, of(&["a"])).await;
    let first = watch.token();
    let others: Vec<String> =
        (0..).map(|n| format!("k{n}")).filter(|id| world.shard(id) == world.shard("a")).take(9).collect();
    for id in &others {
        world.write(put(id, 1)).await.unwrap();
    }
    watch.nothing().await;
    let later = watch.token();
    let end = world.log.events(&world.partition("a")).last().unwrap().0 + 1;
    world.log.trim(&world.partition("a"), end);
    let request = |token: &WatchToken| WatchRequest { from: Some(token.clone()), ..of(&["a"]) };
    let expired = refusal(&watchers, request(&first)).await;
    assert!(matches!(expired, WatchError::Expired(_)), "{expired}");
    let mut resumed = Watch::begin(&watchers, request(&later));
    resumed.next().await;
    world.write(put("a", 7)).await.unwrap();
    assert_eq!(resumed.amounts(1).await, told(&[("a", Some(7))]));
}

/// More bytes than are kept of the log's end: a client that takes nothing for a while reads the rest from the log.
#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_everything_and_holds_nobody_up() {
    const WRITES: i64 = 100;
    let world = World::new().await;
    let watchers = watchers(&world);
    let mut slow = Watch::live(&watchers, all()).await;
    let mut quick = Watch::live(&watchers, of(&["last"])).await;
    let note = Value::Text("n".repeat(2000));
    for n in 0..WRITES {
        let row = payment(&format!("k{}", n % 50), n).merged_with(row(&[("note", note.clone())]));
        for _ in 0..8 {
            world.write(accept::Change::Put { row: row.clone(), precondition: None }).await.unwrap();
        }
    }
    world.write(put("last", 1)).await.unwrap();
    assert_eq!(quick.amounts(1).await, told(&[("last", Some(1))]));
    let mut seen: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (id, amount) in slow.amounts(8 * WRITES as usize + 1).await {
        seen.entry(id).or_default().push(amount.unwrap());
    }
    for n in 0..50 {
        let told: Vec<_> = seen[&format!("k{n}")].iter().step_by(8).copied().collect();
        assert_eq!(told, [n, n + 50]);
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_watches_than_may_be_and_who_leaves_makes_room() {
    let world = World::with(IngestOptions { max_watches: 2, ..quick_options() }, u64::MAX / 1000).await;
    let watchers = watchers(&world);
    let first = Watch::live(&watchers, all()).await;
    let second = Watch::live(&watchers, of(&["a"])).await;
    assert_eq!(world.log.followers(), 1, "they share a reader");
    assert_eq!(refusal(&watchers, all()).await, WatchError::TooMany(2));
    drop(first.told);
    assert_eq!(first.ended.await.unwrap(), WatchError::NobodyListens);
    let third = Watch::live(&watchers, all()).await;
    for watch in [second, third] {
        drop(watch.told);
        watch.ended.await.unwrap();
    }
    let idle = async {
        while world.log.followers() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, idle).await.expect("nobody reads where nobody watches");
    world.core.tasks.close();
    timeout(LONG, world.core.tasks.wait()).await.expect("nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn a_watch_whose_log_breaks_off_ends_and_is_resumed() {
    let world = World::new().await;
    let watchers = watchers(&world);
    let mut watch = Watch::live(&watchers, all()).await;
    world.write(put("a", 1)).await.unwrap();
    watch.changes(1).await;
    let token = watch.token();
    world.log.break_following();
    assert!(matches!(watch.error().await, WatchError::LogDown(_)));
    world.write(put("a", 2)).await.unwrap();
    let mut watch = Watch::begin(&watchers, from(&token));
    assert_eq!(watch.amounts(1).await, told(&[("a", Some(2))]));
    world.write(put("a", 3)).await.unwrap();
    assert_eq!(watch.amounts(1).await, told(&[("a", Some(3))]));
    world.log.silent.lock().unwrap().insert(world.partition("a").topic);
    assert!(matches!(refusal(&watchers, from(&token)).await, WatchError::LogDown(_)));
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_its_table_and_begins_only_where_the_shards_are_open() {
    let world = World::new().await;
    let watchers = watchers(&world);
    let mut watch = Watch::live(&watchers, all()).await;
    world.write(put("a", 1)).await.unwrap();
    watch.changes(1).await;
    let token = watch.token();
    world.tables.disable(&table("payments")).await.unwrap();
    assert_eq!(watch.error().await, WatchError::TableNotEnabled(table("payments")));
    world.tables.enable(&table("payments")).await.unwrap();
    world.store.memory.restart(Survives::Everything);
    let closed = refusal(&watchers, all()).await;
    assert!(matches!(closed, WatchError::Store(StoreError::Closed { .. })), "{closed}");
    // Who knows where it was needs no hot store.
    let mut watch = Watch::begin(&watchers, from(&token));
    assert!(watch.next().await.is_live);
    world.open_all().await;
    world.write(put("a", 2)).await.unwrap();
    assert_eq!(watch.amounts(1).await, told(&[("a", Some(2))]));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_nobody_takes_from_ends_and_so_does_one_whose_server_stops() {
    let world = World::new().await;
    let watchers = watchers(&world);
    let (tell, taken) = mpsc::channel(1);
    let stopping = CancellationToken::new();
    assert_eq!(watchers.watch(&all(), &tell, &stopping).await, WatchError::NobodyListens);
    drop(taken);
    let (tell, mut taken) = mpsc::channel(1);
    let stop = async {
        taken.recv().await.unwrap();
        stopping.cancel();
    };
    let request = all();
    let (ended, ()) = tokio::join!(watchers.watch(&request, &tell, &stopping), stop);
    assert_eq!(ended, WatchError::Stopping);
}

/// Columns that came, or went, since a change was written: it is shown as it was.
#[tokio::test(start_paused = true)]
async fn a_change_is_told_with_the_columns_that_the_table_had_then() {
    let world = World::new().await;
    let watchers = watchers(&world);
    let mut watch = Watch::live(&watchers, all()).await;
    let begun = watch.token();
    world.write(put("a", 1)).await.unwrap();
    let mut columns = payment_columns();
    columns.retain(|column| column.name.as_str() != "note");
    world.db.make_table("payments", Some(columns));
    world.core.directory.refresh(true).await.unwrap();
    world.write(put("b", 1)).await.unwrap();
    let rows: BTreeMap<_, _> = watch.changes(2).await.into_iter().map(|c| (id(&c.key), c.row.unwrap())).collect();
    assert_eq!((rows["a"].get("note"), rows["b"].get("note")), (Some(&Value::Null), None));
    let gone = refusal(&watchers, WatchRequest { columns: vec!["note".into()], ..from(&begun) }).await;
    assert!(matches!(gone, WatchError::Invalid { .. }), "{gone}");
}
