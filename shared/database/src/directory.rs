//! The catalog's tables as a replica sees them, each with its schema, refreshed in the background.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use model::{DatabaseName, Fingerprint, Namespace, TableIndex, TableRef, TableSchema, Topic};
use tokio::sync::Mutex;

use crate::{CatalogEntry, Database, DatabaseError, TableSettings};

/// A table of the catalog with its schema.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogTable {
    /// Its schema; `group` follows `group_by`.
    pub schema: TableSchema,
    /// Whether requests are let in. What was accepted is drained, relayed and restored all the same.
    pub enabled: bool,
    /// How it was enabled.
    pub settings: TableSettings,
    /// By which fields its records are found, as far as the table has them.
    pub index: Option<TableIndex>,
    /// Of the schema: what is asked for with each record is made once.
    fingerprint: Fingerprint,
}

impl CatalogTable {
    /// One of this schema.
    pub fn new(schema: TableSchema, enabled: bool, settings: TableSettings, index: Option<TableIndex>) -> Self {
        let fingerprint = schema.fingerprint();
        Self { schema, enabled, settings, index, fingerprint }
    }

    /// The schema's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// What is looked up, all made from one reading of the catalog.
#[derive(Debug, Default)]
struct View {
    generation: u64,
    tables: HashMap<TableRef, Arc<CatalogTable>>,
    by_namespace: HashMap<Namespace, Arc<CatalogTable>>,
    by_topic: HashMap<Topic, Arc<CatalogTable>>,
    /// Tables of the catalog that can't be used, and where their records lie in the hot store.
    missing: HashMap<TableRef, Namespace>,
}

/// All tables of the catalog. Looking one up costs a pointer; refreshing costs a query while nothing has changed.
pub struct TableDirectory<D> {
    databases: Vec<(DatabaseName, Arc<D>)>,
    unusable: Unusable,
    view: ArcSwap<View>,
    refreshing: Mutex<()>,
}

/// What is to become of an enabled table that can't be used from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unusable {
    /// Nothing is known until it can be used.
    StopsAll,
    /// It alone is not known.
    IsLeftOut,
}

impl<D: Database> TableDirectory<D> {
    /// An empty directory over the configured databases; the first one holds the catalog.
    pub fn new(databases: Vec<(DatabaseName, Arc<D>)>) -> Self {
        Self { databases, unusable: Unusable::StopsAll, view: ArcSwap::default(), refreshing: Mutex::new(()) }
    }

    /// Leaves out what can't be used: for who works on each table by itself, as drains do. Not for who must know all
    /// tables of a shard, as openings must.
    #[must_use]
    pub fn leaving_out_what_cant_be_used(self) -> Self {
        Self { unusable: Unusable::IsLeftOut, ..self }
    }

    /// The database that holds the catalog, the epochs and the number of shards.
    ///
    /// # Errors
    /// If none is configured.
    pub fn catalog_database(&self) -> Result<&Arc<D>, DatabaseError> {
        self.databases.first().map(|(_, d)| d).ok_or_else(|| {
            DatabaseError::Unfit("no database is configured: name at least one under `databases`".into())
        })
    }

    /// The configured databases, in their order.
    pub fn databases(&self) -> &[(DatabaseName, Arc<D>)] {
        &self.databases
    }

    /// A database by its name.
    pub fn database(&self, name: &DatabaseName) -> Option<&Arc<D>> {
        self.databases.iter().find(|(n, _)| n == name).map(|(_, d)| d)
    }

    /// A table that requests may be about: one that is enabled.
    pub fn table(&self, table: &TableRef) -> Option<Arc<CatalogTable>> {
        self.known(table).filter(|known| known.enabled)
    }

    /// A table of the catalog, enabled or not.
    pub fn known(&self, table: &TableRef) -> Option<Arc<CatalogTable>> {
        self.view.load().tables.get(table).cloned()
    }

    /// Where the records of a table of the catalog lie in the hot store, also while the table itself can't be used.
    pub fn namespace_of(&self, table: &TableRef) -> Option<Namespace> {
        let view = self.view.load();
        let used = view.tables.get(table).map(|known| &known.settings.namespace);
        used.or_else(|| view.missing.get(table)).cloned()
    }

    /// The table whose records lie there in the hot store.
    pub fn by_namespace(&self, namespace: &Namespace) -> Option<Arc<CatalogTable>> {
        self.view.load().by_namespace.get(namespace).cloned()
    }

    /// The table of a topic.
    pub fn by_topic(&self, topic: &Topic) -> Option<Arc<CatalogTable>> {
        self.view.load().by_topic.get(topic).cloned()
    }

