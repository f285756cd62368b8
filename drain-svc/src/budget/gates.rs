//! The gates of all tables.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use hot_store::Budget;
use model::TableRef;

use super::{Gate, Rates};
use crate::{DrainOptions, backoff::Backoff};

/// One gate per table: all that writes to it passes the same one.
pub(crate) struct Gates<B>(Mutex<BTreeMap<TableRef, Arc<Gate<B>>>>);

impl<B> Default for Gates<B> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<B: Budget> Gates<B> {
    /// The gate of a table.
    pub(crate) fn of(&self, table: &TableRef, budget: &Arc<B>, options: &DrainOptions) -> Arc<Gate<B>> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = gates.entry(table.clone()).or_insert_with(|| {
            let (rates, rows) = (configured(options, table), options.table(table).batch_rows);
            let backoff = Backoff::new(options.retry_initial, options.retry_max, options.chance.clone());
            Arc::new(Gate::new(table.clone(), rates, rows, budget.clone(), options.chance.clone(), backoff))
        });
        made.clone()
    }
}

/// The limits that the configuration names.
fn configured(options: &DrainOptions, table: &TableRef) -> Rates {
    let of_table = options.table(table);
    Rates {
        rows: of_table.rows_per_second,
        transactions: of_table.transactions_per_second,
        database_rows: options.per_database.get(table.database.as_str()).copied(),
    }
}
