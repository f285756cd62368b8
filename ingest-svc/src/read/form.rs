//! Records that were stored before their table was altered, in the form that the table has now.
//!
//! A column that is gone is left out, a value that fits is as the altered column holds it. What a column that came later
//! holds:
//!
//! - where a whole record waits for the database, its constant default (NULL, too): the drain writes it so;
//! - in a row that was there already, only the database knows: a constant that it may have been given since then, the time
//!   of the ALTER, a number of its own. So an update, which writes it, asks the database; a read does where it could not be
//!   told otherwise, or where the row has lost a column, which may have been renamed, and else goes by the default, also
//!   while the database is away;
//! - where neither tells it (the record waits, and will get the moment of its drain) it is left out.

use database::{CatalogTable, Database, DatabaseRow};
use event_log::{EventPublisher, LogReader};
use hot_store::{HotStore, Slot, Stage};
use model::{Column, ColumnName, Content, Image, Key, Row, TableSchema, Value};
use tokio::time::Instant;

use super::{cold, database_rows, outages::Question};
use crate::{Core, StoreError};

/// What the columns are wanted for that came after the record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use<'a> {
    /// These are shown; all, if none is named.
    Read(&'a [ColumnName]),
    /// They are written.
    Write,
}

impl Use<'_> {
    fn includes(self, column: &ColumnName) -> bool {
        match self {
            Self::Read(columns) => columns.is_empty() || columns.contains(column),
            Self::Write => true,
        }
    }
}

/// Whether a slot holds a record that was stored when its table was another.
pub(crate) fn is_earlier(table: &CatalogTable, slot: &Slot) -> bool {
    let image = match slot {
        Slot::Image { image, .. } => image,
        Slot::Absent | Slot::Leased | Slot::Empty => return false,
    };
    matches!(image.content, Content::Row(_)) && image.fingerprint != table.fingerprint()
}

/// What the hot store holds of a record, in its table's present form: see [`image`].
pub(crate) async fn present<H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    key: &Key,
    slot: Slot,
    wanted: Use<'_>,
) -> Result<Slot, StoreError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    Ok(match slot {
        Slot::Image { version, image, stage } => {
            Slot::Image { version, image: self::image(core, table, key, image, stage, wanted).await?, stage }
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
    stage: Stage,
    wanted: Use<'_>,
) -> Result<Image, StoreError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let schema = &table.schema;
    let waits_whole = stage != Stage::Clean && image.is_whole();
    let stored = match image.content {
        Content::Row(row) if image.fingerprint != table.fingerprint() => row,
        content => return Ok(Image { content, ..image }),
    };
    let has_lost = stored.iter().any(|(name, _)| schema.column(name.as_str()).is_none());
    let goes_by_default = waits_whole || (matches!(wanted, Use::Read(_)) && !has_lost);
    let default = |column: &Column| column.constant_default().filter(|_| goes_by_default);
    let is_missing = |column: &&Column| stored.get(column.name.as_str()).is_none() && wanted.includes(&column.name);
    let asks = schema.columns.iter().filter(is_missing).any(|column| default(column).is_none());
    let in_database = match if asks { row_of(core, table, key).await? } else { DatabaseRow::Absent } {
        DatabaseRow::Present { row, .. } => row,
        DatabaseRow::Deleted { .. } | DatabaseRow::Absent => Row::default(),
    };
    let mut row = Row::default();
    for column in &schema.columns {
        let name = column.name.as_str();
        let value = match stored.get(name) {
            Some(value) => Some(fitted(column, value)),
            None => default(column).or_else(|| in_database.get(name).cloned()).or_else(|| column.constant_default()),
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
        None => column.constant_default(),
    };
    schema.columns.iter().filter_map(|column| Some((column.name.clone(), value_of(column)?))).collect()
}

/// A value as the altered column holds it; as it was accepted if it does not fit.
fn fitted(column: &Column, value: &Value) -> Value {
    column.accept(value.clone()).unwrap_or_else(|_| value.clone())
}
