//! From where an opening reads each partition of its shard.

use std::collections::BTreeMap;

use event_log::{Committed, LogReader, Progress, TopicPartition};
use hot_store::{Claim, LogPoint, OpeningStart};
use model::{Epoch, Shard, Topic};
use planted::Bug;

use super::OpeningError;

/// What the log says about one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Partition {
    /// The first offset that the log still has.
    pub(super) low: i64,
    /// The offset of the next record to come.
    pub(super) high: i64,
    /// What the drain group has committed.
    pub(super) committed: Option<Committed>,
}

/// Asks the log about the shard's partition of each topic.
pub(super) async fn ask<L: LogReader>(
    log: &L,
    topics: &[Topic],
    shard: Shard,
) -> Result<BTreeMap<Topic, Partition>, OpeningError> {
    let partitions: Vec<_> =
        topics.iter().map(|topic| TopicPartition { topic: topic.clone(), partition: shard.0 }).collect();
    let bounds = log.bounds(&partitions).await?;
    let committed = log.committed(&partitions).await?;
    let got = bounds.len().min(committed.len());
    if got < topics.len() {
        return Err(OpeningError::Incomplete { asked: topics.len(), got });
    }
    let answers = bounds.into_iter().zip(committed).map(|((low, high), committed)| Partition { low, high, committed });
    Ok(topics.iter().cloned().zip(answers).collect())
}

/// Chooses the start. An earlier opener's start wins; then the surviving checkpoint; if there is none, or one that
/// the log does not reach, what the store holds can't be trusted and all that the drain has not committed is
/// read, with the request window before it. Of the store only what was dirty counts then, as one more source beside the
/// log ([`super::aside`]).
///
/// With a surviving checkpoint nothing before it need be read: what the log held then was in the store that holds the
/// checkpoint. So its records, and its requests, are there at least as new. Some of those records may be dirty though
/// the drain has passed them, if the mark clean was lost with the store's tail. They can stay so: a row that is newer
/// than such an image comes from an event behind the checkpoint, which is read and compared; so what the store shows is
/// the newest, and the relay produces it again, for the drain to mark it once more.
pub(super) fn choose(claim: &Claim, partitions: &BTreeMap<Topic, Partition>) -> OpeningStart {
    let (known, discard) = match (&claim.resumed, &claim.checkpoint) {
        // What the store held was dropped already, if it had to be; what was put back since is of this opening.
        (Some(start), _) => (&start.points, start.discard),
        (None, Some(_)) if planted::is(Bug::OpenFromCommitted) => {
            let points = partitions.iter().map(|(topic, at)| {
                let done = at.committed.map_or(Progress { offset: at.low, epoch: Epoch::ZERO }, |c| c.done);
                (topic.clone(), LogPoint { offset: done.offset, epoch: done.epoch })
            });
            return OpeningStart { points: points.collect(), discard: false };
        }
        (None, Some(checkpoint)) => (&checkpoint.0, false),
        (None, None) => return from_committed(partitions),
    };
    let points: Option<BTreeMap<_, _>> =
        partitions.iter().map(|(topic, at)| Some((topic.clone(), reachable(known.get(topic), *at)?))).collect();
    match points {
        Some(points) => OpeningStart { points, discard },
        None => from_committed(partitions),
    }
}

/// The point, if the log still reaches it. A topic without one was made later than the checkpoint, so all of it is
/// to be read.
fn reachable(point: Option<&LogPoint>, Partition { low, high, .. }: Partition) -> Option<LogPoint> {
    match point {
        Some(point) => (low..=high).contains(&point.offset).then_some(*point),
        None => (low == 0).then_some(LogPoint { offset: 0, epoch: Epoch::ZERO }),
    }
}

