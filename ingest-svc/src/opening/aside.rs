//! What was dirty in a store that an opening discards: one more source beside the log.
//!
//! Where the log does not reach the checkpoint (it has lost its end in a power cut, or deleted what was not drained), the
//! clean images of the store may be older than their rows, and nobody can tell which. What is dirty is another matter:
//! there is little of it, the log may lack just that, and each record can be compared with its row as an event of the log
//! is. It is put back before anything of the log is, so that an event takes the place of what is older, and as unqueued, so
//! that the relay produces it under the new epoch. What was put back is aside no longer; who takes over goes on with the rest.

use std::collections::BTreeMap;

use database::Database;
use event_log::{EventPublisher, LogReader};
use hot_store::{Claim, HotStore, OpeningToken, Restore, SetAside};
use model::{Mutation, Namespace, Shard, Topic, Version};
use opentelemetry::global;
use planted::Bug;

use super::{
    OpeningError,
    restore::{MAX_CALL, Newest, Source, Stretch, put_back},
    start::Partition,
};
use crate::Core;

/// What was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// The highest version met.
    pub(super) seen: Version,
    /// Records that the database did not have.
    pub(super) kept: u64,
}

/// Puts back what was set aside. `why` says what the log has instead of the checkpoint.
pub(super) async fn restore<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    token: &OpeningToken,
    stretches: &[Stretch<'_>],
    why: impl FnOnce() -> String,
) -> Result<Tally, OpeningError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut tally = Tally::default();
    if planted::is(Bug::DirtyDiscarded) {
        return Ok(tally);
    }
    let mut why = Some(why);
    // What can't be read stays aside, and is passed over.
    let mut left = 0;
    loop {
        let page = core.hot.set_aside(shard, token, left, MAX_CALL).await?;
        left += page.unreadable;
        if (page.unreadable > 0 || !page.records.is_empty())
            && let Some(why) = why.take()
        {
            tracing::warn!(
                %shard, log = why(),
                "the log does not hold what it held when the hot store's checkpoint was taken: it has lost its end, or \
                 deleted what was not drained. What the store had for the database is compared with it and kept, the rest \
                 is dropped; an event that was only in the log is gone"
            );
        }
        let page_is_last = page.is_last;
        let sorted = Sorted::new(shard, stretches, page.records);
        left += sorted.unreadable;
        tally.seen = tally.seen.max(sorted.seen);
        // Neither requests nor what is dirty get this TTL.
        let no_ttl = core.options.hot_ttl.default;
        // First the requests: a record that was put back is not met again.
        core.hot.restore(shard, token, sorted.requests, no_ttl).await?;
        let mut kept = sorted.homeless.len() as u64;
        core.hot.restore(shard, token, sorted.homeless, no_ttl).await?;
        for (stretch, newest) in stretches.iter().zip(sorted.by_stretch) {
            kept += put_back(core, shard, token, stretch, Source::Aside, newest).await?;
        }
        count(kept);
        tally.kept += kept;
        if page_is_last {
            return Ok(tally);
        }
    }
}

/// A page of what was set aside, by what becomes of it.
struct Sorted {
    /// For each stretch, in their order.
    by_stretch: Vec<Vec<Newest>>,
    /// Records of tables that the catalog does not know: with nothing to compare them with they stay as they are, as in
    /// an opening that discards nothing; and the relay tells of them.
    homeless: Vec<Restore>,
    requests: Vec<Restore>,
    unreadable: u64,
    seen: Version,
}

impl Sorted {
    fn new(shard: Shard, stretches: &[Stretch<'_>], records: Vec<SetAside>) -> Self {
        let place = |(at, stretch): (usize, &Stretch<'_>)| (stretch.table.settings.namespace.clone(), at);
        let places: BTreeMap<Namespace, usize> = stretches.iter().enumerate().map(place).collect();
        let mut sorted = Self {
            by_stretch: stretches.iter().map(|_| Vec::new()).collect(),
            homeless: Vec::new(),
            requests: Vec::new(),
            unreadable: 0,
            seen: Version::ZERO,
        };
        for SetAside { record, version, behind, image } in records {
            sorted.seen = sorted.seen.max(version);
            if let Some(request) = image.request.clone().filter(|_| !planted::is(Bug::RequestsForgotten)) {
                sorted.requests.push(Restore::Request { namespace: record.namespace.clone(), request, version });
            }
            let Some(&at) = places.get(&record.namespace) else {
                sorted.homeless.push(Restore::Unqueued { record, version, behind, image });
                continue;
            };
            match record.key.decode() {
                Ok(key) => {
                    let table = stretches[at].table.schema.table.clone();
                    let mutation = Mutation { table, key, version, image };
                    sorted.by_stretch[at].push(Newest { mutation, lowest: behind });
                }
                Err(error) => {
                    sorted.unreadable += 1;
                    tracing::error!(%shard, %version, namespace = %record.namespace, %error, "the key of a record that the database does not have can't be read; it stays aside");
                }
            }
        }
        sorted
    }
}

/// What the log has, next to what the checkpoint names.
pub(super) fn log_beside(claim: &Claim, partitions: &BTreeMap<Topic, Partition>) -> String {
    let beside = |(topic, at): (&Topic, &Partition)| {
        let point = claim.checkpoint.as_ref().and_then(|checkpoint| checkpoint.0.get(topic));
        let point = point.map_or("none".to_owned(), |point| point.offset.to_string());
        format!("{topic}: checkpoint {point}, log {} to {}", at.low, at.high)
    };
    partitions.iter().map(beside).collect::<Vec<_>>().join("; ")
}

fn count(kept: u64) {
    let kept_by_openings = global::meter("shock_absorber.ingest")
        .u64_counter("shock_absorber.ingest.kept_without_checkpoint")
        .with_description(
            "records that the database did not have, kept by openings though the log did not reach the checkpoint",
        )
        .build();
    kept_by_openings.add(kept, &[]);
}
