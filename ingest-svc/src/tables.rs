//! Which tables are written through us: enabled and disabled at runtime, kept in the catalog, seen by all replicas.

mod error;
mod options;
mod reuse;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use database::{CatalogEntry, Database, DatabaseError, SetRate, StoredRates, TableSettings};
use event_log::{EventPublisher, LogReader};
use hot_store::HotStore;
use model::{ColumnName, DatabaseName, TableIndex, TableRef, TableSchema, Topic};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use error::TableError;
pub use options::{TableOptions, TableOverride};

use crate::{Core, find};

/// Ticks after which every table is introspected, whether the catalog has changed or not.
const LOOK_CLOSER_EVERY: u64 = 10;

/// A table of a configured database.
#[derive(Debug, Clone, PartialEq)]
pub struct TableInfo {
    /// The table.
    pub table: TableRef,
    /// Its topic, if it is enabled.
    pub topic: Option<Topic>,
    /// Its schema, or why it can't be enabled.
    pub schema: Result<TableSchema, String>,
    /// How fast it is drained.
    pub rate: TableRate,
    /// The columns by which its records are found, if it is enabled.
    pub indexed_fields: Vec<ColumnName>,
}

/// How fast a table is drained.
#[derive(Debug, Clone, PartialEq)]
pub enum TableRate {
    /// As is configured.
    Configured,
    /// As an operator has set it.
    Set(SetRate),
    /// An operator has set it, and what is stored can't be read: why.
    Unreadable(String),
}

impl TableRate {
    fn of(table: &TableRef, rates: &StoredRates) -> Self {
        match rates.iter().find(|(of, _)| of == table) {
            None => Self::Configured,
            Some((_, Ok(rate))) => Self::Set(*rate),
            Some((_, Err(error))) => Self::Unreadable(error.to_string()),
        }
    }
}

impl TableInfo {
    /// Whether it is written through us.
    pub fn is_enabled(&self) -> bool {
        self.topic.is_some()
    }
}

/// Lists, enables and disables tables.
pub struct Tables<H, L, D> {
    core: Arc<Core<H, L, D>>,
}

impl<H, L, D> Clone for Tables<H, L, D> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone() }
    }
}

/// Looks every `table_refresh` for tables that other replicas enabled or disabled, until `shutdown`.
pub async fn run<H, L, D>(core: Arc<Core<H, L, D>>, shutdown: CancellationToken)
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut ticks = interval(core.options.table_refresh.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 1_u64.. {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // An ALTER TABLE does not show in the catalog, so now and then every table is looked at.
        let looks_closer = tick.is_multiple_of(LOOK_CLOSER_EVERY);
        match core.directory.refresh(looks_closer).await {
            Ok(true) => tracing::info!(enabled = core.directory.all().len(), "the enabled tables have changed"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "can't read which tables are enabled; the last known ones stay"),
        }
        if looks_closer {
            find::look_for_indexes(&core).await;
        }
    }
}

