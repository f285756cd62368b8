//! Tables of which a shard takes no writes.

use std::collections::BTreeSet;

use hot_store::{Halt, HaltedTables, HotStore, Precondition, RecordId, Restore, Write, WriteOutcome};
use model::{Image, Namespace, Request, RequestDigest, RequestId, Version};
use tokio::time::Instant;

use super::{Backend, kit::*};

fn these(revision: u64, names: &[&Namespace]) -> Halt {
    let names: BTreeSet<Namespace> = names.iter().map(|name| (*name).clone()).collect();
    Halt { revision, tables: HaltedTables::These(names) }
}

fn all(revision: u64) -> Halt {
    Halt { revision, tables: HaltedTables::All }
}

async fn halt(b: &impl Backend, halt: Halt) -> Halt {
    b.store().halt_writes(b.shard(), &halt).await.unwrap()
}

pub async fn a_halt_refuses_writes_of_its_tables_and_reads_go_on(b: &impl Backend) {
    open(b).await;
    let kept = put(b, record(1), row(1)).await;
    let table = record(1).namespace;
    let of = |name: &str| RecordId { namespace: Namespace::new(name).unwrap(), ..record(1) };
    // A table whose name goes on after this one's is another table.
    let (other, longer) = (of("main.other"), of(&format!("{table}s")));
    assert_eq!(halt(b, these(1, &[&table])).await, these(1, &[&table]));
    let to_write = |record| Write { record, precondition: Precondition::None, image: row(2), index: None };
    let writes = [record(1), other.clone(), longer, record(2)].map(to_write).to_vec();
    let outcomes = b.store().write(b.shard(), Instant::now(), writes).await.unwrap();
    assert!(matches!(outcomes[1], WriteOutcome::Stored { .. }) && matches!(outcomes[2], WriteOutcome::Stored { .. }));
    assert_eq!((outcomes[0], outcomes[3]), (WriteOutcome::Halted, WriteOutcome::Halted));
    assert_eq!(read(b, record(1)).await, image_slot(kept, row(1), true));
    for precondition in [Precondition::Absent, Precondition::AbsentFromStore, Precondition::Present] {
        assert_eq!(write(b, record(3), precondition, row(3)).await, WriteOutcome::Halted);
    }
    // What was accepted is drained.
    assert_eq!(mark_clean(b, record(1), kept, LONG).await, hot_store::CleanOutcome::Cleaned);

    assert_eq!(halt(b, all(2)).await, all(2));
    assert_eq!(write(b, other.clone(), Precondition::None, row(3)).await, WriteOutcome::Halted);
    assert_eq!(halt(b, these(3, &[])).await, these(3, &[]));
    stored(write(b, record(1), Precondition::None, row(4)).await);
    stored(write(b, other, Precondition::None, row(4)).await);
}

pub async fn an_earlier_wish_replaces_no_later_one(b: &impl Backend) {
    open(b).await;
    assert_eq!(b.store().header(b.shard()).await.unwrap().halt, Halt::default());
    assert_eq!(halt(b, all(1_700_000_000_000_007)).await, all(1_700_000_000_000_007));
    assert_eq!(halt(b, these(1_700_000_000_000_006, &[])).await, all(1_700_000_000_000_007));
    assert_eq!(write(b, record(1), Precondition::None, row(1)).await, WriteOutcome::Halted);
    // To say the same again does no harm.
    assert_eq!(halt(b, all(1_700_000_000_000_007)).await, all(1_700_000_000_000_007));
    assert_eq!(b.store().header(b.shard()).await.unwrap().halt, all(1_700_000_000_000_007));
}

pub async fn a_request_that_took_effect_is_told_so_in_spite_of_a_halt(b: &impl Backend) {
    open(b).await;
    let request = Request { id: RequestId::new("r-1").unwrap(), digest: RequestDigest::of(b"r") };
    let image = Image { request: Some(request), ..row(1) };
    let first = stored(write(b, record(1), Precondition::None, image.clone()).await);
    halt(b, all(1)).await;
    match write(b, record(1), Precondition::None, image).await {
        WriteOutcome::Repeated { version, .. } => assert_eq!(version, first),
        other => panic!("{other:?}"),
    }
}

pub async fn a_closed_shard_is_halted_before_it_is_opened(b: &impl Backend) {
    assert_eq!(halt(b, all(3)).await, all(3));
    let restored = Restore::Dirty { record: record(2), version: version(9), behind: version(9), image: row(2) };
    open_with(b, false, vec![restored], Version::ZERO).await;
    // An opening puts back what was accepted.
    assert_eq!(read(b, record(2)).await, image_slot(version(9), row(2), true));
    assert_eq!(write(b, record(1), Precondition::None, row(1)).await, WriteOutcome::Halted);
    b.restart().await;
    assert_eq!(b.store().header(b.shard()).await.unwrap().halt, all(3));
    open_with(b, true, Vec::new(), Version::ZERO).await;
    assert_eq!(write(b, record(1), Precondition::None, row(1)).await, WriteOutcome::Halted);
}
