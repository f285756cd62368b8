//! Finding records by a field: each whose newest acknowledged version has the value, and no other, wherever it is.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use database::DatabaseRow;
use hot_store::{Clean, CleanOutcome, Eviction, HotStore as _, Stamp, memory::Survives};
use ingest_svc::{
    IngestOptions, StoreError,
    find::{FindError, FoundPage, Query},
    tables::{self, TableError},
};
use model::{ColumnName, Value, Version};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::world::*;

pub fn column(name: &str) -> ColumnName {
    ColumnName::new(name).unwrap()
}

pub fn by_amount(amount: i64) -> Query {
    Query {
        table: table("payments"),
        field: "amount".to_owned(),
        value: Value::Int64(amount),
        limit: 100,
        page_token: String::new(),
        columns: Vec::new(),
    }
}

impl World {
    /// Records are found by their amounts.
    async fn finding() -> Self {
        Self::finding_with(quick_options()).await
    }

    async fn finding_with(options: IngestOptions) -> Self {
        let world = Self::with(options, u64::MAX / 1000).await;
        world.tables.enable_with(&table("payments"), Some(vec![column("amount")])).await.unwrap();
        world
    }

    pub async fn find(&self, query: &Query) -> Result<FoundPage, FindError> {
        self.finder.find(query.clone()).await
    }

    /// The ids of the records that are found, on all pages.
    pub async fn found(&self, query: Query) -> Vec<String> {
        let (mut ids, mut query) = (Vec::new(), query);
        loop {
            let page = self.find(&query).await.unwrap();
            assert!(page.records.len() <= query.limit);
            ids.extend(page.records.iter().map(|found| match found.row.get("id") {
                Some(Value::Text(id)) => id.clone(),
                other => panic!("{other:?} is no id"),
            }));
            if page.next_page_token.is_empty() {
                return ids;
            }
            query.page_token = page.next_page_token;
        }
    }

