//! Keeps the history while it happens.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use history::{History, Loss, Operation, Outcome, Sample, Span};

/// The values of rows that were there before us are below it.
const FIRST_VALUE: u64 = 1_000_000;

pub(crate) struct Recorder {
    begun: Instant,
    next: AtomicU64,
    history: Mutex<History>,
}

/// How often what came back.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) acked: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    pub(crate) reads: u64,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), next: AtomicU64::new(FIRST_VALUE), history: Mutex::default() }
    }

    /// Microseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX - 1)
    }

    /// A number that was never given before.
    pub(crate) fn unique(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn operation(&self, operation: Operation) {
        self.with(|history| history.operations.push(operation));
    }

    pub(crate) fn sample(&self, sample: Sample) {
        self.with(|history| history.samples.push(sample));
    }

    pub(crate) fn loss(&self, span: Span) {
        self.with(|history| history.losses.push(Loss { span }));
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut History) -> T) -> T {
        f(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was recorded since `from`; unsettled operations of earlier cycles are not counted again.
    pub(crate) fn tally(&self, from: u64) -> Tally {
        self.with(|history| {
            let mut tally = Tally::default();
            for operation in history.operations.iter().filter(|operation| operation.span.from >= from) {
                match operation.outcome {
                    Outcome::Acked { .. } => tally.acked += 1,
                    Outcome::Refused(_) => tally.refused += 1,
                    Outcome::Unknown => tally.unknown += 1,
                    Outcome::Read(_) => tally.reads += 1,
                }
            }
            tally
        })
    }
}
