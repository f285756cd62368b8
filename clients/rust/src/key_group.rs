//! Which writes of a batch may concern the same record.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::{TableRef, Value, Write};

/// Writes with different groups certainly concern different records; those with the same group may concern one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum KeyGroup {
    /// A key of a table.
    Key(TableRef, Vec<KeyPart>),
    /// All of a table, whose keys can't be told apart.
    Table(String),
}

/// A value of a key as far as this side can tell it from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum KeyPart {
    Bool(bool),
    Number(String),
    Text(String),
    Bytes(Vec<u8>),
    /// Times have several spellings, which only the server compares.
    Any,
}

impl KeyPart {
    fn of(value: &Value) -> Self {
        match value {
            Value::Bool(b) => Self::Bool(*b),
            Value::Int64(n) => Self::Number(n.to_string()),
            Value::Uint64(n) => Self::Number(n.to_string()),
            Value::Decimal(text) => Self::Number(plain_number(text)),
            Value::Text(text) => Self::of_text(text),
            // Zeros fill up BINARY(n).
            Value::Bytes(bytes) => {
                let len = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                Self::Bytes(bytes[..len].to_vec())
            }
            _ => Self::Any,
        }
    }

    /// Of which type the column is only the server knows, and of some it takes several spellings.
    fn of_text(text: &str) -> Self {
        // Most collations take these for one.
        let text = text.trim_end().to_lowercase();
        // A UUID, with braces and hyphens or without.
        let digits: String = text.chars().filter(|c| !matches!(c, '{' | '}' | '-')).collect();
        if digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Self::Text(digits);
        }
        // An address or a network: its length may be left out, and so may zeros at its end.
        let address = text.split_once('/').map_or(text.as_str(), |(address, _)| address);
        let parsed = address.parse::<IpAddr>().map(|address| address.to_canonical().to_string());
        let known = parsed.as_deref().unwrap_or(address);
        if known.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.')) {
            return Self::Text(known.trim_end_matches(".0").to_owned());
        }
        if let Ok(address) = parsed {
            return Self::Text(address);
        }
        // A SET's members, in any order.
        let members: BTreeSet<&str> = text.split(',').collect();
        Self::Text(members.into_iter().collect::<Vec<_>>().join(","))
    }
}

/// The group of one write among any others, by its table's key; `None` if it does not name that, which no server accepts.
/// Tables of one name in several databases are taken for one.
pub(crate) fn group_of(write: &Write, key: &[String]) -> Option<KeyGroup> {
    let parts = key.iter().map(|column| write.columns().get(column).map(KeyPart::of)).collect::<Option<Vec<_>>>()?;
    Some(KeyGroup::Key(TableRef::new("", &write.table.table), parts)).filter(|_| !key.is_empty())
}