fn from_committed(partitions: &BTreeMap<Topic, Partition>) -> OpeningStart {
    let points = partitions.iter().map(|(topic, at)| {
        let point = match at.committed {
            Some(Committed { done, window }) if at.holds(done) => {
                // A window whose beginning is gone can't be read: which epoch is in force behind it is not known.
                let from = if at.holds(window) && window.offset <= done.offset { window } else { done };
                LogPoint { offset: from.offset, epoch: from.epoch }
            }
            _ => {
                if is_gap(*at) {
                    tracing::error!(
                        %topic,
                        first_offset = at.low,
                        committed = at.committed.map(|committed| committed.done.offset),
                        "the event log has deleted records before they were drained: raise its retention"
                    );
                }
                LogPoint {
                    offset: at.low,
                    // What is in the log was written later than what was committed, also if it is another log: at
                    // least the epoch of the commit is in force.
                    epoch: at.committed.map_or(Epoch::ZERO, |committed| committed.done.epoch),
                }
            }
        };
        (topic.clone(), point)
    });
    OpeningStart { points: points.collect(), discard: true }
}

impl Partition {
    fn holds(self, progress: Progress) -> bool {
        (self.low..=self.high).contains(&progress.offset)
    }
}

/// From which offset on records are put back. Before it lies the request window: there only the requests are, since a
/// store that begins empty lacks nothing that the drain has committed. A store that kept what it had may hold a record
/// that is older than what was drained, so there everything counts; and so does it after an opener that died half-way,
/// whatever was committed since.
pub(super) fn records_from(claim: &Claim, start: &OpeningStart, topic: &Topic, at: &Partition) -> i64 {
    let from = start.points.get(topic).map_or(at.low, |point| point.offset);
    match at.committed {
        Some(Committed { done, .. }) if start.discard && claim.resumed.is_none() && at.holds(done) => {
            done.offset.max(from)
        }
        _ => from,
    }
}

/// See [`Bug::StartNotStored`].
pub(super) fn at_the_end(start: &OpeningStart, partitions: &BTreeMap<Topic, Partition>) -> OpeningStart {
    let end = |(topic, point): (&Topic, &LogPoint)| {
        let offset = partitions.get(topic).map_or(point.offset, |at| at.high);
        (topic.clone(), LogPoint { offset, ..*point })
    };
    OpeningStart { points: start.points.iter().map(end).collect(), ..*start }
}

