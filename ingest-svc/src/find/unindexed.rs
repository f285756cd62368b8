//! Declared fields that the database has no index for any more: a find by one would look at every row.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use database::Database;
use model::{ColumnName, TableRef};
use tokio::time::timeout;

use crate::Core;

/// Those that were met, as of the last look.
#[derive(Debug, Default)]
pub(crate) struct Unindexed(Mutex<BTreeSet<(TableRef, ColumnName)>>);

impl Unindexed {
    pub(super) fn has(&self, table: &TableRef, field: &ColumnName) -> bool {
        self.lock().contains(&(table.clone(), field.clone()))
    }

    /// Whether that is news.
    fn note(&self, table: &TableRef, field: &ColumnName, is_unindexed: bool) -> bool {
        let field = (table.clone(), field.clone());
        if is_unindexed { self.lock().insert(field) } else { self.lock().remove(&field) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(TableRef, ColumnName)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks whether an index of its database begins with each field that is declared. Of a database that can't be asked
/// nothing else is known than before.
pub(crate) async fn look_for_indexes<H, L, D: Database>(core: &Core<H, L, D>) {
    let mut silent = BTreeSet::new();
    for known in core.directory.all().into_iter().filter(|known| known.enabled && known.index.is_some()) {
        let table = &known.schema.table;
        let Some(database) = core.directory.database(&table.database) else { continue };
        // Who gives no answer of one table is not waited for once more of the next: other databases have theirs.
        if silent.contains(&table.database) {
            continue;
        }
        let indexed = match timeout(core.options.database_patience, database.search_columns(&table.table)).await {
            Ok(Ok(indexed)) => indexed,
            Ok(Err(error)) => {
                tracing::debug!(%table, %error, "whether the declared fields have their indexes can't be seen");
                continue;
            }
            Err(_) => {
                tracing::debug!(%table, "whether the declared fields have their indexes can't be seen: there is no answer");
                silent.insert(table.database.clone());
                continue;
            }
        };
        for field in &known.settings.indexed_fields {
            let is_unindexed = !indexed.contains(field);
            match core.unindexed.note(table, field, is_unindexed) {
                true if is_unindexed => tracing::warn!(
                    %table, %field, "no index of the database begins with this declared field any more: finds by it are refused until one does"
                ),
                true => {
                    tracing::info!(%table, %field, "an index of the database begins with this declared field again")
                }
                false => {}
            }
        }
    }
}
