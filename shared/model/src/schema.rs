//! A table's schema as it was introspected from the database.

use std::fmt;

use xxhash_rust::xxh3::Xxh3;

use crate::{Collation, ColumnName, Equality, Key, Repertoire, Row, Shard, ShardCount, TableRef, Value, ValueKind};

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnType {
    /// A truth value: BOOLEAN, TINYINT(1).
    Bool,
    /// A signed integer of 8, 16, 24, 32 or 64 bits.
    Int {
        /// Width.
        bits: u8,
    },
    /// An unsigned integer of 8, 16, 24, 32 or 64 bits.
    Uint {
        /// Width.
        bits: u8,
    },
    /// A double.
    Double,
    /// A decimal; a value always has exactly `scale` digits after the point.
    Decimal {
        /// Digits in all.
        precision: u16,
        /// Digits after the point.
        scale: u16,
    },
    /// Text of at most so many characters and bytes.
    Text {
        /// Limit in characters, as of VARCHAR(n).
        max_chars: Option<u64>,
        /// Limit in bytes, as of TEXT.
        max_bytes: Option<u64>,
    },
    /// Bytes, at most so many.
    Bytes {
        /// Limit in bytes.
        max_bytes: Option<u64>,
    },
    /// An instant.
    Timestamp {
        /// Digits of the fraction of a second, 0 to 6.
        fraction: u8,
    },
    /// A civil date and time.
    DateTime {
        /// Digits of the fraction of a second, 0 to 6.
        fraction: u8,
    },
    /// A civil date.
    Date,
    /// A time, may exceed 24 h.
    Time {
        /// Digits of the fraction of a second, 0 to 6.
        fraction: u8,
    },
    /// JSON as text.
    Json,
    /// A float of single precision; a value is the double that is equal to it.
    Real,
    /// A decimal of any precision, which keeps the digits after the point that it was written with.
    Numeric,
    /// Text without the character U+0000, of at most so many characters.
    Characters {
        /// Limit in characters, as of VARCHAR(n).
        max_chars: Option<u64>,
    },
    /// Text without the character U+0000, filled up with spaces to so many characters.
    Padded {
        /// Characters, as of CHAR(n).
        chars: u64,
    },
    /// A time of day, 00:00 to 24:00.
    TimeOfDay {
        /// Digits of the fraction of a second, 0 to 6.
        fraction: u8,
    },
    /// A UUID, as text in lower case with hyphens.
    Uuid,
    /// One of these texts.
    Enum {
        /// The texts.
        labels: Vec<String>,
    },
    /// An address of a host, IPv4 or IPv6, perhaps with the length of its network's prefix.
    Inet,
    /// The address of a network, IPv4 or IPv6, with the length of its prefix.
    Cidr,
    /// An array of one dimension, as JSON.
    Array {
        /// What it holds, beside NULLs.
        element: Box<ColumnType>,
        /// What the database calls that type, quoted where it has to be.
        name: String,
    },
    /// JSON in the form in which PostgreSQL keeps JSONB.
    Jsonb,
    /// JSON in the form in which MySQL keeps it.
    JsonDocument,
    /// JSON as text, nested no deeper than so.
    JsonText {
        /// Arrays and objects in one another.
        max_depth: usize,
    },
    /// Text in some character set, compared by some collation.
    Collated {
        /// The characters that it may have.
        repertoire: Repertoire,
        /// Which texts are equal.
        collation: Collation,
        /// Limit in characters, as of VARCHAR(n).
        max_chars: Option<u64>,
        /// Limit in bytes, as of TEXT.
        max_bytes: Option<u64>,
        /// Spaces at the end are dropped, as by CHAR(n).
        is_trimmed: bool,
    },
    /// Bytes, filled up with zeros to so many, as of BINARY(n).
    PaddedBytes {
        /// How many.
        bytes: u64,
    },
    /// Several of these texts, with commas between them, in this order.
    Set {
        /// The texts.
        labels: Vec<String>,
    },
    /// A year from 1901 to 2155, or 0.
    Year,
    /// An instant between the second after 1970-01-01T00:00:00Z and this one, as of MySQL's TIMESTAMP.
    EpochTimestamp {
        /// Digits of the fraction of a second, 0 to 6.
        fraction: u8,
        /// Seconds since 1970-01-01T00:00:00Z.
        last_second: i64,
    },
    /// An IPv4 address.
    Inet4,
    /// An IPv6 address.
    Inet6,
    /// A number of this type that is not negative.
    NonNegative(Box<ColumnType>),
    /// A number of this type whose zero has no sign.
    SignlessZero(Box<ColumnType>),
}