/// Without needless zeros: 7, 07 and 7.00 are one number.
fn plain_number(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    match (whole, fraction) {
        ("", "") => "0".to_owned(),
        ("", fraction) => format!("{sign}0.{fraction}"),
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

/// The group of every write, by what is known of the tables' keys. Where that does not tell keys apart, all writes to
/// the table are one group.
pub(crate) fn key_groups(writes: &[&Write], keys: &HashMap<TableRef, Arc<[String]>>) -> Vec<KeyGroup> {
    let parts = |write: &Write| -> Option<Vec<KeyPart>> {
        let columns = keys.get(&write.table)?;
        columns.iter().map(|column| write.columns().get(column).map(KeyPart::of)).collect()
    };
    let known: Vec<Option<Vec<KeyPart>>> = writes.iter().map(|write| parts(write)).collect();
    // One write whose key is not known could be any of its table's; and a table named with its database in one
    // write and without in another is the same table.
    let mut unclear: HashMap<&str, bool> = HashMap::new();
    let mut databases: HashMap<&str, &str> = HashMap::new();
    for (write, parts) in writes.iter().zip(&known) {
        let TableRef { database, table } = &write.table;
        let other = *databases.entry(table).or_insert(database);
        let mixed = other != database && (other.is_empty() || database.is_empty());
        *unclear.entry(table).or_default() |= parts.is_none() || mixed;
    }
    writes
        .iter()
        .zip(known)
        .map(|(write, parts)| match parts {
            Some(parts) if !unclear.get(write.table.table.as_str()).copied().unwrap_or(true) => {
                KeyGroup::Key(write.table.clone(), parts)
            }
            _ => KeyGroup::Table(write.table.table.clone()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Row;

    fn put(table: &str, id: impl Into<Value>) -> Write {
        Write::put(table, Row::new().set("id", id).set("x", 1))
    }

    fn groups(writes: &[Write]) -> Vec<KeyGroup> {
        let id: Arc<[String]> = Arc::from(["id".to_owned()]);
        let keys = ["t", "main.t", "main.u"].map(|table| (TableRef::from(table), id.clone())).into();
        key_groups(&writes.iter().collect::<Vec<_>>(), &keys)
    }

    #[test]
    fn the_same_key_in_other_words_is_the_same_group() {
        let same = [
            put("t", 7),
            put("t", 7_u64),
            put("t", Value::decimal("7.00")),
            put("t", Value::decimal("07")),
            Write::update("t", Row::new().set("id", 7), Row::new().set("x", 2)),
            Write::delete("t", Row::new().set("id", 7)),
        ];
        let groups = groups(&same);
        assert!(groups.iter().all(|group| *group == groups[0]), "{groups:?}");
        assert_eq!(plain_number("-0.0"), "0");
        assert_eq!(plain_number("-00.50"), "-0.5");
    }

    #[test]
    fn the_spellings_of_a_type_are_the_same_group() {
        for spellings in [
            ["{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}", "a0eebc999c0b4ef8bb6d6bb9bd380a11"],
            ["2001:DB8:0:0::1", "2001:db8::1/128"],
            ["::ffff:10.0.0.1", "10.0.0.1"],
            ["10/8", "10.0.0.0/8"],
            ["10.0.0.0", "10"],
            ["b,a", "a,b,b"],
            ["Abc ", "aBC"],
        ] {
            let [one, other] = spellings.map(|text| KeyPart::of(&Value::from(text)));
            assert_eq!(one, other, "{spellings:?}");
        }
        let bytes = |bytes: &[u8]| KeyPart::of(&Value::from(bytes.to_vec()));
        assert_eq!(bytes(b"a"), bytes(b"a\0"));
        assert_ne!(bytes(b"a"), bytes(b"\0a"));
        for others in [["a,b", "a,c"], ["10.0.0.1", "10.0.0.2"], ["a/b", "a/c"], ["", "0"]] {
            let [one, other] = others.map(|text| KeyPart::of(&Value::from(text)));
            assert_ne!(one, other);
        }
    }

    #[test]
    fn other_keys_and_tables_are_other_groups() {
        let groups = groups(&[put("main.t", 1), put("main.t", 2), put("main.u", 1), put("main.t", "1")]);
        for (at, group) in groups.iter().enumerate() {
            assert!(!groups[..at].contains(group), "{groups:?}");
        }
    }

    #[test]
    fn what_can_t_be_told_apart_is_one_group() {
        let by_time = groups(&[put("t", Value::time("1:00:00")), put("t", Value::time("01:00:00"))]);
        assert_eq!(by_time[0], by_time[1]);
        let no_key = groups(&[put("t", 1), put("t", 2), Write::put("t", Row::new().set("x", 1))]);
        assert!(no_key.iter().all(|group| *group == KeyGroup::Table("t".into())), "{no_key:?}");
        let unknown = groups(&[put("other", 1), put("other", 2)]);
        assert_eq!(unknown[0], unknown[1]);
        let mixed = groups(&[put("t", 1), put("main.t", 1), put("main.t", 2)]);
        assert!(mixed.iter().all(|group| *group == mixed[0]), "{mixed:?}");
    }
}
