//! Databases that did not answer when they were asked last: cold reads are told so at once, and one of them finds out now
//! and then whether that is over.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use database::{CONNECTION_LOST, DatabaseError, ErrorClass};
use model::DatabaseName;
use tokio::time::Instant;

use crate::StoreError;

/// What is known of databases that are away.
#[derive(Debug)]
pub(crate) struct Outages {
    /// After a failure nobody asks that database for so long; zero: all may.
    pause: Duration,
    /// The one who asks then is told nothing for so long at most, and as long the others wait for what it finds.
    patience: Duration,
    known: Mutex<HashMap<DatabaseName, Outage>>,
}

#[derive(Debug)]
struct Outage {
    /// When the next one may ask.
    next: Instant,
    problem: String,
}

impl Outages {
    pub(crate) fn new(pause: Duration, patience: Duration) -> Self {
        Self { pause, patience, known: Mutex::default() }
    }

    /// Whether the database may be asked now.
    ///
    /// # Errors
    /// [`StoreError::DatabaseDown`] while it is away, but for one caller now and then.
    pub(super) fn check(&self, database: &DatabaseName) -> Result<(), StoreError> {
        if self.pause.is_zero() {
            return Ok(());
        }
        let mut outages = self.lock();
        let Some(outage) = outages.get_mut(database) else { return Ok(()) };
        if Instant::now() < outage.next {
            return Err(StoreError::DatabaseDown(outage.problem.clone()));
        }
        // This one finds out; whoever comes while it does is refused.
        outage.next = Instant::now() + self.pause.max(self.patience);
        Ok(())
    }

    /// What a read of the database came to.
    pub(super) fn learn<T>(&self, database: &DatabaseName, result: &Result<T, DatabaseError>) {
        match result {
            Err(error) if is_away(error) => self.away(database, error.to_string()),
            // Also a refusal is an answer.
            _ => drop(self.lock().remove(database)),
        }
    }

    /// It did not answer at all.
    pub(super) fn away(&self, database: &DatabaseName, problem: String) {
        self.lock().insert(database.clone(), Outage { next: Instant::now() + self.pause, problem });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DatabaseName, Outage>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nobody would get an answer now. What only this statement meets is not that, be it never so strange.
fn is_away(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Unknown(_) => true,
        DatabaseError::Statement { class, code, .. } => *class == ErrorClass::Transient || code == CONNECTION_LOST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::time::advance;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn while_a_database_is_away_one_asks_now_and_then_and_the_others_are_told_at_once() {
        let outages = Outages::new(PAUSE, PATIENCE);
        let [main, other] = ["main", "other"].map(|name| DatabaseName::new(name).unwrap());
        let away: Result<(), _> = Err(DatabaseError::Unknown("gone".to_owned()));
        assert!(outages.check(&main).is_ok());
        outages.learn(&main, &away);
        assert!(matches!(outages.check(&main), Err(StoreError::DatabaseDown(problem)) if problem.contains("gone")));
        assert!(outages.check(&other).is_ok());
        advance(PAUSE).await;
        assert!(outages.check(&main).is_ok());
        assert!(outages.check(&main).is_err(), "one is enough to find out");
        // That one never came back: another one tries.
        advance(PAUSE).await;
        assert!(outages.check(&main).is_err(), "it is still being found out");
        advance(PATIENCE).await;
        assert!(outages.check(&main).is_ok());
        outages.learn(&main, &Ok(()));
        assert!(outages.check(&main).is_ok() && outages.check(&main).is_ok());
    }
}
