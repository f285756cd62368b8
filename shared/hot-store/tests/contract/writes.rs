//! Writes: versions, preconditions, `since`.

use std::time::Duration;

use hot_store::{Dirty, Fill, HotStore, Precondition, Slot, Write, WriteOutcome};
use model::{Epoch, Image, Version};
use tokio::time::Instant;

use super::{Backend, kit::*};

pub async fn versions_rise_strictly_also_within_a_call(b: &impl Backend) {
    let epoch = open(b).await;
    let mut last = Version::ZERO;
    for _ in 0..3 {
        // The same record twice in one call, among others.
        let writes = [1, 2, 1, 3].map(|n| Write {
            record: record(n),
            precondition: Precondition::None,
            image: row(1),
            index: None,
        });
        for outcome in b.store().write(b.shard(), Instant::now(), writes.to_vec()).await.unwrap() {
            let WriteOutcome::Stored { version, epoch: written_in, since } = outcome else { panic!("{outcome:?}") };
            assert!(version > last, "{version} after {last}");
            assert_eq!((written_in, since), (epoch, None));
            last = version;
        }
        let header = b.store().header(b.shard()).await.unwrap();
        assert_eq!((header.clock, header.dirty, header.unqueued), (last, 3, 3));
    }
}

pub async fn versions_rise_when_the_clock_steps_back(b: &impl Backend) {
    // A shard whose clock stands in the year 2223, as seen from now: the wall clock is far behind.
    let far = version(8_000_000_000_000_000);
    open_with(b, false, Vec::new(), far).await;
    assert_eq!(put(b, record(1), row(1)).await.get(), far.get() + 1);
    assert_eq!(put(b, record(1), row(2)).await.get(), far.get() + 2);
    assert_eq!(read(b, record(1)).await, image_slot(version(far.get() + 2), row(2), true));
}

pub async fn an_image_reads_back_as_it_was_written(b: &impl Backend) {
    let epoch = open(b).await;
    let first = put(b, record(1), row(i64::MAX)).await;
    let second = put(b, record(2), tombstone()).await;
    let other_table = put(b, record_in("main.orders", 1), row(5)).await;
    let asked = vec![record(2), record(9), record(1), record_in("main.orders", 1)];
    let answer = b.store().read(b.shard(), asked).await.unwrap();
    assert_eq!(answer.epoch, epoch);
    assert_eq!(
        answer.slots,
        [
            image_slot(second, tombstone(), true),
            Slot::Empty,
            image_slot(first, row(i64::MAX), true),
            image_slot(other_table, row(5), true),
        ]
    );
    let nothing = b.store().read(b.shard(), Vec::new()).await.unwrap();
    assert_eq!((nothing.epoch, nothing.slots.len()), (epoch, 0));
}

pub async fn every_precondition_in_every_state(b: &impl Backend) {
    use Precondition as P;
    let epoch = open(b).await;
    let any_etag = P::At { version: version(1), epoch };
    let (ok, exists, missing, cold) = (None, WriteOutcome::Exists, WriteOutcome::Missing, WriteOutcome::Cold);
    // State, then what None, Absent, AbsentFromStore, Present and At come to.
    let table = [
        ("nothing", [ok, Some(cold), ok, Some(cold), Some(cold)]),
        ("leased", [ok, Some(cold), ok, Some(cold), Some(cold)]),
        ("absent", [ok, ok, ok, Some(missing), Some(missing)]),
        ("tombstone", [ok, ok, ok, Some(missing), Some(missing)]),
        ("row", [ok, Some(exists), Some(exists), ok, Some(WriteOutcome::Changed)]),
    ];
    let mut number = 0;
    for (state, expected) in table {
        let preconditions = [P::None, P::Absent, P::AbsentFromStore, P::Present, any_etag];
        for (precondition, expected) in preconditions.into_iter().zip(expected) {
            number += 1;
            let id = record(number);
            match state {
                "leased" => drop(lease(b, id.clone(), LONG).await),
                "absent" => {
                    let token = lease(b, id.clone(), LONG).await;
                    assert!(fill(b, id.clone(), token, Fill::Absent, LONG).await);
                }
                "tombstone" => drop(put(b, id.clone(), tombstone()).await),
                "row" => drop(put(b, id.clone(), row(1)).await),
                _ => {}
            }
            let before = (read(b, id.clone()).await, b.store().header(b.shard()).await.unwrap());
            let outcome = write(b, id.clone(), precondition, row(2)).await;
            let after = (read(b, id).await, b.store().header(b.shard()).await.unwrap());
            match expected {
                None => {
                    let new = stored(outcome);
                    assert!(
                        matches!(after.0, Slot::Image { version, .. } if version == new),
                        "{state} {precondition:?}"
                    );
                }
                Some(refused) => {
                    assert_eq!(outcome, refused, "{state} {precondition:?}");
                    assert_eq!(after, before, "{state} {precondition:?}");
                }
            }
        }
    }
}

pub async fn an_etag_names_version_and_epoch(b: &impl Backend) {
    let epoch = open(b).await;
    let first = put(b, record(1), row(1)).await;
    let at = |version, epoch| Precondition::At { version, epoch };
    let second = stored(write(b, record(1), at(first, epoch), row(2)).await);
    assert_eq!(write(b, record(1), at(first, epoch), row(3)).await, WriteOutcome::Changed);
    assert_eq!(write(b, record(1), at(second, Epoch(epoch.0 + 1)), row(3)).await, WriteOutcome::Changed);
    assert_eq!(read(b, record(1)).await, image_slot(second, row(2), true));
}