/// Whether records are gone that were never drained.
fn is_gap(at: Partition) -> bool {
    at.low > at.committed.map_or(0, |committed| committed.done.offset)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use hot_store::Checkpoint;

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    /// Topic, offset, epoch.
    type Points<'a> = &'a [(&'a str, i64, u32)];
    /// Topic, first offset, end, what is committed.
    type Log<'a> = &'a [(&'a str, i64, i64, Option<(i64, u32)>)];

    fn points(of: Points<'_>) -> BTreeMap<Topic, LogPoint> {
        of.iter().map(|(t, offset, epoch)| (topic(t), LogPoint { offset: *offset, epoch: Epoch(*epoch) })).collect()
    }

    fn log(of: Log<'_>) -> BTreeMap<Topic, Partition> {
        of.iter()
            .map(|(t, low, high, committed)| {
                let committed = committed.map(|(offset, epoch)| {
                    let done = Progress { offset, epoch: Epoch(epoch) };
                    Committed { done, window: done }
                });
                (topic(t), Partition { low: *low, high: *high, committed })
            })
            .collect()
    }

    fn claim(checkpoint: Option<Points<'_>>, resumed: Option<(Points<'_>, bool)>) -> Claim {
        Claim {
            epoch: Epoch(3),
            checkpoint: checkpoint.map(|c| Checkpoint(points(c))),
            resumed: resumed.map(|(p, discard)| OpeningStart { points: points(p), discard }),
        }
    }

    fn start(of: Points<'_>, discard: bool) -> OpeningStart {
        OpeningStart { points: points(of), discard }
    }

    #[test]
    fn a_surviving_checkpoint_says_where_to_begin() {
        let log = log(&[("a", 2, 9, Some((3, 1))), ("b", 0, 4, None)]);
        assert_eq!(
            choose(&claim(Some(&[("a", 5, 3), ("b", 4, 2)]), None), &log),
            start(&[("a", 5, 3), ("b", 4, 2)], false)
        );
        // A topic that is younger than the checkpoint is read from its beginning, one that is gone is left out.
        assert_eq!(
            choose(&claim(Some(&[("a", 2, 3), ("x", 1, 1)]), None), &log),
            start(&[("a", 2, 3), ("b", 0, 0)], false)
        );
    }

    #[test]
    fn an_earlier_opener_s_start_wins() {
        let log = log(&[("a", 0, 9, Some((7, 2)))]);
        let resumed: Points<'_> = &[("a", 1, 1)];
        assert_eq!(choose(&claim(Some(&[("a", 5, 3)]), Some((resumed, true))), &log), start(&[("a", 1, 1)], true));
        assert_eq!(choose(&claim(None, Some((resumed, false))), &log), start(&[("a", 1, 1)], false));
    }

    #[test]
    fn without_a_checkpoint_everything_uncommitted_is_read() {
        let log = log(&[("a", 2, 9, Some((3, 1))), ("b", 0, 4, None)]);
        assert_eq!(choose(&claim(None, None), &log), start(&[("a", 3, 1), ("b", 0, 0)], true));
    }

    #[test]
    fn a_checkpoint_that_the_log_does_not_reach_counts_as_none() {
        // Trimmed beyond it.
        let trimmed = log(&[("a", 6, 9, Some((7, 2)))]);
        assert_eq!(choose(&claim(Some(&[("a", 5, 3)]), None), &trimmed), start(&[("a", 7, 2)], true));
        // Another log than the one that was checkpointed.
        let shorter = log(&[("a", 0, 4, Some((4, 2)))]);
        assert_eq!(choose(&claim(Some(&[("a", 5, 3)]), None), &shorter), start(&[("a", 4, 2)], true));
        // A topic without a point that has lost its beginning takes the whole shard with it.
        let headless = log(&[("a", 0, 9, Some((6, 2))), ("b", 1, 4, Some((2, 2)))]);
        assert_eq!(choose(&claim(Some(&[("a", 5, 3)]), None), &headless), start(&[("a", 6, 2), ("b", 2, 2)], true));
    }

    #[test]
    fn a_commit_that_the_log_does_not_reach_begins_where_the_log_does() {
        assert_eq!(choose(&claim(None, None), &log(&[("a", 5, 9, Some((3, 2)))])), start(&[("a", 5, 2)], true));
        assert_eq!(choose(&claim(None, None), &log(&[("a", 0, 2, Some((3, 2)))])), start(&[("a", 0, 2)], true));
    }

    #[test]
    fn the_request_window_is_read_for_its_requests_only() {
        let at = |done: i64, window: i64| {
            let progress = |offset, epoch| Progress { offset, epoch: Epoch(epoch) };
            let committed = Some(Committed { done: progress(done, 2), window: progress(window, 1) });
            Partition { low: 2, high: 9, committed }
        };
        let begin = |at| {
            let partitions = BTreeMap::from([(topic("a"), at)]);
            let start = choose(&claim(None, None), &partitions);
            (start.points[&topic("a")], records_from(&claim(None, None), &start, &topic("a"), &at))
        };
        assert_eq!(begin(at(7, 4)), (LogPoint { offset: 4, epoch: Epoch(1) }, 7));
        // The log has lost the window's beginning.
        assert_eq!(begin(at(7, 1)), (LogPoint { offset: 7, epoch: Epoch(2) }, 7));
        // Another log than the one that was committed: everything counts that is not of an earlier epoch.
        assert_eq!(begin(at(10, 4)), (LogPoint { offset: 2, epoch: Epoch(2) }, 2));

        let points: Points<'_> = &[("a", 4, 1)];
        for discard in [true, false] {
            let resumed = claim(None, Some((points, discard)));
            assert_eq!(records_from(&resumed, &start(points, discard), &topic("a"), &at(7, 4)), 4);
        }
        // A store that kept what it had lacks what was drained since, too.
        assert_eq!(records_from(&claim(Some(points), None), &start(points, false), &topic("a"), &at(7, 4)), 4);
    }
}
