//! What a table accepts: every check that the database would make, before anything is touched.

mod array;
mod canonical;
mod narrow;

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    Chance, Column, ColumnDefault, ColumnName, ColumnType, Key, MAX_KEY_BYTES, Row, TableSchema, Value, ValueKind,
    json_document, jsonb, uuid,
};

/// One thing wrong with a write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{column}: {problem}")]
pub struct Violation {
    /// The column.
    pub column: String,
    /// The stable name of the problem.
    pub reason: ViolationReason,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// The stable name of a problem; part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ViolationReason {
    /// The table has no such column.
    UnknownColumn,
    /// The value is of another kind than the column.
    WrongType,
    /// NULL where none may be.
    NotNullable,
    /// A column that must be named was not.
    MissingColumn,
    /// A column of the primary key is missing or NULL.
    MissingKey,
    /// Outside the column's range, length or precision.
    OutOfRange,
    /// An update names a column of the primary key with another value than the record's key.
    KeyChanged,
}

impl ViolationReason {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownColumn => "UNKNOWN_COLUMN",
            Self::WrongType => "WRONG_TYPE",
            Self::NotNullable => "NOT_NULLABLE",
            Self::MissingColumn => "MISSING_COLUMN",
            Self::MissingKey => "MISSING_KEY",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::KeyChanged => "KEY_CHANGED",
        }
    }
}

fn violation(column: &str, reason: ViolationReason, problem: impl Into<String>) -> Violation {
    Violation { column: column.to_owned(), reason, problem: problem.into() }
}

/// What a default may be made of.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// The time of the write.
    pub now: Timestamp,
    /// Whatever is left to chance.
    pub chance: &'a Chance,
}

impl TableSchema {
    /// The key from named values, each in its column's own type.
    ///
    /// # Errors
    /// Every column that is missing, NULL, unknown, not of the key, or of a wrong type or range.
    pub fn accept_key(&self, named: &Row) -> Result<Key, Vec<Violation>> {
        let mut wrong = Vec::new();
        for (name, _) in named.iter() {
            if !self.key().any(|c| c.name == *name) {
                let problem = if self.column(name.as_str()).is_some() {
                    "is not part of the primary key"
                } else {
                    "the table has no such column"
                };
                wrong.push(violation(name.as_str(), ViolationReason::UnknownColumn, problem));
            }
        }
        let mut values = Vec::with_capacity(self.key_columns.len());
        for column in self.key() {
            match named.get(column.name.as_str()) {
                None | Some(Value::Null) => wrong.push(violation(
                    column.name.as_str(),
                    ViolationReason::MissingKey,
                    "is part of the primary key and must be given",
                )),
                Some(value) => match column.accept(value.clone()).and_then(|value| column.key_form(&value)) {
                    Ok(value) => values.push(value),
                    Err(v) => wrong.push(v),
                },
            }
        }
        let key = Key(values);
        if wrong.is_empty() && key.to_bytes().as_bytes().len() > MAX_KEY_BYTES {
            let first = self.key().next().map_or("", |c| c.name.as_str());
            wrong.push(violation(
                first,
                ViolationReason::OutOfRange,
                format!("the primary key is longer than {MAX_KEY_BYTES} bytes"),
            ));
        }
        if wrong.is_empty() { Ok(key) } else { Err(wrong) }
    }

    /// A complete row from the columns that a create or put names: defaults filled in, every value in its
    /// column's own type, every column present.
    ///
    /// # Errors
    /// Every column that the database would refuse.
    pub fn accept_row(&self, named: Row, moment: Moment<'_>) -> Result<Row, Vec<Violation>> {
        let mut wrong = self.unknown_columns(&named);
        let mut row = Row::default();
        for (at, column) in self.columns.iter().enumerate() {
            let value = match named.get(column.name.as_str()) {
                Some(Value::Null) | None if self.key_columns.contains(&at) => Err(violation(
                    column.name.as_str(),
                    ViolationReason::MissingKey,
                    "is part of the primary key and must be given",
                )),
                Some(value) => column.accept(value.clone()),
                None => column.default_at(moment),
            };
            let value = match value {
                Ok(value) if self.key_columns.contains(&at) => column.key_form(&value).map(|_| value),
                value => value,
            };
            match value {
                Ok(value) => drop(row.insert(column.name.clone(), value)),
                Err(v) => wrong.push(v),
            }
        }
        if wrong.is_empty() { Ok(row) } else { Err(wrong) }
    }