    /// All tables of the catalog, enabled or not, by name.
    pub fn all(&self) -> Vec<Arc<CatalogTable>> {
        let mut tables: Vec<_> = self.view.load().tables.values().cloned().collect();
        tables.sort_by(|a, b| a.schema.table.cmp(&b.schema.table));
        tables
    }

    /// Reads the catalog again; introspects every table if it has changed, if one was missing, or if `force` is set.
    /// Says whether the view is another now.
    ///
    /// # Errors
    /// If a database can't be asked: the view stays as it was. A table that can't be introspected any more is logged
    /// and keeps the schema it had. One that could not be used from the start is an error while it is enabled: an
    /// opening that did not know it would neither fence its topic nor put its records back, and reads would be stale
    /// once it is there again. If it is disabled, or where
    /// [such tables are left out](Self::leaving_out_what_cant_be_used), it is logged and left out until it can be used.
    pub async fn refresh(&self, force: bool) -> Result<bool, DatabaseError> {
        let _one = self.refreshing.lock().await;
        let (generation, entries) = self.catalog_database()?.catalog().await?;
        let old = self.view.load_full();
        if generation == old.generation && old.missing.is_empty() && !force {
            return Ok(false);
        }
        let mut view = View { generation, ..View::default() };
        for entry in entries {
            let Some(table) = self.look_at(&entry, &old).await? else {
                view.missing.insert(entry.table, entry.settings.namespace);
                continue;
            };
            view.by_namespace.insert(table.settings.namespace.clone(), table.clone());
            view.by_topic.insert(table.settings.topic.clone(), table.clone());
            view.tables.insert(entry.table, table);
        }
        let changed = view.tables != old.tables;
        self.view.store(Arc::new(view));
        Ok(changed)
    }

    /// A table of the catalog as it is; as it was where that can't be seen; `None` if it is to be left out.
    async fn look_at(&self, entry: &CatalogEntry, old: &View) -> Result<Option<Arc<CatalogTable>>, DatabaseError> {
        let table = &entry.table;
        let error = match self.introspect(entry).await {
            Ok(schema) => {
                let (enabled, settings) = (entry.enabled, entry.settings.clone());
                let index = TableIndex::of_those_that_can(&schema, &settings.indexed_fields);
                return Ok(Some(Arc::new(CatalogTable::new(schema, enabled, settings, index))));
            }
            Err(error) => error,
        };
        if let Some(kept) = old.tables.get(table) {
            // It may have been altered while its database is away: it has to be seen before anything new is known.
            if error.class().may_pass() && self.unusable == Unusable::StopsAll {
                return Err(error);
            }
            tracing::error!(%table, %error, "a table of the catalog can't be introspected; its last known schema stays in use");
            return Ok(Some(Arc::new(CatalogTable { enabled: entry.enabled, ..(**kept).clone() })));
        }
        let is_unfit = matches!(error, DatabaseError::NoSuchTable(_) | DatabaseError::Unsupported { .. });
        if self.unusable == Unusable::IsLeftOut || (!entry.enabled && is_unfit) {
            if !old.missing.contains_key(table) {
                tracing::error!(%table, %error, "a table of the catalog can't be used; it is not drained until it can");
            }
            return Ok(None);
        }
        match error {
            DatabaseError::NoSuchTable(_) => Err(DatabaseError::Unfit(format!(
                "table {table} is enabled, but its database has no such table: restore it, or disable it by `UPDATE _sa_table SET enabled = 0` in the first database",
            ))),
            error => Err(error),
        }
    }

    /// The schema of a table as an entry of the catalog wants it: grouped by `group_by`.
    ///
    /// # Errors
    /// If the table is not there or can't be used; if `group_by` names a column that is not part of the key.
    pub async fn introspect(&self, entry: &CatalogEntry) -> Result<TableSchema, DatabaseError> {
        let name = &entry.table.database;
        let database = self
            .database(name)
            .ok_or_else(|| DatabaseError::Unfit(format!("no database named {name} is configured")))?;
        let mut schema = database.introspect(name, &entry.table.table).await?;
        if !entry.settings.group_by.is_empty() {
            let position = |column: &model::ColumnName| {
                schema.key().position(|c| c.name == *column).ok_or_else(|| DatabaseError::Unsupported {
                    table: entry.table.table.clone(),
                    reason: format!("group_by names {column}, which is not part of the primary key"),
                })
            };
            schema.group = entry.settings.group_by.iter().map(position).collect::<Result<_, _>>()?;
        }
        Ok(schema)
    }
}
