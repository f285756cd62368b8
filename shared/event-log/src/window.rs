//! What was committed of a partition one request window ago.
//!
//! Whoever rebuilds the hot store from the log has to put the requests of the last while back, also those of records
//! that were drained long ago. So with each commit goes an earlier one that is at least a window old. It is kept here, on
//! tokio's clock, and inherited with the partition; no clocks are compared between processes.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::log::{Committed, Progress};

/// Commits that follow each other closer than this part of the window are one; by so much the window may be longer.
const PARTS: u32 = 64;

#[derive(Debug)]
struct Stretch {
    began: Instant,
    /// When `progress` was known to be committed.
    ended: Instant,
    progress: Progress,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Window {
    length: Duration,
    /// At least a window old, or the earliest that is known.
    oldest: Progress,
    younger: VecDeque<Stretch>,
}

impl Window {
    /// Takes over what was committed by others, nobody knows when. Without a commit the log's beginning is the earliest
    /// that is known.
    pub(crate) fn inherit(length: Duration, committed: Option<Committed>, first_offset: i64, now: Instant) -> Self {
        let beginning = Progress { offset: first_offset, ..Progress::BEGINNING };
        let mut window = Self { length, oldest: committed.map_or(beginning, |c| c.window), younger: VecDeque::new() };
        if let Some(committed) = committed {
            window.push(committed.done, now);
        }
        window
    }

    /// Progress was committed.
    pub(crate) fn push(&mut self, progress: Progress, now: Instant) {
        self.settle(now);
        match self.younger.back_mut() {
            Some(last) if now.saturating_duration_since(last.began) < self.length / PARTS => {
                last.ended = now;
                last.progress = progress;
            }
            _ => self.younger.push_back(Stretch { began: now, ended: now, progress }),
        }
    }

    /// What goes with a commit now.
    pub(crate) fn behind(&mut self, done: Progress, now: Instant) -> Progress {
        // Not even what is committed by this.
        if self.length.is_zero() { done } else { self.at(now) }
    }

    /// What was committed at least a window ago.
    fn at(&mut self, now: Instant) -> Progress {
        self.settle(now);
        self.oldest
    }

    fn settle(&mut self, now: Instant) {
        while let Some(next) = self.younger.front()
            && now.saturating_duration_since(next.ended) >= self.length
        {
            self.oldest = next.progress;
            self.younger.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Epoch;
    use proptest::prelude::*;

    use super::*;

    fn at(offset: i64) -> Progress {
        Progress { offset, epoch: Epoch(1) }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_commit_enters_after_a_whole_window() {
        let start = Instant::now();
        let mut window = Window::inherit(secs(120), None, 0, start);
        assert_eq!(window.at(start), Progress::BEGINNING);
        window.push(at(5), start + secs(10));
        window.push(at(9), start + secs(20));
        assert_eq!(window.at(start + secs(129)), Progress::BEGINNING);
        assert_eq!(window.at(start + secs(130)), at(5));
        assert_eq!(window.at(start + secs(139)), at(5));
        assert_eq!(window.at(start + secs(140)), at(9));
    }

    #[test]
    fn what_was_inherited_counts_from_the_assignment_on() {
        let start = Instant::now();
        let committed = Committed { done: at(50), window: at(20) };
        let mut window = Window::inherit(secs(120), Some(committed), 0, start);
        assert_eq!(window.at(start + secs(119)), at(20));
        assert_eq!(window.at(start + secs(120)), at(50));
    }

    proptest! {
        #[test]
        fn it_is_never_too_short_seldom_too_long_and_bounded(
            steps in prop::collection::vec(0u64..2_000, 1..400)
        ) {
            let length = secs(64);
            let start = Instant::now();
            let mut window = Window::inherit(length, None, 0, start);
            let mut commits = vec![(start, Progress::BEGINNING)];
            let mut now = start;
            for (offset, millis) in (1..).zip(steps) {
                now += Duration::from_millis(millis);
                window.push(at(offset), now);
                commits.push((now, at(offset)));
                let got = window.at(now).offset;
                let newest_before = |age: Duration| {
                    let old = commits.iter().filter(|(time, _)| now.duration_since(*time) >= age);
                    old.map(|(_, progress)| progress.offset).max().unwrap_or(0)
                };
                prop_assert!(got <= newest_before(length), "{} is too young", got);
                prop_assert!(got >= newest_before(length + secs(1)), "{} is too old", got);
                prop_assert!(window.younger.len() <= 66);
            }
        }
    }
}
