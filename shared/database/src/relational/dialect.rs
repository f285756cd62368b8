//! How a database spells what the protocol says. Pure text; no I/O.

use std::borrow::Cow;

use model::{ColumnType, Value};

use super::{shapes::Limits, statement::Param};

/// The column that keeps a row's version.
pub(crate) const VERSION_COLUMN: &str = "_sa_version";

/// One of our own tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemTable {
    pub(crate) name: &'static str,
    /// What stands behind its name in CREATE TABLE.
    pub(crate) columns: &'static str,
}

/// A change to our own tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upgrade {
    /// A number: zero if the change is missing.
    pub(crate) made: &'static str,
    /// The statement that makes it.
    pub(crate) make: &'static str,
}

/// The spelling of one database.
pub(crate) trait Dialect: Send + Sync + 'static {
    /// An identifier in quotes. Identifiers come from the introspected schema only.
    fn quote(&self, identifier: &str) -> String;

    /// A table's name in quotes, such that no other table than the one that was introspected can be meant.
    fn table(&self, name: &str) -> String {
        self.quote(name)
    }

    /// Why a table of this name is not carried.
    fn refuses_table(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// What a statement must stay below.
    fn limits(&self) -> Limits;

    /// Our own tables.
    fn system_tables(&self) -> &'static [SystemTable];

    /// How many tables there are of the name that is bound behind it. It is looked before a table is made, for to make
    /// one takes a right that nobody needs who finds them all, also where it is said to be made if it does not exist.
    fn count_tables(&self) -> &'static str;

    /// What lets one replica at a time make tables, where saying `IF NOT EXISTS` does not.
    fn before_tables_are_made(&self) -> Option<&'static str> {
        None
    }

    /// What our own tables got since they were first made.
    fn upgrades(&self) -> &'static [Upgrade];

    /// A value as it is bound.
    fn param<'a>(&self, value: &'a Value) -> Param<'a>;

    /// A column's value as it is bound to be written.
    fn param_of<'a>(&self, _ty: &ColumnType, value: &'a Value) -> Param<'a> {
        self.param(value)
    }

    /// The placeholder of a value that is written into a column, `{}` standing for the mark itself.
    fn value_placeholder(&self, _ty: &ColumnType) -> Cow<'static, str> {
        "{}".into()
    }

    /// The placeholder of a key column's value, `{}` standing for the mark itself.
    fn key_placeholder(&self, ty: &ColumnType) -> Cow<'static, str>;

    /// A column in the list of a SELECT, in the form in which the driver reads it exactly.
    fn select_column(&self, quoted: &str, ty: &ColumnType) -> String;

    /// A table, read by primary key and by nothing else: a scan would lock, or wait for, the rows of others.
    fn by_primary_key(&self, quoted_table: &str) -> String;

    /// A table, read by the index that begins with a column, in the order of the primary key. `is_key`: that index is the
    /// primary key's.
    fn by_index_of_column(&self, quoted_table: &str, _is_key: bool) -> String {
        quoted_table.to_owned()
    }

    /// Whether rows with a value in a column are sorted by that column and then by the key. The order is the same, but the
    /// primary key's index does not have it: for the sake of the order an optimizer that takes most rows for such might walk
    /// through that index, however long that takes, and not every server can be told to leave it alone. An index over the
    /// column and the key has the order.
    fn sorts_by_sought_column(&self) -> bool {
        false
    }

    /// A key column as it is sorted by, and compared with a value for what comes after that: both must be by the same.
    fn in_order<'q>(&self, quoted: &'q str, _ty: &ColumnType) -> Cow<'q, str> {
        quoted.into()
    }

    /// What stands behind a comparison of a column with a value, so that texts are compared byte by byte where the schema
    /// does not say how the column compares them.
    fn binary_collation(&self) -> &'static str {
        ""
    }

    /// A column of loosely compared texts, and the placeholder of a value, as they are compared character by character.
    fn character_by_character(&self, quoted: &str) -> (String, &'static str) {
        (quoted.to_owned(), "{}")
    }

    /// Locks what a SELECT reads.
    fn for_update(&self) -> &'static str;

    /// `DELETE FROM table`, by primary key.
    fn delete_from(&self, quoted_table: &str) -> String;

    /// The function that gives the larger of two numbers.
    fn greatest(&self) -> &'static str;

    /// What turns a multi-row INSERT into `table` into an upsert: `set` takes the new values where the row's `version` is lower
    /// than the new one, or always if none is named. All names are quoted; `version` is not among `set`.
    fn on_conflict_update(&self, table: &str, key: &[String], set: &[String], version: Option<&str>) -> String;

    /// Whether an upsert finds its row by the key it names alone, whatever other unique keys the table has.
    fn upsert_names_its_key(&self) -> bool {
        false
    }

    /// What turns an INSERT into one that leaves alone what is there.
    fn on_conflict_nothing(&self, key: &[&str]) -> String;

    /// What an upsert of so many rows reports if each of them was there and older.
    fn matched_by_upsert(&self, rows: u64) -> u64;

    /// Whether an error's code says that transactions stood in each other's way.
    fn is_deadlock(&self, code: &str) -> bool;
}
