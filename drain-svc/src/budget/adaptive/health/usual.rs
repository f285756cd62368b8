//! What a transaction takes at best, by its table and size.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included},
    sync::Arc,
};

use model::TableRef;
use tokio::time::Instant;

/// Durations below it are all the same.
const NOISE: f64 = 0.002;
/// Transactions of one kind from which is learned at once, so that chance has no say; and a part of the first lesson, for
/// then any knowledge is better than none.
const LESSON: usize = 32;
const FIRST_LESSON: usize = 8;
/// How much of the way it follows what gets quicker, at each lesson.
const QUICKER: f64 = 0.05;
/// It doubles in so long, in seconds, if everything of this kind takes longer.
const DOUBLES: f64 = 8.0 * 3600.0;
/// The longest time between two lessons for which it rises.
const LONGEST_GAP: f64 = 10.0;
/// Kinds per octave of rows.
const KINDS_PER_OCTAVE: f64 = 4.0;

/// What transactions have in common that take about as long.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    table: Arc<TableRef>,
    rows: f64,
}

/// What each kind takes, in seconds.
#[derive(Debug, Default)]
pub(super) struct Usual(BTreeMap<(Arc<TableRef>, u32), OfKind>);

#[derive(Debug)]
struct OfKind {
    seconds: Option<f64>,
    lesson: Vec<f64>,
    lessons: u32,
    learned: Instant,
}

impl Kind {
    pub(super) fn new(table: &Arc<TableRef>, rows: usize) -> Self {
        Self { table: table.clone(), rows: rows.max(1) as f64 }
    }

    fn key(&self) -> (Arc<TableRef>, u32) {
        (self.table.clone(), (self.rows.log2() * KINDS_PER_OCTAVE) as u32)
    }
}

impl Usual {
    /// How many times as long as usual it takes.
    pub(super) fn ratio(&self, kind: &Kind, took: f64) -> Option<f64> {
        let usual = self.of(kind)?;
        Some(took.max(NOISE) / usual.max(NOISE))
    }

    /// What such a transaction usually takes.
    fn of(&self, kind: &Kind) -> Option<f64> {
        let key = kind.key();
        let known = self.0.get(&key).and_then(|usual| usual.seconds);
        known.or_else(|| self.like(&key))
    }

    /// By the row as long as a smaller one of the table, or as long as a larger one.
    fn like(&self, key: &(Arc<TableRef>, u32)) -> Option<f64> {
        let of_table = |(at, usual): (&(Arc<TableRef>, u32), &OfKind)| Some((at.1, usual.seconds?));
        let lowest = (key.0.clone(), 0);
        let smaller = self.0.range(lowest..key.clone()).rev().find_map(of_table);
        let larger = || self.0.range((Excluded(key.clone()), Included((key.0.clone(), u32::MAX)))).find_map(of_table);
        match smaller {
            Some((size, seconds)) => Some(seconds * (f64::from(key.1 - size) / KINDS_PER_OCTAVE).exp2()),
            None => larger().map(|(_, seconds)| seconds),
        }
    }

    /// Learns from one that ended, while all of them take `strain` times as long. What takes longer is only followed while
    /// nothing is wrong.
    pub(super) fn learn(&mut self, kind: &Kind, took: f64, strain: f64, is_well: bool, now: Instant) {
        let key = kind.key();
        let like = self.like(&key);
        let fresh = || OfKind { seconds: None, lesson: Vec::with_capacity(LESSON), lessons: 0, learned: now };
        let usual = self.0.entry(key).or_insert_with(fresh);
        let is_first = usual.lessons == 0;
        usual.lesson.push(if is_first { took / strain } else { took });
        let count = usual.lesson.len();
        if count < LESSON && !(is_first && count.is_multiple_of(FIRST_LESSON)) {
            return;
        }
        let Some(middle) = median(&mut usual.lesson) else { return };
        let passed = now.saturating_duration_since(usual.learned).as_secs_f64().min(LONGEST_GAP);
        usual.seconds = Some(match usual.seconds.filter(|_| !is_first) {
            None => like.unwrap_or(f64::INFINITY).min(middle),
            Some(seconds) if middle < seconds => seconds + (middle - seconds) * QUICKER,
            Some(seconds) if is_well => middle.min(seconds * (passed / DOUBLES).exp2()),
            Some(seconds) => seconds,
        });
        if count == LESSON {
            usual.lesson.clear();
            usual.lessons = usual.lessons.saturating_add(1);
            usual.learned = now;
        }
    }
}

/// The one in the middle; sorts them.
pub(super) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
