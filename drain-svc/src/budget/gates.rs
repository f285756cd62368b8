//! The gates of all tables.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use database::{HoldKind, Holds, SetRate};
use hot_store::Budget;
use model::{DatabaseName, TableRef};

use super::{Gate, Rates, SizeBounds, rates::Adaptive};
use crate::{DrainOptions, backoff::Backoff};

/// What holds for a table now.
pub(super) struct InForce {
    pub(super) table: TableRef,
    pub(super) rates: Rates,
    /// Rows of one batch, at most.
    pub(super) batch_rows: usize,
}

/// One gate per table: all that writes to it passes the same one.
pub(crate) struct Gates<B>(Mutex<Known<B>>);

struct Known<B> {
    gates: BTreeMap<TableRef, Arc<Gate<B>>>,
    /// What operators have set; `None` where nobody knows to what. Until that is known nothing passes: it may be lower
    /// than what is configured.
    set: Option<BTreeMap<TableRef, Option<SetRate>>>,
    /// What is agreed on for databases whose limit follows how they fare.
    agreed: BTreeMap<DatabaseName, f64>,
    /// What operators have stopped, with the above.
    holds: Holds,
}

impl<B> Default for Gates<B> {
    fn default() -> Self {
        Self(Mutex::new(Known { gates: BTreeMap::new(), set: None, agreed: BTreeMap::new(), holds: Holds::default() }))
    }
}

impl<B: Budget> Gates<B> {
    fn known(&self) -> MutexGuard<'_, Known<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gate of a table.
    pub(crate) fn of(&self, table: &TableRef, budget: &Arc<B>, options: &DrainOptions) -> Arc<Gate<B>> {
        let mut known = self.known();
        if let Some(gate) = known.gates.get(table) {
            return gate.clone();
        }
        let (rates, of_table) = (known.in_force(table, options), options.table(table));
        let sizes =
            SizeBounds { min: of_table.min_batch_rows, max: of_table.batch_rows, target: of_table.batch_target };
        let backoff = Backoff::new(options.retry_initial, options.retry_max, options.chance.clone());
        let gate = Gate::new(table.clone(), rates, sizes, budget.clone(), options.chance.clone(), backoff);
        known.gates.entry(table.clone()).or_insert(Arc::new(gate)).clone()
    }

    /// Puts in force what operators have set; answers what holds for which table now. Where that can't be read (`None`)
    /// the last known one goes on.
    pub(super) fn set(
        &self,
        mut set: BTreeMap<TableRef, Option<SetRate>>,
        holds: Holds,
        options: &DrainOptions,
    ) -> Vec<InForce> {
        let mut known = self.known();
        if let Some(before) = &known.set {
            set.retain(|table, rate| {
                let last = before.get(table);
                *rate = rate.or(last.copied().flatten());
                // Nothing was set before: what is configured goes on.
                rate.is_some() || last.is_some()
            });
        }
        known.set = Some(set);
        known.holds = holds;
        let mut all = Vec::with_capacity(known.gates.len());
        for (table, gate) in &known.gates {
            let rates = known.in_force(table, options);
            if gate.set_rates(rates) {
                let (rows_per_second, paused) = (rates.rows_per_second(), rates.paused);
                tracing::info!(%table, rows_per_second, paused, "another limit is in force");
            }
            all.push(InForce { table: table.clone(), rates, batch_rows: gate.batch_rows() });
        }
        all
    }

    /// Puts in force what is agreed on for a database; answers what holds for which of its tables now.
    pub(super) fn adapt(&self, database: &DatabaseName, rows_per_second: f64, options: &DrainOptions) -> Vec<InForce> {
        let mut known = self.known();
        known.agreed.insert(database.clone(), rows_per_second);
        let of_database = known.gates.iter().filter(|(table, _)| table.database == *database);
        of_database
            .map(|(table, gate)| {
                let rates = known.in_force(table, options);
                gate.set_rates(rates);
                InForce { table: table.clone(), rates, batch_rows: gate.batch_rows() }
            })
            .collect()
    }
}

impl<B> Known<B> {
    /// The limits of a table: those of the configuration, but for what an operator has set.
    fn in_force(&self, table: &TableRef, options: &DrainOptions) -> Rates {
        let of_table = options.table(table);
        let rows = match &self.set {
            None => Some(0.0),
            Some(set) => match set.get(table) {
                Some(Some(SetRate::RowsPerSecond(rate))) => Some(*rate),
                Some(Some(SetRate::Unlimited)) => None,
                Some(None) => Some(0.0),
                None => of_table.rows_per_second,
            },
        };
        Rates {
            rows,
            transactions: of_table.transactions_per_second,
            paused: self.holds.of(HoldKind::Pause, table).next().is_some(),
            database_rows: options.per_database.get(table.database.as_str()).copied(),
            adaptive: options.adaptive.get(&table.database).map(|bounds| Adaptive {
                // Until it is known, the lowest.
                rows: self.agreed.get(&table.database).copied().unwrap_or(bounds.min),
                most: bounds.max,
            }),
        }
    }
}
