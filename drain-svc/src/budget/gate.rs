//! The gate before a table's transactions.

use std::{sync::Arc, time::Duration};

use database::DatabaseError;
use hot_store::{Budget, Grant, HotStoreError, Permit, PermitId};
use model::{Chance, TableRef};
use tokio::{
    sync::{Mutex, Semaphore, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    adaptive::is_trouble,
    batch_size::{BatchSize, SizeBounds},
    cap::Cap,
    ledger::{self, Leave, Ledger},
    rates::{GRANTED_AND_UNFINISHED, Rates},
};
use crate::backoff::Backoff;

/// How soon the store is asked again at the earliest after it has said when there will be room, and how often while nobody
/// can say so.
const ASK_SOONEST_AFTER: Duration = Duration::from_millis(1);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How much later than the others a replica asks that was served last, at most.
const COURTESY: Duration = Duration::from_millis(5);

/// From the end of a batch until the next one of its lane is granted.
const ASKED_WITHIN: Duration = Duration::from_millis(5);
/// As long as a batch may take: then it is as large as can be.
const LONGEST_TIME: Duration = Duration::from_secs(1);

/// Leave to write so many rows now, until what it holds is dropped.
pub(crate) struct Granted {
    pub(crate) rows: usize,
    /// Without a limit there is none.
    pub(crate) leave: Option<Leave>,
}

/// Lets batches of one table pass, no faster than its limits over all replicas.
pub(crate) struct Gate<B> {
    table: TableRef,
    size: BatchSize,
    rates: watch::Sender<Rates>,
    budget: Arc<B>,
    chance: Chance,
    backoff: Backoff,
    /// What this process may have unfinished by itself, also while the store knows nothing of that.
    places: Arc<Semaphore>,
    ledger: Arc<Ledger>,
    /// One batch of this process asks at a time, in the order in which they came.
    turn: Mutex<Turn>,
    /// One call to the store is under way at a time, so that none overtakes another.
    line: Mutex<()>,
}

/// What one asker leaves to the next.
struct Turn {
    /// When it makes sense to ask.
    ready: Instant,
    cap: Cap,
    /// The limits that the cap was made for: what varies with the health of the database is not capped here, or each
    /// change would let the cap begin anew.
    capped: Rates,
    /// Those of the last question.
    rates: Rates,
}

impl<B: Budget> Gate<B> {
    /// A gate for batches of such sizes.
    pub(crate) fn new(
        table: TableRef,
        rates: Rates,
        sizes: SizeBounds,
        budget: Arc<B>,
        chance: Chance,
        backoff: Backoff,
    ) -> Self {
        let (capped, size) = (rates.ceiling(), BatchSize::new(sizes));
        let cap = Cap::new(capped.rows_per_second(), capped.batch_rows(size.most(), LONGEST_TIME));
        Self {
            table,
            size,
            rates: watch::Sender::new(rates),
            budget,
            chance,
            backoff,
            places: Arc::new(Semaphore::new(GRANTED_AND_UNFINISHED as usize)),
            ledger: Arc::default(),
            turn: Mutex::new(Turn { ready: Instant::now(), cap, capped, rates }),
            line: Mutex::default(),
        }
    }

    /// The limits in force.
    pub(crate) fn rates(&self) -> Rates {
        *self.rates.borrow()
    }

    /// Puts other limits in force, also for who waits already; `false` if they are no others.
    pub(crate) fn set_rates(&self, rates: Rates) -> bool {
        self.rates.send_if_modified(|current| std::mem::replace(current, rates) != rates)
    }

    /// Rows of one batch, at most.
    pub(crate) fn batch_rows(&self) -> usize {
        self.batch_rows_at(&self.rates())
    }

    fn batch_rows_at(&self, rates: &Rates) -> usize {
        rates.batch_rows(self.size.rows(), self.ledger.takes() + ASKED_WITHIN)
    }

    /// A transaction of so many rows took so long: what follows for the size of the next ones.
    pub(crate) fn ended<T>(&self, rows: usize, took: Duration, outcome: &Result<T, DatabaseError>) {
        match outcome {
            Ok(_) => self.size.succeeded(rows, took),
            Err(error) if is_trouble(error) => self.size.failed(rows),
            Err(_) => {}
        }
    }

    /// Waits until a batch may be written. `rows` says how many rows it would have; it is asked again whenever the
    /// store is, for what waits grows (or goes to another owner) meanwhile. Cancel-safe.
    pub(crate) async fn pass(&self, rows: impl Fn() -> usize) -> Granted {
        let mut changes = self.rates.subscribe();
        if self.rates().is_free() {
            return Granted { rows: rows(), leave: None };
        }
        // The semaphore is never closed.
        let mut place = self.places.clone().acquire_owned().await.ok();
        let mut turn = self.turn.lock().await;
        let id = PermitId(self.chance.token());
        let mut backoff = self.backoff.clone();
        loop {
            let rates = *changes.borrow_and_update();
            turn.follow(rates, self.size.most());
            let wanted = u32::try_from(rows().min(self.batch_rows_at(&rates))).unwrap_or(u32::MAX);
            if wanted == 0 || rates.is_free() {
                return Granted { rows: wanted as usize, leave: None };
            }
            if rates.is_closed() {
                // The sender is this gate's own.
                let _ = changes.changed().await;
                continue;
            }
            if Instant::now() < turn.ready {
                self.ledger.asks_at(Some(turn.ready));
                tokio::select! {
                    biased;
                    _ = changes.changed() => turn.ready = Instant::now(),
                    () = time::sleep_until(turn.ready) => {}
                }
                continue;
            }
            let permit = Permit { id, rows: wanted };
            let leave = self.ledger.begin(permit, place.take());
            let answer = self.ask(&rates, permit).await;
            self.ledger.asks_at(None);
            match answer {
                Ok(Grant::Now(next)) => {
                    if backoff.failures() > 0 {
                        tracing::info!(table = %self.table, "the hot store grants the drain's budget again");
                    }
                    turn.ready = Instant::now() + next + (next / 10).min(COURTESY);
                    turn.cap.pass(wanted).await;
                    return Granted { rows: wanted as usize, leave: Some(leave) };
                }
                Ok(Grant::After(wait)) => {
                    place = leave.refused();
                    // Not all at once, or the one that is nearest to the store would always be the first.
                    let spread = wait.min(COURTESY).mul_f64(self.chance.jitter(0.0..1.0));
                    turn.ready = Instant::now() + wait.max(ASK_SOONEST_AFTER) + spread;
                }
                Ok(Grant::Busy) => {
                    place = leave.refused();
                    let again = ASK_AGAIN_AFTER.mul_f64(self.chance.jitter(1.0..1.25));
                    tokio::select! {
                        biased;
                        () = self.ledger.freed.notified() => {}
                        () = time::sleep(again) => {}
                    }
                }
                Err(error) => {
                    place = match error {
                        HotStoreError::Unavailable(_) => leave.refused(),
                        _ => leave.unknown(),
                    };
                    if backoff.failures() == 0 {
                        tracing::warn!(
                            table = %self.table,
                            %error,
                            "the drain pauses: it takes its budget from the hot store, which does not answer"
                        );
                    }
                    time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    async fn ask(&self, rates: &Rates, permit: Permit) -> Result<Grant, HotStoreError> {
        let _line = self.line.lock().await;
        let ended = self.ledger.take_ended();
        let told = ledger::ago(&ended);
        let keep = Kept { ledger: &self.ledger, ended: Some(ended) };
        let answer = self.budget.take(&rates.limits(&self.table), permit, &told).await;
        if answer.is_ok() {
            keep.told();
        }
        answer
    }

    /// Renews what is held and tells what has ended, where no question can carry it; until `stop`, and what is held
    /// then has ended.
    pub(crate) async fn keep_told(self: Arc<Self>, stop: CancellationToken) {
        let mut backoff = self.backoff.clone();
        loop {
            let stopped = stop.is_cancelled();
            if stopped && self.ledger.is_settled() {
                return;
            }
            tokio::select! {
                biased;
                due = self.ledger.is_due() => if !due { continue },
                () = stop.cancelled(), if !stopped => continue,
            }
            match self.tell().await {
                Ok(()) => backoff.reset(),
                // What is not told falls free by itself.
                Err(_) if stop.is_cancelled() => return,
                Err(_) => time::sleep(backoff.next_delay()).await,
            }
        }
    }

    async fn tell(&self) -> Result<(), HotStoreError> {
        let _line = self.line.lock().await;
        let (held, ended) = (self.ledger.take_renewals(), self.ledger.take_ended());
        let told = ledger::ago(&ended);
        let keep = Kept { ledger: &self.ledger, ended: Some(ended) };
        self.budget.tell(&self.rates().limits(&self.table), &held, &told).await?;
        keep.told();
        Ok(())
    }
}

impl Turn {
    /// Takes note of what is in force now.
    fn follow(&mut self, rates: Rates, batch_rows: usize) {
        if self.capped != rates.ceiling() {
            self.capped = rates.ceiling();
            self.cap = Cap::new(self.capped.rows_per_second(), self.capped.batch_rows(batch_rows, LONGEST_TIME));
        }
        if self.rates != rates {
            self.rates = rates;
            self.ready = Instant::now();
        }
    }
}

/// What has ended and is being told: kept, unless it was.
struct Kept<'a> {
    ledger: &'a Ledger,
    ended: Option<Vec<(Permit, Instant)>>,
}

impl Kept<'_> {
    fn told(mut self) {
        self.ended = None;
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            self.ledger.put_back(ended);
        }
    }
}

#[cfg(test)]
mod tests;