    async fn ids(&self, amount: i64) -> BTreeSet<String> {
        let found = self.found(by_amount(amount)).await;
        let ids: BTreeSet<String> = found.iter().cloned().collect();
        assert_eq!(ids.len(), found.len(), "none comes twice: {found:?}");
        ids
    }
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[tokio::test]
async fn what_the_database_lacks_and_what_it_has_are_found_as_one() {
    let world = World::finding().await;
    world.plant("stored", 1);
    world.plant("others", 2);
    let written = etag(world.write(put("dirty", 1)).await);
    world.write(put("drained", 1)).await.unwrap();
    world.drain().await;
    world.write(put("dirty", 1)).await.unwrap();
    assert_eq!(world.ids(1).await, set(&["stored", "dirty", "drained"]));
    assert_eq!(world.ids(2).await, set(&["others"]));
    assert_eq!(world.ids(3).await, set(&[]));
    let page = world.find(&by_amount(1)).await.unwrap();
    let dirty = page.records.iter().find(|found| found.row == full_payment("dirty", 1)).unwrap();
    assert!(dirty.etag != Some(written), "it was written again");
    assert_eq!(Ok(dirty.etag), world.get("dirty").await.map(|found| found.etag));
    // The etag of a row that the hot store does not hold is good for a write.
    let stored = page.records.iter().find(|found| found.row == full_payment("stored", 1)).unwrap().etag.unwrap();
    world.write(put_if("stored", 5, ingest_svc::accept::Require::Etag(stored))).await.unwrap();
    assert_eq!(world.ids(1).await, set(&["dirty", "drained"]));
}

#[tokio::test]
async fn a_row_whose_newest_version_has_another_value_is_not_found() {
    let world = World::finding().await;
    for id in ["changed", "deleted", "same"] {
        world.plant(id, 1);
    }
    world.write(put("changed", 2)).await.unwrap();
    world.write(delete("deleted")).await.unwrap();
    world.write(put("same", 1)).await.unwrap();
    assert_eq!(world.ids(1).await, set(&["same"]));
    assert_eq!(world.ids(2).await, set(&["changed"]));
    world.drain().await;
    assert_eq!(world.ids(1).await, set(&["same"]));
    assert_eq!(world.ids(2).await, set(&["changed"]));
}

#[tokio::test]
async fn pages_bring_every_record_once_however_they_are_cut() {
    let world = World::finding().await;
    let mut all = BTreeSet::new();
    for number in 0..23 {
        let id = format!("k{number:02}");
        match number % 3 {
            0 => world.plant(&id, 1),
            1 => drop(world.write(put(&id, 1)).await.unwrap()),
            // In the database, and written again with the same value.
            _ => {
                world.plant(&id, 1);
                world.write(put(&id, 1)).await.unwrap();
            }
        }
        all.insert(id);
    }
    for limit in [1, 2, 5, 22, 23, 24, 1000] {
        let found = world.found(Query { limit, ..by_amount(1) }).await;
        assert_eq!(found.len(), all.len(), "limit {limit}: {found:?}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), all, "limit {limit}");
    }
}

#[tokio::test]
async fn a_value_that_can_t_be_read_keeps_no_other_record_from_being_found() {
    let world = World::finding().await;
    let mut all = BTreeSet::new();
    for number in 0..40 {
        let id = format!("k{number:02}");
        world.write(put(&id, 1)).await.unwrap();
        if number == 19 {
            world.drain().await;
        }
        all.insert(id);
    }
    for id in ["k00", "k07", "k30", "k39"] {
        world.store.spoil(&world.record(id));
        all.remove(id);
    }
    for limit in [1, 3, 40, 100] {
        let found = world.found(Query { limit, ..by_amount(1) }).await;
        assert_eq!(found.len(), all.len(), "limit {limit}: {found:?}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), all, "limit {limit}");
    }
}

#[tokio::test]
async fn a_page_ends_where_its_bytes_do() {
    let world = World::finding_with(IngestOptions { max_find_bytes: 1, ..quick_options() }).await;
    for id in ["a", "b", "c"] {
        world.plant(id, 1);
        world.write(put(&format!("{id}{id}"), 1)).await.unwrap();
    }
    let page = world.find(&by_amount(1)).await.unwrap();
    assert_eq!(page.records.len(), 1);
    assert_eq!(world.ids(1).await, set(&["a", "b", "c", "aa", "bb", "cc"]));
}

#[tokio::test]
async fn a_record_that_finds_no_room_on_a_page_is_the_first_of_the_next() {
    let world = World::finding_with(IngestOptions { max_find_bytes: 400, ..quick_options() }).await;
    for (id, chars) in [("a", 1), ("b", 1), ("c", 390), ("d", 1)] {
        let long = row(&[("status", Value::Text("x".repeat(chars)))]);
        let row = full_payment(id, 1).merged_with(long);
        world.db.set_row("payments", &key(id), DatabaseRow::Present { version: Version::ZERO, row });
    }
    let (mut pages, mut query) = (Vec::new(), by_amount(1));
    loop {
        let page = world.find(&query).await.unwrap();
        pages.push(page.records.len());
        query.page_token = page.next_page_token;
        if query.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [2, 1, 1]);
}

#[tokio::test]
async fn rows_are_read_few_at_once_and_no_more_of_them_than_a_page_may_have() {
    for (max_find_bytes, statements) in [(1 << 20, 3), (1, 1), (10_000, 2)] {
        let world = World::finding_with(IngestOptions { max_find_bytes, ..quick_options() }).await;
        let all: BTreeSet<String> = (0..150).map(|number| format!("k{number:03}")).collect();
        all.iter().for_each(|id| world.plant(id, 1));
        let page = world.find(&Query { limit: 1000, ..by_amount(1) }).await.unwrap();
        assert_eq!(world.db.finds.load(Ordering::SeqCst), statements, "{max_find_bytes}");
        assert_eq!(page.records.len() == 150, max_find_bytes == 1 << 20, "{}", page.records.len());
        assert_eq!(world.ids(1).await, all, "{max_find_bytes}");
        assert!(world.db.most_wanted.load(Ordering::SeqCst) <= 64);
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_database_stands_still_finds_are_told_so_and_wait_for_no_turn() {
    let patience = Duration::from_secs(2);
    let options = IngestOptions {
        max_cold_reads: 1,
        database_patience: patience,
        outage_pause: Duration::from_secs(1),
        lease_ttl: Duration::from_secs(5),
        ..quick_options()
    };
    let world = Arc::new(World::finding_with(options).await);
    world.plant("a", 1);
    world.db.hold_reads();
    let began = Instant::now();
    let find = || {
        let world = world.clone();
        tokio::spawn(async move { world.find(&by_amount(1)).await })
    };
    // All want the only turn; the first that has it finds out for all.
    for find in [(); 20].map(|()| find()) {
        let told = find.await.unwrap();
        assert!(matches!(&told, Err(FindError::Store(StoreError::DatabaseDown(_)))), "{told:?}");
    }
    assert!(began.elapsed() < patience * 2, "{:?}", began.elapsed());
    // Somebody else has the turn now.
    let getting = tokio::spawn({
        let world = world.clone();
        async move { world.get("a").await }
    });
    world.db.held_read().await;
    let began = Instant::now();
    assert!(matches!(find().await.unwrap(), Err(FindError::Store(StoreError::DatabaseDown(_)))));
    assert_eq!(began.elapsed(), Duration::ZERO);
    world.db.release_reads();
    assert!(getting.await.unwrap().is_ok());
    // By and by the first one asks again.
    sleep(patience).await;
    assert_eq!(world.ids(1).await, set(&["a"]));
}

#[tokio::test]
async fn what_is_written_between_two_pages_is_never_stale() {
    let world = World::finding().await;
    for id in ["a", "b", "c", "d"] {
        world.plant(id, 1);
    }
    let first = world.find(&Query { limit: 1, ..by_amount(1) }).await.unwrap();
    assert_eq!(first.records.len(), 1);
    world.write(put("c", 2)).await.unwrap();
    world.write(put("d", 1)).await.unwrap();
    let rest = world.found(Query { page_token: first.next_page_token, ..by_amount(1) }).await;
    assert_eq!(rest.into_iter().collect::<BTreeSet<_>>(), set(&["b", "d"]));
}

#[tokio::test]
async fn what_is_drained_while_the_database_is_asked_is_found_as_it_is_now() {
    let world = Arc::new(World::finding().await);
    world.plant("a", 1);
    world.plant("b", 1);
    world.write(put("a", 2)).await.unwrap();
    world.db.hold_reads();
    let finding = tokio::spawn({
        let world = world.clone();
        async move { world.ids(1).await }
    });
    world.db.held_read().await;
    // The find has what the database held before; what replaces it is drained and its image gone.
    world.drain().await;
    let newer = Clean { record: world.record("a"), version: Version::MAX, newer: None };
    let outcomes = world.store.mark_clean(world.shard("a"), vec![newer], Duration::from_secs(60)).await.unwrap();
    assert_eq!(outcomes, [CleanOutcome::Gone]);
    world.db.release_reads();
    assert_eq!(finding.await.unwrap(), set(&["b"]));
}

#[tokio::test]
async fn parked_records_are_found_as_they_are_read() {
    let world = World::finding().await;
    world.plant("a", 1);
    let parked = etag(world.write(put("a", 2)).await);
    let stamp = Stamp { record: world.record("a"), version: parked.version };
    world.store.park(world.shard("a"), vec![stamp.clone()]).await.unwrap();
    assert_eq!((world.ids(1).await, world.ids(2).await), (set(&[]), set(&["a"])));
    assert!(world.store.purge_parked(world.shard("a"), stamp).await.unwrap());
    assert_eq!((world.ids(1).await, world.ids(2).await), (set(&["a"]), set(&[])));
}

#[tokio::test]
async fn after_a_restart_of_the_hot_store_everything_is_found_again() {
    let world = World::finding().await;
    world.plant("stored", 1);
    world.write(put("dirty", 1)).await.unwrap();
    let snapshot = world.store.memory.snapshot();
    world.write(put("tail", 1)).await.unwrap();
    let closed = |error| matches!(error, FindError::Store(StoreError::Closed { .. }));
    for survives in [Survives::Everything, Survives::Snapshot(snapshot), Survives::Nothing] {
        world.store.memory.restart(survives);
        assert!(world.find(&by_amount(1)).await.is_err_and(closed));
        world.open_all().await;
        assert_eq!(world.ids(1).await, set(&["stored", "dirty", "tail"]));
    }
}

#[tokio::test]
async fn fields_may_be_declared_while_records_are_waiting() {
    let world = World::new().await;
    world.write(put("before", 1)).await.unwrap();
    let not_declared = FindError::NotDeclared { table: table("payments"), field: "amount".to_owned() };
    assert_eq!(world.find(&by_amount(1)).await, Err(not_declared.clone()));
    let info = world.tables.enable_with(&table("payments"), Some(vec![column("amount")])).await.unwrap();
    assert_eq!(info.indexed_fields, [column("amount")]);
    world.write(put("after", 1)).await.unwrap();
    assert_eq!(world.ids(1).await, set(&["before", "after"]));
    // Enabling it again without a word changes nothing.
    world.tables.enable(&table("payments")).await.unwrap();
    assert_eq!(world.ids(1).await, set(&["before", "after"]));
    world.tables.enable_with(&table("payments"), Some(vec![])).await.unwrap();
    assert_eq!(world.find(&by_amount(1)).await, Err(not_declared));
    world.write(put("unheard of", 1)).await.unwrap();
    world.tables.enable_with(&table("payments"), Some(vec![column("amount"), column("status")])).await.unwrap();
    assert_eq!(world.ids(1).await, set(&["before", "after", "unheard of"]));
    let by_status = Query { field: "status".into(), value: Value::Text("new".into()), ..by_amount(0) };
    assert_eq!(world.found(by_status).await.len(), 3);
}

#[tokio::test]
async fn what_can_t_be_looked_for_is_refused_when_it_is_declared() {
    let world = World::new().await;
    world.db.drop_index("note");
    for (field, why) in [("note", "no index"), ("nope", "no column")] {
        let refused = world.tables.enable_with(&table("payments"), Some(vec![column(field)])).await;
        assert!(
            matches!(&refused, Err(TableError::Unsupported { reason, .. }) if reason.contains(why)),
            "{field}: {refused:?}"
        );
    }
    let twice = vec![column("amount"), column("amount")];
    assert!(world.tables.enable_with(&table("payments"), Some(twice)).await.is_err());
    assert_eq!(world.tables.get(&table("payments")).await.unwrap().indexed_fields, []);
}

#[tokio::test]
async fn what_is_wrong_with_a_query_is_said() {
    let world = World::finding().await;
    world.write(put("a", 1)).await.unwrap();
    world.plant("b", 1);
    let refused = async |query: Query| world.find(&query).await.unwrap_err();
    assert_eq!(refused(Query { value: Value::Null, ..by_amount(1) }).await, FindError::Null(column("amount")));
    let wrong = refused(Query { value: Value::Text("x".into()), ..by_amount(1) }).await;
    assert!(matches!(wrong, FindError::Invalid { part: ingest_svc::Part::Value, .. }), "{wrong:?}");
    let wrong = refused(Query { field: "nope".into(), ..by_amount(1) }).await;
    assert!(matches!(wrong, FindError::Invalid { part: ingest_svc::Part::Field, .. }), "{wrong:?}");
    let wrong = refused(Query { columns: vec!["nope".into()], ..by_amount(1) }).await;
    assert!(matches!(wrong, FindError::Invalid { part: ingest_svc::Part::Columns, .. }), "{wrong:?}");
    assert_eq!(refused(Query { limit: 1001, ..by_amount(1) }).await, FindError::TooMany { limit: 1001, most: 1000 });
    let token = world.find(&Query { limit: 1, ..by_amount(1) }).await.unwrap().next_page_token;
    let changed = token.replacen(|c: char| c.is_ascii_digit(), "f", 1);
    assert_ne!(changed, token);
    for page_token in ["x".to_owned(), "00".to_owned(), changed, format!("{token}00")] {
        assert_eq!(refused(Query { page_token, ..by_amount(1) }).await, FindError::PageToken);
    }
    assert_eq!(refused(Query { page_token: token.clone(), ..by_amount(2) }).await, FindError::PageToken);
    world.tables.enable_with(&table("payments"), Some(vec![column("amount"), column("note")])).await.unwrap();
    assert_eq!(refused(Query { page_token: token, ..by_amount(1) }).await, FindError::PageToken);
    let other = Query { table: table("orders"), ..by_amount(1) };
    assert_eq!(refused(other).await, FindError::TableNotEnabled(table("orders")));
}

#[tokio::test]
async fn columns_of_what_is_found_can_be_chosen() {
    let world = World::finding().await;
    world.write(put("a", 1)).await.unwrap();
    world.plant("b", 1);
    let page = world.find(&Query { columns: vec!["id".into()], ..by_amount(1) }).await.unwrap();
    assert_eq!(page.records.iter().map(|found| found.row.clone()).collect::<Vec<_>>(), [key_row("a"), key_row("b")]);
}

#[tokio::test]
async fn without_the_database_a_find_goes_as_far_as_the_hot_store_has_it() {
    let world = World::finding().await;
    for id in ["a", "b"] {
        world.write(put(id, 1)).await.unwrap();
    }
    world.db.set_away(true);
    let page = world.find(&Query { limit: 2, ..by_amount(1) }).await.unwrap();
    assert_eq!(page.records.len(), 2);
    let next = world.find(&Query { page_token: page.next_page_token, ..by_amount(1) }).await;
    assert!(matches!(next, Err(FindError::Store(StoreError::DatabaseDown(_)))), "{next:?}");
    assert!(world.find(&by_amount(1)).await.is_err());
}

#[tokio::test]
async fn a_find_takes_one_statement_of_the_database() {
    let world = World::finding().await;
    for number in 0..50 {
        world.plant(&format!("k{number}"), 1);
    }
    world.db.set_row("payments", &key("other"), DatabaseRow::Absent);
    assert_eq!(world.ids(1).await.len(), 50);
    assert_eq!((world.db.finds.load(Ordering::SeqCst), world.db.reads.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn rows_over_which_nothing_is_known_for_sure_are_read_again_many_at_once() {
    let world = Arc::new(World::finding().await);
    let ids: Vec<String> = (0..100).map(|number| format!("k{number:03}")).collect();
    ids.iter().for_each(|id| world.plant(id, 1));
    // Of each shard somebody evicts something while the database is asked.
    let mut clean = Vec::new();
    for shard in world.core.shards.all() {
        let id = (0..).map(|number| format!("other{number}")).find(|id| world.shard(id) == shard).unwrap();
        world.plant(&id, 2);
        world.get(&id).await.unwrap();
        clean.push((shard, id));
    }
    let before = world.db.reads.load(Ordering::SeqCst);
    world.db.hold_reads();
    let finding = tokio::spawn({
        let world = world.clone();
        async move { world.ids(1).await }
    });
    world.db.held_read().await;
    for (shard, id) in clean {
        let evicted = world.store.evict(shard, vec![world.record(&id)]).await.unwrap();
        assert_eq!(evicted, [Eviction::Evicted]);
    }
    // In the place of one of the rows somebody has put another meanwhile.
    world.plant("k050", 3);
    world.db.release_reads();
    let mut expected: BTreeSet<String> = ids.into_iter().collect();
    expected.remove("k050");
    assert_eq!(finding.await.unwrap(), expected);
    assert_eq!(world.db.reads.load(Ordering::SeqCst) - before, 2, "a hundred by two statements");
}

#[tokio::test]
async fn an_index_is_made_while_it_is_written_to_without_an_end() {
    let world = Arc::new(World::new().await);
    for number in 0..20 {
        world.write(put(&format!("k{number:02}"), 1)).await.unwrap();
    }
    let (pages, rival) = (Arc::new(AtomicUsize::new(0)), world.clone());
    let counted = pages.clone();
    world.store.before_dirty(move |shard| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        let world = rival.clone();
        Box::pin(async move {
            // It has an end after all, lest this test had none.
            if number < 200 {
                let mut ids = (0..).map(|other| format!("new{number}-{other}"));
                let id = ids.find(|id| world.shard(id) == shard).unwrap();
                world.write(put(&id, 1)).await.unwrap();
            }
        })
    });
    world.tables.enable_with(&table("payments"), Some(vec![column("amount")])).await.unwrap();
    let shards = world.core.shards.get() as usize;
    let asked = pages.load(Ordering::SeqCst);
    assert!((1..=2 * shards).contains(&asked), "{asked} pages of {shards} shards");
    assert_eq!(world.ids(1).await.len(), 20 + asked);
    assert_eq!(pages.load(Ordering::SeqCst), asked, "it was made");
}

#[tokio::test(start_paused = true)]
async fn a_find_by_a_field_whose_index_was_dropped_is_refused_until_there_is_one_again() {
    let world = World::finding().await;
    world.plant("a", 1);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(tables::run(world.core.clone(), shutdown.clone()));
    let told = async |is_refused: bool| {
        for _ in 0..100 {
            let found = world.find(&by_amount(1)).await;
            if found.is_err() == is_refused {
                return found;
            }
            sleep(world.core.options.table_refresh).await;
        }
        panic!("nobody has noticed");
    };
    world.db.drop_index("amount");
    let refused = FindError::Unindexed { table: table("payments"), field: column("amount") };
    assert_eq!(told(true).await, Err(refused.clone()));
    // While the database is away nothing else is known.
    world.db.set_away(true);
    sleep(world.core.options.table_refresh * 100).await;
    assert_eq!(world.find(&by_amount(1)).await, Err(refused));
    world.db.set_away(false);
    world.db.make_index("amount");
    assert_eq!(told(false).await.unwrap().records.len(), 1);
    shutdown.cancel();
    running.await.unwrap();
}
