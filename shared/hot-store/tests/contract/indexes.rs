//! What is dirty or parked is found by its fields, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hot_store::{
    Dirty, HotStore, HotStoreError, IndexState, Indexed, Lookup, ParkOutcome, Precondition, RecordId, Restore, Stamp,
    Write,
};
use model::{Chance, ColumnName, Content, Image, IndexId, IndexTerms, KeyBytes, Namespace, Row, Term, Value, Version};
use tokio::time::Instant;

use super::{Backend, kit::*};

const WAY: IndexId = IndexId(0x0123_4567_89ab_cdef);
const OTHER_WAY: IndexId = IndexId(1);

fn table() -> Namespace {
    record(0).namespace
}

/// A row that is found by these.
fn found_by(terms: &[u8]) -> Image {
    let text = terms.iter().map(|term| char::from(*term)).collect();
    let columns: Row = [(ColumnName::new("terms").unwrap(), Value::Text(text))].into_iter().collect();
    Image { content: Content::Row(columns), ..row(0) }
}

fn term(of: u8) -> Term {
    let mut bytes = [0xff; 16];
    bytes[15] = of;
    Term(bytes)
}

fn terms_of(way: IndexId, image: &Image) -> IndexTerms {
    let terms = match &image.content {
        Content::Row(row) => match row.get("terms") {
            Some(Value::Text(text)) => text.chars().map(|c| term(c as u8)).collect(),
            _ => Vec::new(),
        },
        Content::Tombstone => Vec::new(),
    };
    IndexTerms { index: way, terms }
}

async fn put_as(b: &impl Backend, way: Option<IndexId>, record: RecordId, image: Image) -> Version {
    let index = way.map(|way| terms_of(way, &image));
    let write = Write { record, precondition: Precondition::None, image, index };
    stored(b.store().write(b.shard(), Instant::now(), vec![write]).await.unwrap()[0])
}

async fn put_found_by(b: &impl Backend, number: u32, terms: &[u8]) -> Version {
    put_as(b, Some(WAY), record(number), found_by(terms)).await
}

fn lookup(way: IndexId, term: Term, after: Option<KeyBytes>, limit: usize) -> Lookup {
    Lookup { namespace: table(), index: way, term, after, limit }
}

async fn look_up(b: &impl Backend, way: IndexId, of: u8) -> Option<Vec<KeyBytes>> {
    let mut found = b.store().look_up(&[b.shard()], &lookup(way, term(of), None, 1000)).await.unwrap();
    assert_eq!((found.len(), found[0].shard), (1, b.shard()));
    found.remove(0).keys
}

/// What is found, by the numbers of the records.
async fn numbers(b: &impl Backend, of: u8) -> Option<Vec<u32>> {
    let keys = look_up(b, WAY, of).await?;
    Some(keys.into_iter().map(|key| (0..1000).find(|number| record(*number).key == key).unwrap()).collect())
}

