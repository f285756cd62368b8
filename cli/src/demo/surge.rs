//! The surge: every payment is a client of its own that writes, waits for its acknowledgement, and reads back what it wrote.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use shock_absorber_client::{Client, ClientError, Reason, Row, Table};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    payments::{Columns, Life, Step},
    rows,
};

/// From when to when a call took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
}

/// What the clients saw; filled while they run.
#[derive(Default)]
pub(crate) struct Observed {
    /// Steps acknowledged, per payment.
    pub(crate) acked: Vec<AtomicUsize>,
    /// Steps acknowledged in all.
    pub(crate) acked_steps: AtomicU64,
    /// Reads that were not what had been acknowledged.
    pub(crate) stale_reads: AtomicU64,
    /// Acknowledged writes.
    pub(crate) writes: Mutex<Vec<Call>>,
    /// Answered reads.
    pub(crate) reads: Mutex<Vec<Call>>,
}

impl Observed {
    pub(crate) fn of(payments: usize) -> Self {
        Self { acked: (0..payments).map(|_| AtomicUsize::new(0)).collect(), ..Self::default() }
    }
}

/// Starts the clients; the set ends when every step of every payment has been acknowledged.
pub(crate) fn start(client: &Client, table: &Table, lives: &[Life], observed: &Arc<Observed>) -> JoinSet<Result<()>> {
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for (nth, life) in lives.iter().enumerate() {
        let payment = Payment {
            nth,
            life: life.clone(),
            client: client.clone(),
            table: Arc::new(table.clone()),
            observed: observed.clone(),
        };
        clients.spawn(payment.live(start));
    }
    clients
}

struct Payment {
    nth: usize,
    life: Life,
    client: Client,
    table: Arc<Table>,
    observed: Arc<Observed>,
}

impl Payment {
    async fn live(self, start: Instant) -> Result<()> {
        for (done, (at, step)) in self.life.steps.iter().enumerate() {
            sleep_until(start + *at).await;
            let begun = Instant::now();
            self.write(step).await.with_context(|| format!("writing {}", self.life.id))?;
            record(&self.observed.writes, begun);
            self.observed.acked[self.nth].store(done + 1, Ordering::Release);
            self.observed.acked_steps.fetch_add(1, Ordering::Relaxed);
            self.read_back(done + 1).await.with_context(|| format!("reading {}", self.life.id))?;
        }
        Ok(())
    }

    /// Until it is acknowledged. Every step of a payment may be sent twice: nobody else writes it, and it says what
    /// the columns are to be, not how they change.
    async fn write(&self, step: &Step) -> Result<()> {
        let mut doubt = false;
        loop {
            let written = match step {
                Step::Create(columns) => self.client.create(&self.table.table, self.row(columns)?).await,
                Step::Put(columns) => self.client.put(&self.table.table, self.row(columns)?).await,
                Step::Update(columns) => self.client.update(&self.table.table, self.key(), self.row(columns)?).await,
                Step::Delete => self.client.delete(&self.table.table, self.key()).await,
            };
            match written {
                Ok(_) => return Ok(()),
                // The attempt whose outcome was unknown had taken effect: the record is ours.
                Err(error) if doubt && error.is(Reason::AlreadyExists) => return Ok(()),
                Err(error) if may_go_away(&error) => doubt = doubt || error.is_outcome_unknown(),
                Err(error) => return Err(error.into()),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn read_back(&self, done: usize) -> Result<()> {
        let expected = self.life.row_after(done);
        loop {
            let begun = Instant::now();
            let found = match self.client.get(&self.table.table, self.key()).await {
                Ok(found) => Some(found.row),
                Err(error) if error.is(Reason::NotFound) => None,
                Err(error) if may_go_away(&error) => {
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            record(&self.observed.reads, begun);
            let fresh = match (&found, &expected) {
                (None, None) => true,
                (Some(found), Some(columns)) => rows::same_read(found, &self.row(columns)?),
                _ => false,
            };
            if !fresh {
                self.observed.stale_reads.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(());
        }
    }

    fn key(&self) -> Row {
        Row::new().set("id", self.life.id.as_str())
    }

    fn row(&self, columns: &Columns) -> Result<Row> {
        Ok(Row::from_json(&serde_json::to_string(columns)?, &self.table)?)
    }
}

fn may_go_away(error: &ClientError) -> bool {
    use shock_absorber_client::Code;
    matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted)
        || error.is_outcome_unknown()
}

fn record(calls: &Mutex<Vec<Call>>, begun: Instant) {
    let mut calls = calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    calls.push(Call { begun, ended: Instant::now() });
}
