//! Leases and fills.

use std::time::Duration;

use hot_store::{Fill, HotStore, LeaseOutcome, LeaseToken, Precondition, Slot};
use model::Version;

use super::{Backend, kit::*};

fn from_database(number: u64, value: i64) -> Fill {
    Fill::Image { version: version(number), image: row(value) }
}

pub async fn one_reader_gets_the_lease_and_fills(b: &impl Backend) {
    open(b).await;
    let token = lease(b, record(1), LONG).await;
    assert_eq!(read(b, record(1)).await, Slot::Leased);
    let second = b.store().lease(b.shard(), record(1), LONG).await.unwrap();
    assert_eq!(second, LeaseOutcome::Taken(Slot::Leased));
    let other = LeaseToken("somebody else's".to_owned());
    assert!(!fill(b, record(1), other, from_database(5, 5), LONG).await);
    assert!(fill(b, record(1), token.clone(), from_database(5, 5), LONG).await);
    assert_eq!(read(b, record(1)).await, image_slot(version(5), row(5), false));
    assert!(!fill(b, record(1), token, from_database(6, 6), LONG).await, "a lease is good for one fill");
    let header = b.store().header(b.shard()).await.unwrap();
    assert_eq!((header.dirty, header.unqueued), (0, 0));
}

pub async fn a_write_breaks_the_lease(b: &impl Backend) {
    open(b).await;
    let token = lease(b, record(1), LONG).await;
    let written = put(b, record(1), row(1)).await;
    assert!(!fill(b, record(1), token, from_database(5, 5), LONG).await);
    assert_eq!(read(b, record(1)).await, image_slot(written, row(1), true));
}

pub async fn a_lease_that_is_given_back_is_somebody_else_s(b: &impl Backend) {
    open(b).await;
    let token = lease(b, record(1), LONG).await;
    let other = LeaseToken("somebody else's".to_owned());
    assert!(!fill(b, record(1), other, Fill::Nothing, LONG).await);
    assert_eq!(read(b, record(1)).await, Slot::Leased);
    assert!(fill(b, record(1), token.clone(), Fill::Nothing, LONG).await);
    assert_eq!(read(b, record(1)).await, Slot::Empty);
    let second = lease(b, record(1), LONG).await;
    assert!(!fill(b, record(1), token, Fill::Nothing, LONG).await, "it is not the first one's any more");
    let written = put(b, record(1), row(1)).await;
    assert!(!fill(b, record(1), second, Fill::Nothing, LONG).await);
    assert_eq!(read(b, record(1)).await, image_slot(written, row(1), true));
}

pub async fn a_lease_expires_and_the_slow_fill_is_refused(b: &impl Backend) {
    open(b).await;
    let slow = lease(b, record(1), Duration::from_millis(60)).await;
    eventually("the lease expires", async || read(b, record(1)).await == Slot::Empty).await;
    assert!(!fill(b, record(1), slow.clone(), from_database(5, 5), LONG).await);
    let second = lease(b, record(1), LONG).await;
    assert_ne!(slow, second);
    assert!(!fill(b, record(1), slow, from_database(5, 5), LONG).await);
    assert!(fill(b, record(1), second, from_database(6, 6), Duration::from_millis(60)).await);
    assert_eq!(read(b, record(1)).await, image_slot(version(6), row(6), false));
    eventually("what was filled expires", async || read(b, record(1)).await == Slot::Empty).await;
}

pub async fn an_absence_is_remembered_for_a_while(b: &impl Backend) {
    open(b).await;
    let token = lease(b, record(1), LONG).await;
    assert!(fill(b, record(1), token, Fill::Absent, Duration::from_millis(60)).await);
    assert_eq!(read(b, record(1)).await, Slot::Absent);
    let taken = b.store().lease(b.shard(), record(1), LONG).await.unwrap();
    assert_eq!(taken, LeaseOutcome::Taken(Slot::Absent));
    eventually("the absence is forgotten", async || read(b, record(1)).await == Slot::Empty).await;
}

pub async fn what_is_there_is_taken(b: &impl Backend) {
    open(b).await;
    let dirty = put(b, record(1), row(1)).await;
    let clean = put(b, record(2), tombstone()).await;
    mark_clean(b, record(2), clean, LONG).await;
    let expected = [image_slot(dirty, row(1), true), image_slot(clean, tombstone(), false)];
    for (number, slot) in (1..).zip(expected) {
        let outcome = b.store().lease(b.shard(), record(number), LONG).await.unwrap();
        assert_eq!(outcome, LeaseOutcome::Taken(slot));
    }
}

pub async fn a_row_from_before_us_can_be_filled_and_named_by_an_etag(b: &impl Backend) {
    let epoch = open(b).await;
    let token = lease(b, record(1), LONG).await;
    assert!(fill(b, record(1), token, from_database(0, 1), LONG).await);
    assert_eq!(read(b, record(1)).await, image_slot(Version::ZERO, row(1), false));
    let etag = Precondition::At { version: Version::ZERO, epoch };
    let written = stored(write(b, record(1), etag, row(2)).await);
    assert_eq!(read(b, record(1)).await, image_slot(written, row(2), true));
}