    /// The columns that an update changes, each in its column's own type; `ON UPDATE` columns filled in.
    ///
    /// # Errors
    /// Every column that the database would refuse; a key column with another value than `key`.
    pub fn accept_changes(&self, key: &Key, named: Row, now: Timestamp) -> Result<Row, Vec<Violation>> {
        let mut wrong = self.unknown_columns(&named);
        let mut changes = Row::default();
        for (at, column) in self.columns.iter().enumerate() {
            let Some(value) = named.get(column.name.as_str()) else {
                if column.on_update_now {
                    match column.ty.at_instant(now) {
                        Some(value) => drop(changes.insert(column.name.clone(), value)),
                        None => {
                            wrong.push(violation(column.name.as_str(), ViolationReason::MissingColumn, "must be given"))
                        }
                    }
                }
                continue;
            };
            let in_key = self.key_columns.iter().position(|&k| k == at);
            match column.accept(value.clone()) {
                Err(v) => wrong.push(v),
                Ok(value) => match in_key {
                    Some(position) if column.ty.key_form(&value).as_ref() != key.0.get(position) => {
                        wrong.push(violation(
                            column.name.as_str(),
                            ViolationReason::KeyChanged,
                            "a primary key can't be changed: delete the record and create another",
                        ))
                    }
                    Some(_) => {}
                    None => drop(changes.insert(column.name.clone(), value)),
                },
            }
        }
        if wrong.is_empty() { Ok(changes) } else { Err(wrong) }
    }

    /// Checks a selection of columns by name.
    ///
    /// # Errors
    /// Every name that the table does not have.
    pub fn accept_selection(&self, names: &[String]) -> Result<Vec<ColumnName>, Vec<Violation>> {
        let (mut chosen, mut wrong) = (Vec::new(), Vec::new());
        for name in names {
            match self.column(name) {
                Some(column) => chosen.push(column.name.clone()),
                None => wrong.push(violation(name, ViolationReason::UnknownColumn, "the table has no such column")),
            }
        }
        if wrong.is_empty() { Ok(chosen) } else { Err(wrong) }
    }

    fn unknown_columns(&self, named: &Row) -> Vec<Violation> {
        named
            .iter()
            .filter(|(name, _)| self.column(name.as_str()).is_none())
            .map(|(name, _)| violation(name.as_str(), ViolationReason::UnknownColumn, "the table has no such column"))
            .collect()
    }
}

impl Column {
    /// The value in the column's own type, as the database would give it back.
    ///
    /// # Errors
    /// What the database would refuse in strict mode.
    pub fn accept(&self, value: Value) -> Result<Value, Violation> {
        if value.is_null() {
            return if self.nullable {
                Ok(value)
            } else {
                Err(violation(self.name.as_str(), ViolationReason::NotNullable, "may not be NULL"))
            };
        }
        let given = value.kind();
        self.ty.accept(value).map_err(|refusal| match refusal {
            Refusal::Type => violation(
                self.name.as_str(),
                ViolationReason::WrongType,
                format!("is a {} column, the value is a {given}", self.ty.kind()),
            ),
            Refusal::Range(problem) => violation(self.name.as_str(), ViolationReason::OutOfRange, problem),
        })
    }

    /// What stands in a key for this value; see [`ColumnType::key_form`].
    fn key_form(&self, value: &Value) -> Result<Value, Violation> {
        let unknown = "is in the primary key, and which texts are equal to it only the database knows: its collation \
                       lets us tell printable ASCII apart; give the column a binary collation, such as utf8mb4_bin, \
                       to have other characters in it";
        let refused = || violation(self.name.as_str(), ViolationReason::OutOfRange, unknown);
        self.ty.key_form(value).ok_or_else(refused)
    }

