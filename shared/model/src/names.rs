//! Names of databases, tables, columns and topics, each a type of its own.

use std::{borrow::Borrow, fmt, sync::Arc};

/// A name that can't be used: empty, too long, or with characters that no store accepts everywhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {name:?} is not usable: {problem}")]
pub struct InvalidName {
    /// What was to be named.
    pub kind: &'static str,
    /// The name as it was given, cut to 80 characters.
    pub name: String,
    /// Why it was refused.
    pub problem: &'static str,
}

fn check(kind: &'static str, name: &str, allowed: fn(char) -> bool, max: usize) -> Result<(), InvalidName> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.chars().count() > max {
        "it is too long"
    } else if !name.chars().all(allowed) {
        "it holds a character that is not allowed"
    } else {
        return Ok(());
    };
    Err(InvalidName { kind, name: name.chars().take(80).collect(), problem })
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $max:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks the name and takes it.
            ///
            /// # Errors
            /// [`InvalidName`] if it is empty, too long or holds a character that is not allowed.
            pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
                let name = name.as_ref();
                check($kind, name, $allowed, $max)?;
                Ok(Self(Arc::from(name)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// The name under which a database is configured; not the schema's name inside the server.
    DatabaseName, "database", 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-'
);
name_type!(
    /// A table's name as the database spells it. MySQL allows 64 characters.
    TableName, "table", 64, |c| !c.is_control()
);
name_type!(
    /// A column's name as the database spells it.
    ColumnName, "column", 64, |c| !c.is_control()
);
name_type!(
    /// A topic of the event log; Kafka's alphabet and length.
    Topic, "topic", 249, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
);
name_type!(
    /// Under what a table's records lie in the hot store. Defaults to `database.table`.
    Namespace, "namespace", 200, |c| !c.is_control() && !matches!(c, '{' | '}')
);

/// What the name of a dead-letter topic ends with.
const DEAD_LETTERS: &str = ".dlq";

impl Topic {
    /// The topic of the dead letters of this one's events: its name and `.dlq`.
    ///
    /// # Errors
    /// [`InvalidName`] if that is longer than a topic's name may be.
    pub fn dead_letters(&self) -> Result<Self, InvalidName> {
        Self::new(format!("{self}{DEAD_LETTERS}"))
    }

    /// Whether dead letters lie in it: they are kept for ever, and are larger than the events in them.
    pub fn is_dead_letters(&self) -> bool {
        self.as_str().ends_with(DEAD_LETTERS)
    }
}

/// A table, named by the database that holds it and its own name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableRef {
    /// The configured database.
    pub database: DatabaseName,
    /// The table in it.
    pub table: TableName,
}

impl fmt::Display for TableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}