pub async fn later_writes_of_a_call_see_earlier_ones(b: &impl Backend) {
    open(b).await;
    let steps = [
        (Precondition::Present, row(0)),
        (Precondition::AbsentFromStore, row(1)),
        (Precondition::AbsentFromStore, row(2)),
        (Precondition::Present, tombstone()),
        (Precondition::Present, row(3)),
        (Precondition::Absent, row(4)),
    ];
    let writes = steps.map(|(precondition, image)| Write { record: record(1), precondition, image, index: None });
    let outcomes = b.store().write(b.shard(), Instant::now(), writes.to_vec()).await.unwrap();
    assert_eq!(
        [outcomes[0], outcomes[2], outcomes[4]],
        [WriteOutcome::Cold, WriteOutcome::Exists, WriteOutcome::Missing]
    );
    let created = stored(outcomes[1]);
    let last = stored(outcomes[5]);
    let image = Image { since: Some(created), ..row(4) };
    assert_eq!(read(b, record(1)).await, image_slot(last, image, true));
    assert_eq!(dirty(b, Dirty::All).await, [last]);
}

pub async fn a_create_that_asked_only_the_store_carries_since_until_it_is_clean(b: &impl Backend) {
    open(b).await;
    let outcome = write(b, record(1), Precondition::AbsentFromStore, row(1)).await;
    let created = stored(outcome);
    assert!(matches!(outcome, WriteOutcome::Stored { since, .. } if since == Some(created)), "{outcome:?}");
    let with_since = |image: Image| Image { since: Some(created), ..image };

    // Every later event of the key carries it, whatever it is, and whatever the caller put there.
    let caller_says = Image { since: Some(version(5)), ..row(2) };
    let outcome = write(b, record(1), Precondition::None, caller_says).await;
    assert!(matches!(outcome, WriteOutcome::Stored { since, .. } if since == Some(created)), "{outcome:?}");
    assert_eq!(read(b, record(1)).await, image_slot(stored(outcome), with_since(row(2)), true));
    let deleted = put(b, record(1), tombstone()).await;
    let (_, listed) = b.store().dirty(b.shard(), Dirty::Unqueued, Version::ZERO, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].version, &listed[0].image), (deleted, &with_since(tombstone())));

    // A create after that delete hangs on the first create still: the delete may be coalesced away.
    let outcome = write(b, record(1), Precondition::AbsentFromStore, row(3)).await;
    assert!(matches!(outcome, WriteOutcome::Stored { since, .. } if since == Some(created)), "{outcome:?}");

    // Once the database has it, the key is a key like any other.
    mark_clean(b, record(1), stored(outcome), LONG).await;
    assert_eq!(read(b, record(1)).await, image_slot(stored(outcome), row(3), false));
    let outcome = write(b, record(1), Precondition::None, row(4)).await;
    assert!(matches!(outcome, WriteOutcome::Stored { since: None, .. }), "{outcome:?}");
}

pub async fn a_create_over_a_known_dirty_delete_carries_no_since_of_its_own(b: &impl Backend) {
    open(b).await;
    // The database may hold the row still, and the delete may be coalesced away: with a `since` of its own, the create
    // would end among the dead letters.
    put(b, record(1), row(1)).await;
    put(b, record(1), tombstone()).await;
    let outcome = write(b, record(1), Precondition::AbsentFromStore, row(2)).await;
    assert!(matches!(outcome, WriteOutcome::Stored { since: None, .. }), "{outcome:?}");

    // Over a delete that the database has, it is a create like any other.
    let deleted = put(b, record(2), tombstone()).await;
    mark_clean(b, record(2), deleted, LONG).await;
    let outcome = write(b, record(2), Precondition::AbsentFromStore, row(2)).await;
    let created = stored(outcome);
    assert!(matches!(outcome, WriteOutcome::Stored { since, .. } if since == Some(created)), "{outcome:?}");
}

pub async fn what_is_dirty_never_expires(b: &impl Backend) {
    open(b).await;
    let soon = Duration::from_millis(60);
    for number in [1, 2] {
        let version = put(b, record(number), row(1)).await;
        mark_clean(b, record(number), version, soon).await;
    }
    // The write takes the TTL away that the clean record had.
    let again = put(b, record(1), row(2)).await;
    eventually("the clean record expires", async || read(b, record(2)).await == Slot::Empty).await;
    assert_eq!(read(b, record(1)).await, image_slot(again, row(2), true));
}

pub async fn many_records_in_one_call(b: &impl Backend) {
    open(b).await;
    let count = 2500;
    let writes = |precondition| -> Vec<Write> {
        (0..count).map(|n| Write { record: record(n), precondition, image: row(i64::from(n)), index: None }).collect()
    };
    let outcomes = b.store().write(b.shard(), Instant::now(), writes(Precondition::None)).await.unwrap();
    let versions: Vec<Version> = outcomes.into_iter().map(stored).collect();
    assert!(versions.is_sorted_by(|a, b| a < b) && versions.len() == count as usize);
    let answer = b.store().read(b.shard(), (0..count).map(record).collect()).await.unwrap();
    for (n, slot) in (0..).zip(answer.slots) {
        assert_eq!(slot, image_slot(versions[n], row(n as i64), true));
    }
    let refused = b.store().write(b.shard(), Instant::now(), writes(Precondition::Absent)).await.unwrap();
    assert!(refused.iter().all(|outcome| *outcome == WriteOutcome::Exists));
}