    /// What a row gets that does not name the column, where that is the same at every moment: a constant, or NULL.
    pub fn constant_default(&self) -> Option<Value> {
        match &self.default {
            ColumnDefault::Constant(value) => Some(value.clone()),
            ColumnDefault::None if self.nullable => Some(Value::Null),
            ColumnDefault::None | ColumnDefault::CurrentTimestamp | ColumnDefault::Uuid | ColumnDefault::Expression => {
                None
            }
        }
    }

    /// What a row gets that is made at this moment and does not name the column.
    ///
    /// # Errors
    /// If it must name it.
    pub fn default_at(&self, moment: Moment<'_>) -> Result<Value, Violation> {
        let Moment { now, chance } = moment;
        let must_be_given = |why: &str| Err(violation(self.name.as_str(), ViolationReason::MissingColumn, why));
        match &self.default {
            ColumnDefault::Constant(value) => Ok(value.clone()),
            ColumnDefault::CurrentTimestamp => {
                self.ty.at_instant(now).map_or_else(|| must_be_given("must be given"), Ok)
            }
            ColumnDefault::Uuid => match self.ty.kind() {
                ValueKind::Bytes => self.accept(Value::Bytes(uuid::made_at(now, chance).to_vec().into())),
                _ => self.accept(Value::Text(uuid::text_of(uuid::made_at(now, chance)))),
            },
            ColumnDefault::None if self.nullable => Ok(Value::Null),
            ColumnDefault::None => must_be_given("has no default and may not be NULL: it must be given"),
            ColumnDefault::Expression => {
                must_be_given("has a default that only the database can evaluate: it must be given")
            }
        }
    }
}

pub use array::array_elements;

enum Refusal {
    Type,
    Range(String),
}

fn range(problem: impl Into<String>) -> Refusal {
    Refusal::Range(problem.into())
}

impl ColumnType {
    /// The time of a write in this type, in UTC and cut to the column's precision; `None` if it holds no time.
    fn at_instant(&self, now: Timestamp) -> Option<Value> {
        let cut = |fraction: u8| {
            let unit = 10_i64.pow(u32::from(6 - fraction.min(6)));
            Timestamp::from_microsecond(now.as_microsecond().div_euclid(unit) * unit).ok()
        };
        Some(match self {
            ColumnType::Timestamp { fraction } | ColumnType::EpochTimestamp { fraction, .. } => {
                Value::Timestamp(cut(*fraction)?)
            }
            ColumnType::DateTime { fraction } => Value::DateTime(TimeZone::UTC.to_datetime(cut(*fraction)?)),
            ColumnType::Date => Value::Date(TimeZone::UTC.to_datetime(now).date()),
            _ => return None,
        })
    }