impl<H, L, D> Tables<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// On these stores.
    pub fn new(core: Arc<Core<H, L, D>>) -> Self {
        Self { core }
    }

    /// All tables of the configured databases, by name.
    ///
    /// # Errors
    /// If a database can't be asked.
    pub async fn list(&self) -> Result<Vec<TableInfo>, TableError> {
        self.core.directory.refresh(false).await?;
        let rates = self.core.directory.catalog_database()?.rates().await?;
        let mut infos = BTreeMap::new();
        for (name, database) in self.core.directory.databases() {
            for table in database.list_tables().await? {
                let table = TableRef { database: name.clone(), table };
                match self.inspect_beside(&table, &rates).await {
                    // Dropped since it was listed.
                    Err(TableError::NotFound(_)) => {}
                    info => drop(infos.insert(table, info?)),
                }
            }
        }
        Ok(infos.into_values().collect())
    }

    /// One table.
    ///
    /// # Errors
    /// If there is none of that name, or the database can't be asked.
    pub async fn get(&self, table: &TableRef) -> Result<TableInfo, TableError> {
        self.core.directory.refresh(false).await?;
        self.inspect(table).await
    }

    /// Enables a table: checks that it can be carried, makes its topic and that of its dead letters, enters it into the catalog. How it is
    /// enabled is fixed the first time.
    ///
    /// # Errors
    /// See [`TableError`]. A table that could not be enabled is as it was.
    pub async fn enable(&self, table: &TableRef) -> Result<TableInfo, TableError> {
        self.enable_with(table, None).await
    }

    /// The same, with the columns by which its records are found: those may be changed at any time.
    ///
    /// # Errors
    /// See [`TableError`].
    pub async fn enable_with(
        &self,
        table: &TableRef,
        indexed_fields: Option<Vec<ColumnName>>,
    ) -> Result<TableInfo, TableError> {
        let core = &*self.core;
        core.directory.refresh(false).await?;
        self.database(&table.database)?;
        let known = core.directory.known(table);
        let mut settings = match &known {
            Some(known) => known.settings.clone(),
            None => core.options.tables.settings_of(table)?,
        };
        settings.indexed_fields = indexed_fields.unwrap_or(settings.indexed_fields);
        let has_other_fields =
            known.as_ref().is_none_or(|known| known.settings.indexed_fields != settings.indexed_fields);
        let entry = CatalogEntry { table: table.clone(), enabled: true, settings };
        let schema = core.directory.introspect(&entry).await.map_err(|error| TableError::of(table, error))?;
        if has_other_fields {
            self.check_fields(&schema, &entry.settings.indexed_fields).await?;
        }
        let topic = &entry.settings.topic;
        let letters = topic.dead_letters().map_err(|error| TableError::Name { table: table.clone(), error })?;
        for topic in [topic, &letters] {
            core.log.ensure_topic(topic, core.shards.get(), core.options.tables.log).await?;
        }
        match known {
            Some(known) if known.enabled && !has_other_fields => return self.inspect(table).await,
            Some(_) => {}
            None => reuse::check(core, &entry).await?,
        }
        if !core.directory.catalog_database()?.enable(&entry).await? {
            let TableSettings { topic, namespace, .. } = entry.settings;
            return Err(TableError::Taken { table: table.clone(), topic, namespace });
        }
        core.directory.refresh(true).await?;
        find::look_for_indexes(core).await;
        tracing::info!(%table, %topic, "enabled a table");
        if let Some(enabled) = core.directory.table(table).filter(|_| has_other_fields) {
            find::prepare(core, &enabled).await;
        }
        self.inspect(table).await
    }

    /// Whether records can be found by these columns, here and in the database.
    async fn check_fields(&self, schema: &TableSchema, fields: &[ColumnName]) -> Result<(), TableError> {
        if fields.is_empty() {
            return Ok(());
        }
        let table = &schema.table;
        let unsupported = |reason: String| TableError::Unsupported { table: table.clone(), reason };
        TableIndex::new(schema, fields).map_err(|error| unsupported(format!("of its indexed_fields: {error}")))?;
        let searched = self.database(&table.database)?.search_columns(&table.table).await;
        let searched = searched.map_err(|error| TableError::of(table, error))?;
        match fields.iter().find(|field| !searched.contains(field)) {
            None => Ok(()),
            Some(field) => Err(unsupported(format!(
                "of its indexed_fields, {field}: the database has no index that begins with this column, so that a find \
                 would look at every row; make one over all rows, on ({field}) or on ({field}, {})",
                schema.key().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", "),
            ))),
        }
    }

    /// Disables a table: no request is let in any more, here at once, at the other replicas within `table_refresh`.
    /// What was accepted is drained all the same.
    ///
    /// # Errors
    /// See [`TableError`].
    pub async fn disable(&self, table: &TableRef) -> Result<TableInfo, TableError> {
        let core = &*self.core;
        core.directory.refresh(false).await?;
        if core.directory.table(table).is_none() {
            return self.inspect(table).await;
        }
        core.directory.catalog_database()?.disable(table).await?;
        core.directory.refresh(true).await?;
        tracing::info!(%table, "disabled a table");
        self.inspect(table).await
    }

    /// Sets how fast a table is drained, in place of what is configured; `None` takes that back. All drains follow within
    /// two seconds.
    ///
    /// # Errors
    /// See [`TableError`].
    pub async fn set_rate(&self, table: &TableRef, rate: Option<SetRate>) -> Result<TableInfo, TableError> {
        let info = self.get(table).await?;
        self.core.directory.catalog_database()?.set_rate(table, rate).await?;
        tracing::info!(%table, ?rate, "set a table's limit");
        Ok(TableInfo { rate: rate.map_or(TableRate::Configured, TableRate::Set), ..info })
    }

    fn database(&self, name: &DatabaseName) -> Result<&Arc<D>, TableError> {
        self.core.directory.database(name).ok_or_else(|| TableError::NoSuchDatabase(name.clone()))
    }

    async fn inspect(&self, table: &TableRef) -> Result<TableInfo, TableError> {
        let rates = self.core.directory.catalog_database()?.rates().await?;
        self.inspect_beside(table, &rates).await
    }

    async fn inspect_beside(&self, table: &TableRef, rates: &StoredRates) -> Result<TableInfo, TableError> {
        let rate = TableRate::of(table, rates);
        let database = self.database(&table.database)?;
        if let Some(enabled) = self.core.directory.table(table) {
            return Ok(TableInfo {
                table: table.clone(),
                topic: Some(enabled.settings.topic.clone()),
                schema: Ok(enabled.schema.clone()),
                rate,
                indexed_fields: enabled.settings.indexed_fields.clone(),
            });
        }
        let schema = match database.introspect(&table.database, &table.table).await {
            Ok(schema) => Ok(schema),
            Err(DatabaseError::Unsupported { reason, .. }) => Err(reason),
            Err(error) => return Err(TableError::of(table, error)),
        };
        Ok(TableInfo { table: table.clone(), topic: None, schema, rate, indexed_fields: Vec::new() })
    }
}
