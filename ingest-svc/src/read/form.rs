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

/// Whether the database has to be asked at each read of a clean record, until it is written or its TTL ends: unless it is
/// forgotten, and read as one that is cold: then it is hot in its present form.
pub(crate) fn asks_each_time(table: &CatalogTable, slot: &Slot, wanted: Use<'_>) -> bool {
    let Slot::Image { image, stage: Stage::Clean, .. } = slot else { return false };
    let Content::Row(stored) = &image.content else { return false };
    Filling::of(&table.schema, stored, image.is_whole(), Stage::Clean, wanted).asks_database(&table.schema)
}

/// How the columns are filled that came after a record was stored.
struct Filling<'a> {
    stored: &'a Row,
    goes_by_default: bool,
    wanted: Use<'a>,
}

impl<'a> Filling<'a> {
    fn of(schema: &TableSchema, stored: &'a Row, is_whole: bool, stage: Stage, wanted: Use<'a>) -> Self {
        let waits_whole = stage != Stage::Clean && is_whole;
        let has_lost = stored.iter().any(|(name, _)| schema.column(name.as_str()).is_none());
        let goes_by_default = waits_whole || (matches!(wanted, Use::Read(_)) && !has_lost);
        Self { stored, goes_by_default, wanted }
    }

    fn default(&self, column: &Column) -> Option<Value> {
        column.constant_default().filter(|_| self.goes_by_default)
    }

    /// Whether only the database knows what a wanted column holds.
    fn asks_database(&self, schema: &TableSchema) -> bool {
        let is_missing =
            |column: &&Column| self.stored.get(column.name.as_str()).is_none() && self.wanted.includes(&column.name);
        schema.columns.iter().filter(is_missing).any(|column| self.default(column).is_none())
    }
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
    let is_whole = image.is_whole();
    let stored = match image.content {
        Content::Row(row) if image.fingerprint != table.fingerprint() => row,
        content => return Ok(Image { content, ..image }),
    };
    let filling = Filling::of(schema, &stored, is_whole, stage, wanted);
    let asks = filling.asks_database(schema);
    let in_database = match if asks { row_of(core, table, key).await? } else { DatabaseRow::Absent } {
        DatabaseRow::Present { row, .. } => row,
        DatabaseRow::Deleted { .. } | DatabaseRow::Absent => Row::default(),
    };
    let mut row = Row::default();
    for column in &schema.columns {
        let name = column.name.as_str();
        let value = match stored.get(name) {
            Some(value) => Some(fitted(column, value)),
            None => {
                filling.default(column).or_else(|| in_database.get(name).cloned()).or_else(|| column.constant_default())
            }
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