    fn accept(&self, value: Value) -> Result<Value, Refusal> {
        Ok(match (self, value) {
            (Self::Bool, value @ Value::Bool(_)) => value,
            (Self::Int { bits }, Value::Int64(n)) => Value::Int64(signed(i128::from(n), *bits)?),
            (Self::Int { bits }, Value::Uint64(n)) => Value::Int64(signed(i128::from(n), *bits)?),
            (Self::Uint { bits }, Value::Int64(n)) => Value::Uint64(unsigned(i128::from(n), *bits)?),
            (Self::Uint { bits }, Value::Uint64(n)) => Value::Uint64(unsigned(i128::from(n), *bits)?),
            (Self::Double, Value::Double(x)) if x.is_finite() => Value::Double(x),
            (Self::Double, Value::Double(_)) => return Err(range("must be finite")),
            (Self::Decimal { precision, scale }, Value::Decimal(text)) => {
                Value::Decimal(decimal(&text, *precision, *scale)?)
            }
            (Self::Decimal { precision, scale }, Value::Int64(n)) => {
                Value::Decimal(decimal(&n.to_string(), *precision, *scale)?)
            }
            (Self::Decimal { precision, scale }, Value::Uint64(n)) => {
                Value::Decimal(decimal(&n.to_string(), *precision, *scale)?)
            }
            (Self::Text { max_chars, max_bytes }, Value::Text(text)) => {
                bounded("characters", text.chars().count(), *max_chars)?;
                bounded("bytes", text.len(), *max_bytes)?;
                Value::Text(text)
            }
            (Self::Bytes { max_bytes }, Value::Bytes(bytes)) => {
                bounded("bytes", bytes.len(), *max_bytes)?;
                Value::Bytes(bytes)
            }
            (Self::Timestamp { fraction }, Value::Timestamp(at)) => {
                fits_fraction(at.subsec_nanosecond(), *fraction)?;
                in_our_era(TimeZone::UTC.to_datetime(at).year())?;
                Value::Timestamp(at)
            }
            (Self::DateTime { fraction }, Value::DateTime(at)) => {
                fits_fraction(at.subsec_nanosecond(), *fraction)?;
                in_our_era(at.year())?;
                Value::DateTime(at)
            }
            (Self::Date, Value::Date(at)) => {
                in_our_era(at.year())?;
                Value::Date(at)
            }
            (Self::Time { fraction }, Value::Time(at)) => {
                fits_fraction((at.micros % 1_000_000) as i32 * 1000, *fraction)?;
                if at.micros.unsigned_abs() > 3_020_399_000_000 {
                    return Err(range("is outside -838:59:59 to 838:59:59"));
                }
                Value::Time(at)
            }
            (Self::Json, Value::Json(text)) => {
                serde_json::from_str::<serde::de::IgnoredAny>(&text).map_err(|e| range(format!("is not JSON: {e}")))?;
                Value::Json(text)
            }
            (Self::Real, Value::Double(x)) => Value::Double(canonical::single(x)?),
            (Self::Numeric, Value::Decimal(text)) => Value::Decimal(canonical::numeric(&text)?),
            (Self::Numeric, Value::Int64(n)) => Value::Decimal(n.to_string()),
            (Self::Numeric, Value::Uint64(n)) => Value::Decimal(n.to_string()),
            (Self::Characters { max_chars }, Value::Text(text)) => {
                bounded("characters", text.chars().count(), *max_chars)?;
                canonical::without_nul(&text)?;
                Value::Text(text)
            }
            (Self::Padded { chars }, Value::Text(text)) => {
                canonical::without_nul(&text)?;
                Value::Text(canonical::padded(&text, *chars)?)
            }
            (Self::TimeOfDay { fraction }, Value::Time(at)) => {
                fits_fraction((at.micros % 1_000_000) as i32 * 1000, *fraction)?;
                if !(0..=86_400_000_000).contains(&at.micros) {
                    return Err(range("is outside 00:00:00 to 24:00:00"));
                }
                Value::Time(at)
            }
            (Self::Uuid, Value::Text(text)) => Value::Text(canonical::uuid(&text)?),
            (Self::Enum { labels }, Value::Text(text)) => {
                if !labels.contains(&text) {
                    return Err(range(format!("is none of {}", labels.join(", "))));
                }
                Value::Text(text)
            }
            (Self::Inet, Value::Text(text)) => Value::Text(canonical::inet(&text)?),
            (Self::Jsonb, Value::Json(text)) => {
                Value::Json(jsonb::canonical(&text).map_err(|problem| range(format!("is not JSON: {problem}")))?)
            }
            (Self::Cidr, Value::Text(text)) => Value::Text(canonical::cidr(&text)?),
            (Self::Array { element, .. }, Value::Json(text)) => Value::Json(array::canonical(&text, element)?),
            (Self::JsonDocument, Value::Json(text)) => Value::Json(
                json_document::canonical(&text).map_err(|problem| range(format!("is not JSON: {problem}")))?,
            ),
            (Self::JsonText { max_depth }, Value::Json(text)) => Value::Json(narrow::json_text(text, *max_depth)?),
            (Self::Collated { repertoire, max_chars, max_bytes, is_trimmed, .. }, Value::Text(text)) => {
                let text = if *is_trimmed { text.trim_end_matches(' ').to_owned() } else { text };
                narrow::in_repertoire(&text, *repertoire)?;
                bounded("characters", text.chars().count(), *max_chars)?;
                bounded("bytes", repertoire.bytes_of(&text), *max_bytes)?;
                Value::Text(text)
            }
            (Self::PaddedBytes { bytes: size }, Value::Bytes(bytes)) => {
                bounded("bytes", bytes.len(), Some(*size))?;
                Value::Bytes(narrow::padded_bytes(bytes, *size))
            }
            (Self::Set { labels }, Value::Text(text)) => Value::Text(narrow::set(&text, labels)?),
            (Self::Year, Value::Uint64(year)) => Value::Uint64(narrow::year(i128::from(year))?),
            (Self::Year, Value::Int64(year)) => Value::Uint64(narrow::year(i128::from(year))?),
            (Self::EpochTimestamp { fraction, last_second }, Value::Timestamp(at)) => {
                fits_fraction(at.subsec_nanosecond(), *fraction)?;
                narrow::since_epoch(at, *last_second)?;
                Value::Timestamp(at)
            }
            (Self::Inet4, Value::Text(text)) => Value::Text(narrow::inet4(&text)?),
            (Self::Inet6, Value::Text(text)) => Value::Text(narrow::inet6(&text)?),
            (Self::NonNegative(ty), value) => narrow::not_negative(ty.accept(value)?)?,
            (Self::SignlessZero(ty), value) => match ty.accept(value)? {
                // Which makes zero of minus zero, and leaves alone any other number.
                Value::Double(number) => Value::Double(number + 0.0),
                value => value,
            },
            _ => return Err(Refusal::Type),
        })
    }
}