impl ColumnType {
    /// The kind of value that such a column holds.
    pub fn kind(&self) -> ValueKind {
        match self {
            ColumnType::Bool => ValueKind::Bool,
            ColumnType::Int { .. } => ValueKind::Int64,
            ColumnType::Uint { .. } => ValueKind::Uint64,
            ColumnType::Double => ValueKind::Double,
            ColumnType::Decimal { .. } => ValueKind::Decimal,
            ColumnType::Text { .. } => ValueKind::Text,
            ColumnType::Bytes { .. } => ValueKind::Bytes,
            ColumnType::Timestamp { .. } => ValueKind::Timestamp,
            ColumnType::DateTime { .. } => ValueKind::DateTime,
            ColumnType::Date => ValueKind::Date,
            ColumnType::Time { .. } => ValueKind::Time,
            ColumnType::Json | ColumnType::Jsonb => ValueKind::Json,
            ColumnType::Real => ValueKind::Double,
            ColumnType::Numeric => ValueKind::Decimal,
            ColumnType::TimeOfDay { .. } => ValueKind::Time,
            ColumnType::Characters { .. }
            | ColumnType::Padded { .. }
            | ColumnType::Uuid
            | ColumnType::Enum { .. }
            | ColumnType::Inet => ValueKind::Text,
            ColumnType::Collated { .. }
            | ColumnType::Cidr
            | ColumnType::Set { .. }
            | ColumnType::Inet4
            | ColumnType::Inet6 => ValueKind::Text,
            ColumnType::JsonDocument | ColumnType::JsonText { .. } | ColumnType::Array { .. } => ValueKind::Json,
            ColumnType::PaddedBytes { .. } => ValueKind::Bytes,
            ColumnType::Year => ValueKind::Uint64,
            ColumnType::EpochTimestamp { .. } => ValueKind::Timestamp,
            ColumnType::NonNegative(ty) | ColumnType::SignlessZero(ty) => ty.kind(),
        }
    }

    /// The type without what is said about its sign: how the database keeps and gives it.
    pub fn stored_as(&self) -> &ColumnType {
        match self {
            ColumnType::NonNegative(ty) | ColumnType::SignlessZero(ty) => ty.stored_as(),
            ty => ty,
        }
    }

    /// The value that stands in a key for this one and all that the database takes for equal to it; `None` where only
    /// the database knows which those are.
    pub fn key_form(&self, value: &Value) -> Option<Value> {
        match (self, value) {
            (ColumnType::Collated { collation, .. }, Value::Text(text)) => collation.form_of(text).map(Value::Text),
            _ => Some(value.clone()),
        }
    }

    /// The value that stands for this one and all that the database takes for equal to it (`=`): by it an index of ours
    /// finds what the database would find. `None` where only the database knows what is equal to the value, and for NULL,
    /// which is equal to nothing. The value is in the column's own type, as [`Column::accept`] gives it.
    ///
    /// SQLite is to be asked with `COLLATE BINARY`, for it doesn't tell which collation a column has.
    pub fn equality_form(&self, value: &Value) -> Option<Value> {
        Some(match (self.stored_as(), value) {
            (_, Value::Null | Value::Json(_)) => return None,
            // Which makes zero of minus zero, and leaves alone any other number.
            (_, Value::Double(number)) => Value::Double(number + 0.0),
            // It keeps the digits that it was written with, and 1.0 is 1.00.
            (ColumnType::Numeric, Value::Decimal(text)) if text.contains('.') => {
                Value::Decimal(text.trim_end_matches('0').trim_end_matches('.').to_owned())
            }
            (ty, value) => ty.key_form(value)?,
        })
    }

    /// The value that stands for this one and all that a find takes for it: as [`Self::equality_form`], but where a
    /// collation takes different texts for equal, each stands for itself alone, which can be told of every text.
    pub fn find_form(&self, value: &Value) -> Option<Value> {
        match value {
            Value::Text(_) if self.is_loose() => Some(value.clone()),
            _ => self.equality_form(value),
        }
    }

    /// Whether texts of different characters can be equal to the database, not only by the spaces at their ends.
    pub fn is_loose(&self) -> bool {
        matches!(self, ColumnType::Collated { collation, .. } if collation.equality != Equality::Exact)
    }

    /// [`Self::equality_form`] as bytes: two values share them exactly if the database takes them for equal.
    pub fn equality_bytes(&self, value: &Value) -> Option<Vec<u8>> {
        let form = self.equality_form(value)?;
        Some(Key(vec![form]).to_bytes().as_bytes().to_vec())
    }

    /// Whether different values of it can be equal to the database.
    pub fn has_spellings(&self) -> bool {
        matches!(self, ColumnType::Collated { collation, .. } if *collation != Collation::BINARY)
    }
}

/// What a column gets that a write does not name.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnDefault {
    /// Nothing: NULL where that is allowed, else the write must name the column.
    None,
    /// A constant, already in the column's type.
    Constant(Value),
    /// The time of the write.
    CurrentTimestamp,
    /// A UUID that nothing else has, made for the write.
    Uuid,
    /// An expression that only the database can evaluate: the write must name the column.
    Expression,
}

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: ColumnName,
    /// Its type.
    pub ty: ColumnType,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Its default.
    pub default: ColumnDefault,
    /// `ON UPDATE CURRENT_TIMESTAMP`: gets the time of each write that does not name it.
    pub on_update_now: bool,
}

