//! How tables are named and set up when they are enabled.

use std::collections::HashMap;

use database::{CreateCheck, TableSettings};
use event_log::LogSettings;
use model::{ColumnName, InvalidName, Namespace, TableRef, Topic};

use super::TableError;

/// How tables are named and set up when they are enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableOptions {
    /// The topic of a table; `{database}` and `{table}` are replaced.
    pub topic_template: String,
    /// What is to be checked of the topics.
    pub log: LogSettings,
    /// What some tables have otherwise.
    pub per_table: HashMap<TableRef, TableOverride>,
}

/// What one table has otherwise than others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableOverride {
    /// Its namespace in the hot store; `database.table` otherwise.
    pub namespace: Option<Namespace>,
    /// The columns of the key that decide the shard; all of them if none is named.
    pub group_by: Vec<ColumnName>,
    /// Where a create looks.
    pub create_check: CreateCheck,
    /// The columns by which records are found, beside their keys.
    pub indexed_fields: Vec<ColumnName>,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            topic_template: "shock-absorber.{table}".to_owned(),
            log: LogSettings { allow_single_node: false },
            per_table: HashMap::new(),
        }
    }
}

impl TableOptions {
    /// The settings with which a table is enabled.
    pub(super) fn settings_of(&self, table: &TableRef) -> Result<TableSettings, TableError> {
        let name = |error| TableError::Name { table: table.clone(), error };
        let topic = Topic::new(expand(&self.topic_template, table)).map_err(name)?;
        if topic.is_dead_letters() {
            let problem = "it ends as the topics of dead letters do";
            return Err(name(InvalidName { kind: "topic", name: topic.to_string(), problem }));
        }
        let own = self.per_table.get(table).cloned().unwrap_or_default();
        let namespace = match own.namespace {
            Some(namespace) => namespace,
            None => Namespace::new(table.to_string()).map_err(name)?,
        };
        Ok(TableSettings {
            topic,
            namespace,
            group_by: own.group_by,
            create_check: own.create_check,
            indexed_fields: own.indexed_fields,
        })
    }
}

/// Replaces the placeholders; what a name brings along is not replaced again.
fn expand(template: &str, table: &TableRef) -> String {
    let mut expanded = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{database}") {
            expanded.push_str(table.database.as_str());
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{table}") {
            expanded.push_str(table.table.as_str());
            rest = after;
        } else {
            expanded.push('{');
            rest = &rest[1..];
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use model::{DatabaseName, TableName};

    fn table(name: &str) -> TableRef {
        TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new(name).unwrap() }
    }

    fn options(template: &str) -> TableOptions {
        TableOptions { topic_template: template.to_owned(), ..TableOptions::default() }
    }

    #[test]
    fn a_table_is_named_after_the_template() {
        let settings = TableOptions::default().settings_of(&table("payments")).unwrap();
        assert_eq!(settings.topic.as_str(), "shock-absorber.payments");
        assert_eq!(settings.namespace.as_str(), "main.payments");
        let settings = options("{database}-x-{table}").settings_of(&table("payments")).unwrap();
        assert_eq!(settings.topic.as_str(), "main-x-payments");
    }

    #[test]
    fn names_that_the_stores_do_not_take_are_refused_with_the_table_s_name() {
        for (template, name) in
            [("{table}", "two words"), ("{table}.dlq", "t"), ("{other}", "t"), ("", "t"), ("{table}", "{database}")]
        {
            let refused = options(template).settings_of(&table(name));
            assert!(matches!(refused, Err(TableError::Name { .. })), "{template} {name}: {refused:?}");
        }
    }

    #[test]
    fn a_table_can_have_it_otherwise() {
        let own = TableOverride {
            namespace: Some(Namespace::new("p").unwrap()),
            group_by: vec![ColumnName::new("tenant").unwrap()],
            create_check: CreateCheck::HotStore,
            indexed_fields: vec![ColumnName::new("status").unwrap()],
        };
        let mut options = TableOptions::default();
        options.per_table.insert(table("payments"), own);
        let settings = options.settings_of(&table("payments")).unwrap();
        assert_eq!((settings.namespace.as_str(), settings.create_check), ("p", CreateCheck::HotStore));
        assert_eq!(settings.group_by.len(), 1);
        assert_eq!(options.settings_of(&table("orders")).unwrap().group_by, []);
    }
}