fn bounded(unit: &str, len: usize, max: Option<u64>) -> Result<(), Refusal> {
    match max {
        Some(max) if len as u64 > max => Err(range(format!("has {len} {unit}, the column holds {max}"))),
        _ => Ok(()),
    }
}

fn signed(n: i128, bits: u8) -> Result<i64, Refusal> {
    let half = 1_i128 << (bits - 1);
    if (-half..half).contains(&n) { Ok(n as i64) } else { Err(range(format!("is outside {} to {}", -half, half - 1))) }
}

fn unsigned(n: i128, bits: u8) -> Result<u64, Refusal> {
    let limit = 1_i128 << bits;
    if (0..limit).contains(&n) { Ok(n as u64) } else { Err(range(format!("is outside 0 to {}", limit - 1))) }
}

/// What every database keeps, and every client reads.
fn in_our_era(year: i16) -> Result<(), Refusal> {
    if (1..=9999).contains(&year) { Ok(()) } else { Err(range("is outside the years 1 to 9999")) }
}

fn fits_fraction(nanos: i32, fraction: u8) -> Result<(), Refusal> {
    let unit = 10_i32.pow(9 - u32::from(fraction.min(6)));
    if nanos % unit == 0 {
        Ok(())
    } else {
        Err(range(format!("has more than {fraction} digits after the second, which the column would round")))
    }
}

/// A decimal in the column's own form: no needless zeros in front, exactly `scale` digits after the point, no
/// negative zero.
fn decimal(text: &str, precision: u16, scale: u16) -> Result<String, Refusal> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || digits.ends_with('.') {
        return Err(range("is not a decimal of the form -?digits(.digits)?"));
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let (precision, scale) = (usize::from(precision), usize::from(scale));
    if fraction.len() > scale {
        return Err(range(format!("has {} digits after the point, the column holds {scale}", fraction.len())));
    }
    if whole.len() > precision - scale {
        return Err(range(format!(
            "has {} digits before the point, the column holds {}",
            whole.len(),
            precision - scale
        )));
    }
    let sign = if negative && !(whole.is_empty() && fraction.is_empty()) { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction:0<scale$}") })
}

#[cfg(test)]
mod tests;
