//! Databases that did not answer when they were asked last: cold reads are told so at once, and one of them finds out now
//! and then whether that is over.
//!
//! Where no answer came at all, the table may be to blame (somebody alters it, or has locked it), and a search also its
//! value: that holds up nobody but those who ask the same of the same table.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use database::{CONNECTION_LOST, DatabaseError, ErrorClass};
use model::{DatabaseName, TableRef};
use tokio::time::Instant;

use crate::StoreError;

/// What is known of databases that are away.
#[derive(Debug)]
pub(crate) struct Outages {
    /// After a failure nobody asks that database for so long; zero: all may.
    pause: Duration,
    /// The one who asks then is told nothing for so long at most, and as long the others wait for what it finds.
    patience: Duration,
    known: Mutex<HashMap<Subject, Outage>>,
}

/// What a database is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// Rows by their keys.
    Rows,
    /// Rows by the value of a column.
    Search,
}

/// Who gives no answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    Database(DatabaseName),
    Table(TableRef, Question),
}

fn subjects(table: &TableRef, question: Question) -> [Subject; 2] {
    [Subject::Database(table.database.clone()), Subject::Table(table.clone(), question)]
}

/// What is known of an outage until the next one may ask.
fn told(
    outages: &HashMap<Subject, Outage>,
    table: &TableRef,
    question: Question,
    now: Instant,
) -> Result<(), StoreError> {
    let subjects = subjects(table, question);
    match subjects.iter().filter_map(|subject| outages.get(subject)).find(|outage| now < outage.next) {
        Some(outage) => Err(StoreError::DatabaseDown(outage.problem.clone())),
        None => Ok(()),
    }
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

    /// Whether it is worth while to wait for a turn to ask.
    ///
    /// # Errors
    /// [`StoreError::DatabaseDown`] while there is no answer to be had.
    pub(crate) fn known(&self, table: &TableRef, question: Question) -> Result<(), StoreError> {
        told(&self.lock(), table, question, Instant::now())
    }

    /// Whether the database may be asked that of the table now.
    ///
    /// # Errors
    /// [`StoreError::DatabaseDown`] while there is no answer to be had, but for one caller now and then.
    pub(super) fn check(&self, table: &TableRef, question: Question) -> Result<(), StoreError> {
        if self.pause.is_zero() {
            return Ok(());
        }
        let mut outages = self.lock();
        let now = Instant::now();
        told(&outages, table, question, now)?;
        for subject in subjects(table, question) {
            if let Some(outage) = outages.get_mut(&subject) {
                // This one finds out; whoever comes while it does is refused.
                outage.next = now + self.pause.max(self.patience);
            }
        }
        Ok(())
    }

    /// What the database has answered.
    pub(super) fn learn<T>(&self, table: &TableRef, question: Question, result: &Result<T, DatabaseError>) {
        match result {
            Err(error) if is_away(error) => self.note(Subject::Database(table.database.clone()), error.to_string()),
            // Also a refusal is an answer.
            _ => {
                let mut outages = self.lock();
                subjects(table, question).iter().for_each(|subject| drop(outages.remove(subject)));
            }
        }
    }

    /// It did not answer at all.
    pub(super) fn unanswered(&self, table: &TableRef, question: Question, problem: String) {
        self.note(Subject::Table(table.clone(), question), problem);
    }

    fn note(&self, subject: Subject, problem: String) {
        self.lock().insert(subject, Outage { next: Instant::now() + self.pause, problem });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Outage>> {
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

    use model::TableName;
    use tokio::time::advance;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn while_a_database_is_away_one_asks_now_and_then_and_the_others_are_told_at_once() {
        let outages = Outages::new(PAUSE, PATIENCE);
        let [main, beside, other] = [("main", "t"), ("main", "u"), ("other", "t")].map(table);
        let check = |table| outages.check(table, Question::Rows);
        let known = |table| outages.known(table, Question::Rows);
        let away: Result<(), _> = Err(DatabaseError::Unknown("gone".to_owned()));
        assert!(check(&main).is_ok() && known(&main).is_ok());
        outages.learn(&main, Question::Rows, &away);
        assert!(matches!(check(&main), Err(StoreError::DatabaseDown(problem)) if problem.contains("gone")));
        assert!(check(&beside).is_err() && outages.check(&main, Question::Search).is_err());
        assert!(check(&other).is_ok());
        assert!(known(&main).is_err() && known(&other).is_ok());
        advance(PAUSE).await;
        assert!(known(&main).is_ok(), "who only looks takes nobody's turn");
        assert!(check(&main).is_ok());
        assert!(check(&beside).is_err() && known(&main).is_err(), "one is enough to find out");
        // That one never came back: another one tries.
        advance(PAUSE).await;
        assert!(check(&main).is_err(), "it is still being found out");
        advance(PATIENCE).await;
        assert!(check(&main).is_ok());
        outages.learn(&main, Question::Rows, &Ok(()));
        assert!(check(&main).is_ok() && check(&beside).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_gives_no_answer_holds_up_nobody_else() {
        let outages = Outages::new(PAUSE, PATIENCE);
        let [locked, beside] = [("main", "t"), ("main", "u")].map(table);
        let check = |table| outages.check(table, Question::Rows);
        outages.unanswered(&locked, Question::Rows, "silence".to_owned());
        assert!(matches!(check(&locked), Err(StoreError::DatabaseDown(problem)) if problem.contains("silence")));
        assert!(check(&beside).is_ok() && outages.check(&locked, Question::Search).is_ok());
        // That others are answered says nothing of this one.
        outages.learn(&beside, Question::Rows, &Ok(()));
        assert!(check(&locked).is_err());
        // Who is refused for the database's sake does not count as one who finds out about the table.
        let away: Result<(), _> = Err(DatabaseError::Unknown("gone".to_owned()));
        advance(PAUSE).await;
        outages.learn(&beside, Question::Rows, &away);
        assert!(check(&locked).is_err());
        outages.learn(&beside, Question::Rows, &Ok(()));
        assert!(check(&locked).is_ok(), "it is to be found out now");
        assert!(check(&locked).is_err());
        outages.learn(&locked, Question::Rows, &Ok(()));
        assert!(check(&locked).is_ok() && check(&locked).is_ok());
    }

    fn table((database, table): (&str, &str)) -> TableRef {
        TableRef { database: DatabaseName::new(database).unwrap(), table: TableName::new(table).unwrap() }
    }
}
