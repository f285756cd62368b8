//! Records that were stored before their table was altered, in the form that the table has now.
//!
//! A column that is gone is left out, a value that fits is as the altered column holds it. What a column that came later
//! holds in a row that was there already only the database knows: a constant it may have been given since then, the time of
//! the ALTER, a number of its own. So an update, which writes it, asks the database; a read does where it could not be
//! told otherwise, and else goes by the default, also while the database is away.

use database::{CatalogTable, Database, DatabaseRow};
use event_log::{EventPublisher, LogReader};
use hot_store::{HotStore, Slot};
use model::{Column, ColumnDefault, Content, Image, Key, Row, TableSchema, Value};
use tokio::time::Instant;

use super::{cold, database_rows, outages::Question};
use crate::{Core, StoreError};

/// What the columns are wanted for that came after the record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// They are shown.
    Read,
    /// They are written.
    Write,
}

/// Whether a slot holds a record that was stored when its table was another.
pub(crate) fn is_earlier(table: &CatalogTable, slot: &Slot) -> bool {
    let image = match slot {
        Slot::Image { image, .. } => image,
        Slot::Absent | Slot::Leased | Slot::Empty => return false,
    };
    matches!(image.content, Content::Row(_)) && image.fingerprint != table.schema.fingerprint()
}

/// What the hot store holds of a record, in its table's present form: see [`image`].
pub(crate) async fn present<H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    key: &Key,
    slot: Slot,
    wanted: Use,
) -> Result<Slot, StoreError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    Ok(match slot {
        Slot::Image { version, image, stage } => {
            Slot::Image { version, image: self::image(core, table, key, image, wanted).await?, stage }
        }
        other => other,
    })
}

/// The image in its table's present form. What no longer fits a column stays as it was accepted, and the image's
/// fingerprint: who writes it has to look.
pub(crate) async fn image<H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    key: &Key,
    image: Image,
    wanted: Use,
) -> Result<Image, StoreError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let schema = &table.schema;
    let stored = match image.content {
        Content::Row(row) if image.fingerprint != schema.fingerprint() => row,
        content => return Ok(Image { content, ..image }),
    };
    let is_missing = |column: &&Column| stored.get(column.name.as_str()).is_none();
    let is_uncertain = |column: &Column| certain_default(column).is_none();
    let asks = schema.columns.iter().filter(is_missing).any(|column| wanted == Use::Write || is_uncertain(column));
    let in_database = match if asks { row_of(core, table, key).await? } else { DatabaseRow::Absent } {
        DatabaseRow::Present { row, .. } => row,
        DatabaseRow::Deleted { .. } | DatabaseRow::Absent => Row::default(),
    };
    let mut row = Row::default();
    for column in &schema.columns {
        let name = column.name.as_str();
        let value = match (stored.get(name), in_database.get(name)) {
            (Some(value), _) => Some(fitted(column, value)),
            (None, Some(value)) => Some(value.clone()),
            // It is not there yet, and will be written without: it gets what the table gives then.
            (None, None) => column.default_at(core.options.moment()).ok(),
        };
        if let Some(value) = value {
            row.insert(column.name.clone(), value);
        }
    }
    Ok(Image { content: Content::Row(row), ..image })
}

/// What the database holds of the record.
async fn row_of<H, L, D: Database>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    key: &Key,
) -> Result<DatabaseRow, StoreError> {
    core.outages.check(&table.schema.table, Question::Rows)?;
    let _permit = cold::cold_read(core, Instant::now() + core.options.lease_ttl * 2, 1).await?;
    let rows = database_rows::read(core, table, std::slice::from_ref(key)).await;
    rows.into_iter().next().unwrap_or(Ok(DatabaseRow::Absent))
}

/// A row that was stored before its table was altered, in the table's present form as far as that is known without the database.
pub(crate) fn certain(schema: &TableSchema, stored: &Row) -> Row {
    let value_of = |column: &Column| match stored.get(column.name.as_str()) {
        Some(value) => Some(fitted(column, value)),
        None => certain_default(column),
    };
    schema.columns.iter().filter_map(|column| Some((column.name.clone(), value_of(column)?))).collect()
}

/// A value as the altered column holds it; as it was accepted if it does not fit.
fn fitted(column: &Column, value: &Value) -> Value {
    column.accept(value.clone()).unwrap_or_else(|_| value.clone())
}

/// What a row has that was there before the column, where its default says so.
fn certain_default(column: &Column) -> Option<Value> {
    match &column.default {
        ColumnDefault::Constant(value) => Some(value.clone()),
        ColumnDefault::None if column.nullable => Some(Value::Null),
        _ => None,
    }
}