/// As whoever needs the index does it.
async fn build(b: &impl Backend, way: IndexId) {
    let (store, shard) = (b.store(), b.shard());
    let IndexState::Building(build) = store.begin_index(shard, table(), way).await.unwrap() else { return };
    let mut after = Version::ZERO;
    loop {
        let (_, page) = store.dirty(shard, Dirty::All, after, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.version;
        let records = page.into_iter().filter(|it| it.record.namespace == table());
        let records = records.map(|it| indexed(way, it.record, it.version, &it.image)).collect();
        assert!(store.build_index(shard, table(), &build, records, false).await.unwrap());
    }
    let (_, parked) = store.parked(shard, table(), Version::ZERO, 1000).await.unwrap();
    let records = parked.into_iter().map(|it| indexed(way, it.record, it.version, &it.image)).collect();
    assert!(store.build_index(shard, table(), &build, records, true).await.unwrap());
}

fn indexed(way: IndexId, record: RecordId, version: Version, image: &Image) -> Indexed {
    Indexed { record, version, terms: terms_of(way, image) }
}

/// What a scan over all that is dirty or parked would find by each term.
async fn scanned(b: &impl Backend) -> BTreeMap<Term, BTreeSet<KeyBytes>> {
    let (_, dirty) = b.store().dirty(b.shard(), Dirty::All, Version::ZERO, 1000).await.unwrap();
    let (_, parked) = b.store().parked(b.shard(), table(), Version::ZERO, 1000).await.unwrap();
    let dirty = dirty.into_iter().map(|it| (it.record, it.image));
    let all = dirty.chain(parked.into_iter().map(|it| (it.record, it.image)));
    let mut found: BTreeMap<Term, BTreeSet<KeyBytes>> = BTreeMap::new();
    for (record, image) in all.filter(|(record, _)| record.namespace == table()) {
        for term in terms_of(WAY, &image).terms {
            found.entry(term).or_default().insert(record.key.clone());
        }
    }
    found
}

pub async fn what_a_write_puts_there_is_found_until_it_is_clean(b: &impl Backend) {
    open(b).await;
    assert_eq!(numbers(b, b'a').await, None, "nobody has begun it");
    assert_eq!(b.store().begin_index(b.shard(), table(), WAY).await, Ok(IndexState::Complete), "nothing is there");
    assert_eq!(numbers(b, b'a').await, Some(vec![]));
    let first = put_found_by(b, 1, b"ab").await;
    put_found_by(b, 2, b"bc").await;
    assert_eq!(numbers(b, b'a').await, Some(vec![1]));
    assert_eq!(numbers(b, b'b').await, Some(vec![1, 2]));
    let second = put_found_by(b, 1, b"c").await;
    assert_eq!(numbers(b, b'a').await, Some(vec![]));
    assert_eq!(numbers(b, b'b').await, Some(vec![2]));
    assert_eq!(numbers(b, b'c').await, Some(vec![1, 2]));
    mark_clean(b, record(1), first, LONG).await;
    assert_eq!(numbers(b, b'c').await, Some(vec![1, 2]), "the newer one is not in the database yet");
    mark_clean(b, record(1), second, LONG).await;
    assert_eq!(numbers(b, b'c').await, Some(vec![2]));
    put_as(b, Some(WAY), record(2), tombstone()).await;
    assert_eq!(numbers(b, b'c').await, Some(vec![]));
    assert_eq!(numbers(b, b'b').await, Some(vec![]));
}

pub async fn what_a_newer_row_replaces_is_not_found(b: &impl Backend) {
    open(b).await;
    build(b, WAY).await;
    let at = put_found_by(b, 1, b"a").await;
    let lower = put_found_by(b, 2, b"a").await;
    let above = version(lower.get() + 10);
    clean_with(b, record(1), above, Some(found_by(b"a")), LONG).await;
    assert_eq!(numbers(b, b'a').await, Some(vec![2]), "the database has it: {at}");
    clean_with(b, record(2), above, None, LONG).await;
    assert_eq!(numbers(b, b'a').await, Some(vec![]));
}

pub async fn what_is_parked_is_found_until_it_is_purged_or_written(b: &impl Backend) {
    open(b).await;
    build(b, WAY).await;
    let (first, second) = (put_found_by(b, 1, b"a").await, put_found_by(b, 2, b"a").await);
    let stamps = [(1, first), (2, second)].map(|(n, version)| Stamp { record: record(n), version });
    let parked = b.store().park(b.shard(), stamps.to_vec()).await.unwrap();
    assert_eq!(parked, [ParkOutcome::Parked, ParkOutcome::Parked]);
    assert_eq!(numbers(b, b'a').await, Some(vec![1, 2]));
    assert!(b.store().purge_parked(b.shard(), stamps[0].clone()).await.unwrap());
    assert_eq!(numbers(b, b'a').await, Some(vec![2]));
    put_found_by(b, 2, b"b").await;
    assert_eq!((numbers(b, b'a').await, numbers(b, b'b').await), (Some(vec![]), Some(vec![2])));
}

pub async fn the_last_of_several_writes_of_a_call_is_found(b: &impl Backend) {
    open(b).await;
    build(b, WAY).await;
    let write = |number, terms: &[u8], precondition| {
        let image = found_by(terms);
        Write { record: record(number), precondition, index: Some(terms_of(WAY, &image)), image }
    };
    let none = Precondition::None;
    let writes = vec![
        write(1, b"a", none),
        write(2, b"a", none),
        write(1, b"b", none),
        write(2, b"c", Precondition::Absent),
        Write { record: record_in("main.other", 1), precondition: none, image: found_by(b"a"), index: None },
    ];
    b.store().write(b.shard(), Instant::now(), writes).await.unwrap();
    assert_eq!(numbers(b, b'a').await, Some(vec![2]));
    assert_eq!(numbers(b, b'b').await, Some(vec![1]));
    assert_eq!(numbers(b, b'c').await, Some(vec![]), "what is refused changes nothing");
}

pub async fn an_index_that_a_write_does_not_keep_is_none(b: &impl Backend) {
    open(b).await;
    for way in [None, Some(OTHER_WAY)] {
        build(b, WAY).await;
        put_as(b, Some(WAY), record(2), tombstone()).await;
        put_found_by(b, 1, b"a").await;
        assert_eq!(numbers(b, b'a').await, Some(vec![1]));
        put_as(b, way, record(2), found_by(b"a")).await;
        assert_eq!(numbers(b, b'a').await, None);
        build(b, WAY).await;
        assert_eq!(numbers(b, b'a').await, Some(vec![1, 2]));
    }
    assert_eq!(look_up(b, OTHER_WAY, b'a').await, None);
    build(b, OTHER_WAY).await;
    assert_eq!(look_up(b, OTHER_WAY, b'a').await.map(|keys| keys.len()), Some(2));
    assert_eq!(numbers(b, b'a').await, None);
    assert_eq!(look_up(b, OTHER_WAY, b'b').await, Some(vec![]));
}

pub async fn while_an_index_is_built_writes_keep_it_and_it_is_found_in_when_it_is_complete(b: &impl Backend) {
    open(b).await;
    let before = [(1, put_as(b, None, record(1), found_by(b"a")).await), (2, put(b, record(2), found_by(b"a")).await)];
    let state = b.store().begin_index(b.shard(), table(), WAY).await.unwrap();
    let IndexState::Building(build) = state.clone() else { panic!("two records are dirty") };
    assert_eq!(b.store().begin_index(b.shard(), table(), WAY).await.unwrap(), state, "another one joins");
    assert_eq!(numbers(b, b'a').await, None);
    // One is written again, the other drained, before they are put in.
    put_found_by(b, 1, b"b").await;
    mark_clean(b, record(2), before[1].1, LONG).await;
    put_found_by(b, 3, b"a").await;
    let records = before.map(|(number, at)| indexed(WAY, record(number), at, &found_by(b"a"))).to_vec();
    assert!(b.store().build_index(b.shard(), table(), &build, records, false).await.unwrap());
    assert_eq!(numbers(b, b'a').await, None);
    assert!(b.store().build_index(b.shard(), table(), &build, vec![], true).await.unwrap());
    assert_eq!(numbers(b, b'a').await, Some(vec![3]));
    assert_eq!(numbers(b, b'b').await, Some(vec![1]));
}

pub async fn who_builds_what_was_dropped_meanwhile_is_told(b: &impl Backend) {
    open(b).await;
    put(b, record(1), found_by(b"a")).await;
    let begin = || async { b.store().begin_index(b.shard(), table(), WAY).await.unwrap() };
    let IndexState::Building(first) = begin().await else { panic!("a record is dirty") };
    put(b, record(2), found_by(b"a")).await;
    assert!(!b.store().build_index(b.shard(), table(), &first, vec![], true).await.unwrap());
    let IndexState::Building(second) = begin().await else { panic!("records are dirty") };
    assert_ne!(first, second);
    assert!(!b.store().build_index(b.shard(), table(), &first, vec![], true).await.unwrap());
    assert_eq!(numbers(b, b'a').await, None);
    build(b, WAY).await;
    assert_eq!(numbers(b, b'a').await, Some(vec![1, 2]));
}

pub async fn an_opening_voids_the_index(b: &impl Backend) {
    open(b).await;
    build(b, WAY).await;
    let at = put_found_by(b, 1, b"a").await;
    b.restart().await;
    let asked = lookup(WAY, term(b'a'), None, 1);
    let closed = HotStoreError::Closed { shard: b.shard() };
    assert_eq!(b.store().look_up(&[b.shard()], &asked).await, Err(closed.clone()));
    assert_eq!(b.store().begin_index(b.shard(), table(), WAY).await, Err(closed));
    let (image, version) = (found_by(b"a"), version(at.get() + 1));
    let restores = vec![Restore::Dirty { record: record(2), version, behind: version, image }];
    open_with(b, false, restores, version).await;
    assert_eq!(numbers(b, b'a').await, None);
    // Marks and writes over what is void don't bring it back.
    mark_clean(b, record(1), at, LONG).await;
    put_found_by(b, 3, b"a").await;
    assert_eq!(numbers(b, b'a').await, None);
    build(b, WAY).await;
    assert_eq!(numbers(b, b'a').await, Some(vec![2, 3]));

    b.restart().await;
    open_with(b, true, vec![], Version::ZERO).await;
    build(b, WAY).await;
    assert_eq!(numbers(b, b'a').await, Some(vec![]), "what is discarded counts as nothing");
}

pub async fn what_is_found_comes_in_pages_by_the_keys_bytes(b: &impl Backend) {
    open(b).await;
    build(b, WAY).await;
    for number in (0..25).rev() {
        put_found_by(b, number, b"a").await;
    }
    // The neighbours of the term, at both of its ends.
    put_found_by(b, 30, &[b'a' - 1, b'a' + 1, 0xff]).await;
    let mut expected: Vec<KeyBytes> = (0..25).map(|number| record(number).key).collect();
    expected.sort_unstable();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = b.store().look_up(&[b.shard()], &lookup(WAY, term(b'a'), after, 10)).await.unwrap();
        let keys = page.into_iter().next().and_then(|page| page.keys).unwrap();
        let Some(last) = keys.last() else { break };
        assert!(keys.len() <= 10);
        after = Some(last.clone());
        found.extend(keys);
    }
    assert_eq!(found, expected);
    assert_eq!(numbers(b, 0xff).await, Some(vec![30]), "the last of all terms");
}

