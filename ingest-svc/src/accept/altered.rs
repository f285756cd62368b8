//! Updates of records that another replica has stored in a form of their table that this one has not seen yet.
//!
//! A column that the stored row has and the table, as it is known here, does not, was dropped, or it was added a moment
//! ago: then leaving it out would lose a value that was acknowledged. So the tables are looked at before it is.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Mutex,
};

use database::{CatalogTable, Database};
use hot_store::Slot;
use model::{Content, Fingerprint, TableRef};

use super::{store::Item, validate::Checked};
use crate::{Core, StoreError};

/// Forms of one table that are remembered; with more, the tables are looked at once more for each.
const MAX_FORMS: usize = 64;

/// In which forms records were met, by the form in which their table was seen after that: what it lacks then is gone.
#[derive(Debug, Default)]
pub(crate) struct FormsMet(Mutex<BTreeMap<TableRef, (Fingerprint, HashSet<Fingerprint>)>>);

impl FormsMet {
    fn has(&self, table: &CatalogTable, form: Fingerprint) -> bool {
        let met = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let current = table.schema.fingerprint();
        met.get(&table.schema.table).is_some_and(|(seen, forms)| *seen == current && forms.contains(&form))
    }

    fn note(&self, table: &CatalogTable, form: Fingerprint) {
        let current = table.schema.fingerprint();
        let mut met = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
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
            checked.fingerprint = table.schema.fingerprint();
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
