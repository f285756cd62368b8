//! Writes by a replica that has not seen yet how their table was altered.
//!
//! A write that names a column which the table is not known to have is not refused before its table was looked at.
//!
//! Updates of records that another replica has stored in the new form: a column that the stored row has and the table, as it
//! is known here, does not, was dropped, or it was added a moment ago: then leaving it out would lose a value that was
//! acknowledged. So the tables are looked at before it is.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use database::{CatalogEntry, CatalogTable, Database};
use hot_store::Slot;
use model::{Content, Fingerprint, TableRef};
use tokio::time::{Instant, timeout};

use super::{Change, store::Item, validate::Checked};
use crate::{Core, StoreError, read::outages::Question};

/// Forms of one table that are remembered; with more, the tables are looked at once more for each.
const MAX_FORMS: usize = 64;

/// In which forms records were met, by the form in which their table was seen after that: what it lacks then is gone.
#[derive(Debug, Default)]
pub(crate) struct FormsMet(Mutex<BTreeMap<TableRef, (Fingerprint, HashSet<Fingerprint>)>>);

impl FormsMet {
    fn has(&self, table: &CatalogTable, form: Fingerprint) -> bool {
        let met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = table.fingerprint();
        met.get(&table.schema.table).is_some_and(|(seen, forms)| *seen == current && forms.contains(&form))
    }

    fn note(&self, table: &CatalogTable, form: Fingerprint) {
        let current = table.fingerprint();
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, forms) = met.entry(table.schema.table.clone()).or_insert_with(|| (current, HashSet::new()));
        if *seen != current || forms.len() >= MAX_FORMS {
            (*seen, *forms) = (current, HashSet::new());
        }
        forms.insert(form);
    }
}

/// Has each update be one of its table as it is, where its record has a column that the table was not known to have.
pub(super) async fn look_again<'a, H, L, D: Database>(
    core: &Core<H, L, D>,
    updates: impl Iterator<Item = (&'a mut Item, &'a Slot)>,
) -> Result<(), StoreError> {
    let strange = updates.filter_map(|(item, slot)| Some((strange_form(&item.checked, slot)?, &mut item.checked)));
    let strange: Vec<(Fingerprint, &mut Checked)> = strange.collect();
    if strange.iter().any(|(form, checked)| !core.forms_met.has(&checked.table, *form)) {
        core.directory.refresh(true).await?;
    }
    for (form, checked) in strange {
        let Some(table) = core.directory.table(&checked.table.schema.table) else { continue };
        core.forms_met.note(&table, form);
        // What was altered in the key makes another record of it, which was not asked for.
        if table.schema.key().eq(checked.table.schema.key()) {
            checked.fingerprint = table.fingerprint();
            checked.table = table;
        }
    }
    Ok(())
}

/// The form in which a row was stored that has columns of which its table is not known to have them.
fn strange_form(checked: &Checked, slot: &Slot) -> Option<Fingerprint> {
    let Slot::Image { image, .. } = slot else { return None };
    let Content::Row(row) = &image.content else { return None };
    let is_strange = image.fingerprint != checked.fingerprint
        && row.iter().any(|(name, _)| checked.table.schema.column(name.as_str()).is_none());
    is_strange.then_some(image.fingerprint)
}

/// How long a write waits for that, and with it all that came in one batch. What is seen later helps the next one.
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// When each table was last looked at for the sake of a column that it was not known to have.
#[derive(Debug, Default)]
pub(crate) struct LastLooks(Mutex<BTreeMap<TableRef, Arc<tokio::sync::Mutex<Option<Instant>>>>>);

impl LastLooks {
    fn of(&self, table: &TableRef) -> Arc<tokio::sync::Mutex<Option<Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(table.clone()).or_default().clone()
    }
}

/// The table that a write is checked against: as it is by now, where the write names a column that it was not known to have.
/// It is looked at once in `table_refresh` at most, however many such writes come, and not waited for for long.
pub(super) async fn naming<H, L, D: Database>(
    core: &Core<H, L, D>,
    table: Arc<CatalogTable>,
    change: &Change,
) -> Arc<CatalogTable> {
    let named = match change {
        Change::Create { row } | Change::Put { row, .. } => row,
        Change::Update { changes, .. } => changes,
        Change::Delete { .. } => return table,
    };
    let knows_all = |table: &CatalogTable| named.iter().all(|(name, _)| table.schema.column(name.as_str()).is_some());
    if knows_all(&table) {
        return table;
    }
    let name = table.schema.table.clone();
    let last = core.last_looks.of(&name);
    let mut last = last.lock().await;
    let current = || core.directory.table(&name).unwrap_or_else(|| table.clone());
    let known = current();
    let is_away = || core.outages.known(&name, Question::Rows).is_err();
    if knows_all(&known) || last.is_some_and(|at| at.elapsed() < core.options.table_refresh) || is_away() {
        return known;
    }
    let look = tokio::spawn({
        let directory = core.directory.clone();
        async move {
            let entry = CatalogEntry {
                table: known.schema.table.clone(),
                enabled: known.enabled,
                settings: known.settings.clone(),
            };
            if directory.introspect(&entry).await? != known.schema {
                directory.refresh(true).await?;
            }
            Ok::<(), database::DatabaseError>(())
        }
    });
    // What was begun runs to its end, also when nobody waits for it any more.
    if let Ok(Ok(Err(error))) = timeout(core.options.database_patience.min(LONGEST_LOOK), look).await {
        tracing::warn!(table = %name, %error, "can't look at a table for a column that it was not known to have");
    }
    *last = Some(Instant::now());
    current()
}