pub async fn many_records_are_indexed_in_one_call(b: &impl Backend) {
    open(b).await;
    build(b, WAY).await;
    let write = |number: u32| {
        let image = found_by(b"abcdefgh");
        let key = KeyBytes::from_stored(Bytes::from(number.to_be_bytes().to_vec()));
        let record = RecordId { namespace: table(), key };
        Write { record, precondition: Precondition::None, index: Some(terms_of(WAY, &image)), image }
    };
    let outcomes = b.store().write(b.shard(), Instant::now(), (0..1000).map(write).collect()).await.unwrap();
    assert_eq!(look_up(b, WAY, b'h').await.map(|keys| keys.len()), Some(1000));
    let cleans = (0..1000).map(write).zip(outcomes).map(|(write, outcome)| hot_store::Clean {
        record: write.record,
        version: stored(outcome),
        newer: None,
    });
    b.store().mark_clean(b.shard(), cleans.collect(), LONG).await.unwrap();
    for of in b"abcdefgh" {
        assert_eq!(look_up(b, WAY, *of).await, Some(vec![]));
    }
}

/// Whatever happened: an index that says it is complete finds what a scan finds.
pub async fn an_index_is_what_a_scan_would_find(b: &impl Backend) {
    open(b).await;
    let chance = Chance::seeded(17);
    let below = |limit: usize| chance.token() as usize % limit;
    let mut versions: BTreeMap<u32, Vec<Version>> = BTreeMap::new();
    let mut complete = 0;
    for step in 0..400_u32 {
        let number = below(8) as u32;
        let terms: Vec<u8> = (b'a'..=b'd').filter(|_| below(2) == 0).collect();
        let known = versions.entry(number).or_default();
        let at = known.get(below(known.len().max(1))).copied();
        let stamp = at.or(known.last().copied()).map(|version| Stamp { record: record(number), version });
        match (below(40), stamp) {
            (0..=13, _) | (_, None) => known.push(put_found_by(b, number, &terms).await),
            (14..=16, _) => known.push(put_as(b, Some(WAY), record(number), tombstone()).await),
            (17, _) => known.push(put_as(b, None, record(number), found_by(&terms)).await),
            (18, _) => known.push(put_as(b, Some(OTHER_WAY), record(number), found_by(&terms)).await),
            (19..=24, Some(stamp)) => {
                let newer = (below(4) == 0).then(|| found_by(&terms));
                clean_with(b, record(number), stamp.version, newer, LONG).await;
            }
            (25..=28, Some(stamp)) => {
                b.store().park(b.shard(), vec![stamp]).await.unwrap();
            }
            (29..=30, Some(stamp)) => {
                b.store().purge_parked(b.shard(), stamp).await.unwrap();
            }
            (31, Some(stamp)) => {
                b.restart().await;
                let (record, version) = (stamp.record, stamp.version);
                let (behind, image) = (version, found_by(&terms));
                let restore = match below(3) {
                    0 => Restore::Dirty { record, version, behind, image },
                    1 => Restore::Parked { record, version, image },
                    _ => Restore::Clean { record, version, image },
                };
                open_with(b, below(4) == 0, vec![restore], Version::ZERO).await;
            }
            _ => build(b, WAY).await,
        }
        let expected = scanned(b).await;
        for of in b'a'..=b'd' {
            if let Some(found) = look_up(b, WAY, of).await {
                complete += 1;
                let expected = expected.get(&term(of)).cloned().unwrap_or_default();
                assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "step {step}, {}", char::from(of));
            }
        }
    }
    assert!(complete > 400, "it was complete {complete} times");
}