/// Where the version of a row is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionGuard {
    /// In the row itself, column `_sa_version`.
    Column,
    /// In the ledger, for tables that may not be altered.
    Ledger,
}

/// A table: its columns and its primary key.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSchema {
    /// The table.
    pub table: TableRef,
    /// All columns but our own `_sa_version`, in the table's order.
    pub columns: Vec<Column>,
    /// Positions in `columns` of the primary key's columns, in the key's order.
    pub key_columns: Vec<usize>,
    /// Positions *in the key* of the columns that decide the shard; all of them unless `group_by` says less.
    pub group: Vec<usize>,
    /// Whether another unique key than the primary one exists; such a table is not written by upsert.
    pub has_secondary_unique: bool,
    /// Where versions are kept.
    pub guard: VersionGuard,
}

/// A hash over names and types of a schema: tells that a stored row was validated under another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl TableSchema {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name.as_str() == name)
    }

    /// A row, also with the columns that it lacks and that get the same whenever they are not named.
    #[must_use]
    pub fn with_constant_defaults(&self, mut row: Row) -> Row {
        for column in &self.columns {
            if row.get(column.name.as_str()).is_none()
                && let Some(value) = column.constant_default()
            {
                row.insert(column.name.clone(), value);
            }
        }
        row
    }

    /// The columns of the primary key, in the key's order.
    pub fn key(&self) -> impl ExactSizeIterator<Item = &Column> + Clone {
        self.key_columns.iter().map(|&at| &self.columns[at])
    }

    /// The columns outside the primary key, in the table's order.
    pub fn non_key(&self) -> impl Iterator<Item = &Column> + Clone {
        self.columns.iter().enumerate().filter(|(at, _)| !self.key_columns.contains(at)).map(|(_, c)| c)
    }

    /// The key of a complete row; `None` if a key column is missing, or is of those of which only the database knows
    /// what they are equal to.
    pub fn key_of(&self, row: &Row) -> Option<Key> {
        self.key().map(|c| c.ty.key_form(row.get(c.name.as_str())?)).collect::<Option<Vec<_>>>().map(Key)
    }

    /// The shard of a record.
    pub fn shard_of(&self, key: &Key, shards: ShardCount) -> Shard {
        shards.shard_of(&key.group_bytes(&self.group))
    }

    /// A hash over the names, types and nullability of all columns and the key.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Xxh3::new();
        for column in &self.columns {
            hash.update(format!("{:?} {:?} {}\n", column.name, column.ty, column.nullable).as_bytes());
        }
        hash.update(format!("{:?}", self.key_columns).as_bytes());
        Fingerprint(hash.digest())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn equal_values_share_their_bytes_and_others_do_not() {
        let text = |t: &str| Value::Text(t.to_owned());
        let decimal = |t: &str| Value::Decimal(t.to_owned());
        let collated = |equality| ColumnType::Collated {
            repertoire: Repertoire::Unicode,
            collation: Collation { equality, pads: true },
            max_chars: None,
            max_bytes: None,
            is_trimmed: false,
        };
        for (ty, a, b, are_equal) in [
            (ColumnType::Double, Value::Double(0.0), Value::Double(-0.0), true),
            (ColumnType::Double, Value::Double(0.0), Value::Double(5e-324), false),
            (ColumnType::Numeric, decimal("1.0"), decimal("1.00"), true),
            (ColumnType::Numeric, decimal("10"), decimal("10.0"), true),
            (ColumnType::Numeric, decimal("100"), decimal("1"), false),
            (ColumnType::Numeric, decimal("0.0"), decimal("0"), true),
            (collated(Equality::IgnoringCase), text("Ab "), text("aB"), true),
            (collated(Equality::ExactInAscii), text("Ab "), text("aB"), false),
            (collated(Equality::Exact), text("é "), text("é"), true),
            (ColumnType::Text { max_chars: None, max_bytes: None }, text("a "), text("a"), false),
            (ColumnType::Int { bits: 8 }, Value::Int64(1), Value::Int64(-1), false),
        ] {
            let (a, b) = (ty.equality_bytes(&a).unwrap(), ty.equality_bytes(&b).unwrap());
            assert_eq!(a == b, are_equal, "{ty:?} {a:?} {b:?}");
        }
    }

    #[test]
    fn what_only_the_database_can_compare_has_no_bytes() {
        let loose = ColumnType::Collated {
            repertoire: Repertoire::Unicode,
            collation: Collation { equality: Equality::IgnoringCase, pads: false },
            max_chars: None,
            max_bytes: None,
            is_trimmed: false,
        };
        for (ty, value) in [
            (loose, Value::Text("é".to_owned())),
            (ColumnType::Jsonb, Value::Json("1".to_owned())),
            (ColumnType::Bool, Value::Null),
        ] {
            assert_eq!(ty.equality_bytes(&value), None, "{ty:?}");
        }
    }
}
