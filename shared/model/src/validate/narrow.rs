//! Values of the types that only some databases have.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use jiff::Timestamp;

use super::{Refusal, range};
use crate::{
    Repertoire, Value,
    jsonb::{Rules, rewritten},
};

/// Only characters that the column's character set has.
pub(super) fn in_repertoire(text: &str, repertoire: Repertoire) -> Result<(), Refusal> {
    match text.chars().find(|c| !repertoire.contains(*c)) {
        None => Ok(()),
        Some(c) => {
            Err(range(format!("holds the character U+{:04X}, which the column's character set lacks", u32::from(c))))
        }
    }
}

/// Filled up with zeros.
pub(super) fn padded_bytes(bytes: Bytes, size: u64) -> Bytes {
    match usize::try_from(size) {
        Ok(size) if bytes.len() < size => {
            let mut padded = bytes.to_vec();
            padded.resize(size, 0);
            padded.into()
        }
        _ => bytes,
    }
}

/// Each label once, in the order of their declaration.
pub(super) fn set(text: &str, labels: &[String]) -> Result<String, Refusal> {
    let given: Vec<&str> = if text.is_empty() { Vec::new() } else { text.split(',').collect() };
    if let Some(unknown) = given.iter().find(|label| !labels.iter().any(|l| l == *label)) {
        return Err(range(format!("holds {unknown:?}, which is none of {}", labels.join(", "))));
    }
    let kept: Vec<&str> = labels.iter().map(String::as_str).filter(|label| given.contains(label)).collect();
    Ok(kept.join(","))
}

/// Of fewer digits the database would make another year.
pub(super) fn year(year: i128) -> Result<u64, Refusal> {
    match u64::try_from(year) {
        Ok(year @ (0 | 1901..=2155)) => Ok(year),
        _ => Err(range("is neither a year from 1901 to 2155 nor 0")),
    }
}

pub(super) fn since_epoch(at: Timestamp, last_second: i64) -> Result<(), Refusal> {
    if (1..=last_second).contains(&at.as_second()) {
        return Ok(());
    }
    let last = Timestamp::from_second(last_second).map_or_else(|_| String::new(), |last| last.to_string());
    Err(range(format!("is outside 1970-01-01T00:00:01Z to {last}")))
}

pub(super) fn inet4(text: &str) -> Result<String, Refusal> {
    let address: Result<Ipv4Addr, _> = text.parse();
    address.map(|address| address.to_string()).map_err(|_| range("is no IPv4 address, such as 10.0.0.1"))
}

/// As MariaDB writes it: the longest run of zeros left out, even one of a single group, and the last four bytes as of IPv4
/// where only zeros, or those of a mapped address, stand before them.
pub(super) fn inet6(text: &str) -> Result<String, Refusal> {
    let address: Ipv6Addr = text.parse().map_err(|_| range("is no IPv6 address, such as 2001:db8::1"))?;
    let groups = address.segments();
    let (mut gap, mut run) = (0..0, 0..0);
    for (at, group) in groups.iter().enumerate() {
        run = if *group == 0 { run.start..at + 1 } else { at + 1..at + 1 };
        if run.len() > gap.len() {
            gap = run.clone();
        }
    }
    let is_ipv4 = gap == (0..6) || (gap == (0..5) && groups[5] == 0xffff);
    if is_ipv4 {
        let [.., a, b, c, d] = address.octets();
        return Ok(format!("{}{a}.{b}.{c}.{d}", if gap.len() == 6 { "::" } else { "::ffff:" }));
    }
    let hex = |groups: &[u16]| groups.iter().map(|group| format!("{group:x}")).collect::<Vec<_>>().join(":");
    if gap.is_empty() {
        return Ok(hex(&groups));
    }
    Ok(format!("{}::{}", hex(&groups[..gap.start]), hex(&groups[gap.end..])))
}

/// A zero is none, whatever its sign.
pub(super) fn not_negative(value: Value) -> Result<Value, Refusal> {
    let is_negative = match &value {
        Value::Double(x) => x.is_sign_negative(),
        Value::Decimal(text) => text.starts_with('-'),
        _ => false,
    };
    if is_negative { Err(range("is negative")) } else { Ok(value) }
}

/// As it is, if it is JSON and nested no deeper than the database reads.
pub(super) fn json_text(text: String, max_depth: usize) -> Result<String, Refusal> {
    let as_it_is =
        Rules { max_depth, max_name_bytes: usize::MAX, may_hold_nul: true, number: |_, _, _, _| Ok(String::new()) };
    rewritten(&text, as_it_is).map_err(|problem| range(format!("is not JSON: {problem}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<T>(result: Result<T, Refusal>) -> Option<T> {
        result.ok()
    }

    #[test]
    fn a_set_has_each_label_once_and_in_order() {
        let labels = ["x", "y", "z w"].map(str::to_owned);
        for (given, expected) in
            [("", Some("")), ("y,x,y", Some("x,y")), ("z w", Some("z w")), ("X", None), ("x,", None), ("x, y", None)]
        {
            assert_eq!(told(set(given, &labels)).as_deref(), expected, "{given}");
        }
    }

    #[test]
    fn a_year_is_taken_as_it_is_or_not_at_all() {
        for (given, is_taken) in
            [(0, true), (1901, true), (2155, true), (1, false), (99, false), (1900, false), (2156, false), (-1, false)]
        {
            assert_eq!(told(year(given)).is_some(), is_taken, "{given}");
        }
    }

    #[test]
    fn nothing_below_zero_is_taken_where_none_may_be() {
        for (value, is_taken) in [
            (Value::Double(0.0), true),
            (Value::Double(5e-324), true),
            (Value::Double(-5e-324), false),
            (Value::Decimal("0.00".to_owned()), true),
            (Value::Decimal("-0.01".to_owned()), false),
        ] {
            assert_eq!(told(not_negative(value.clone())).is_some(), is_taken, "{value:?}");
        }
    }

    #[test]
    fn json_is_nested_as_deep_as_the_database_reads() {
        for (text, is_taken) in [
            ("[[1]]", true),
            ("{\"a\":[\"[[[\\\"[\"]}", true),
            ("[[[]]]", false),
            ("[1", false),
            ("[[1],[{}]]", false),
            ("[[1],[2]]", true),
        ] {
            assert_eq!(told(json_text(text.to_owned(), 2)).is_some(), is_taken, "{text}");
        }
    }

    /// Each was asked of MariaDB 10.11.
    #[test]
    fn an_ipv6_address_is_as_mariadb_writes_it() {
        for (given, expected) in [
            ("::", Some("::")),
            ("::1", Some("::1")),
            ("::1:2", Some("::0.1.0.2")),
            ("::10.0.0.1", Some("::10.0.0.1")),
            ("::ffff:10.0.0.1", Some("::ffff:10.0.0.1")),
            ("1:0:2:3:4:5:6:7", Some("1::2:3:4:5:6:7")),
            ("1:0:0:2:0:0:0:3", Some("1:0:0:2::3")),
            ("1:2:3:4:5:6:7:0", Some("1:2:3:4:5:6:7::")),
            ("10.0.0.1", None),
        ] {
            assert_eq!(told(inet6(given)).as_deref(), expected, "{given}");
        }
    }

    #[test]
    fn bytes_are_filled_up_and_instants_bounded() {
        assert_eq!(padded_bytes(Bytes::from_static(b"a"), 3), Bytes::from_static(b"a\0\0"));
        let at = |text: &str| text.parse::<Timestamp>().ok().and_then(|at| told(since_epoch(at, i32::MAX.into())));
        assert!(at("1970-01-01T00:00:01Z").is_some() && at("2038-01-19T03:14:07.999999Z").is_some());
        assert!(at("1970-01-01T00:00:00.5Z").is_none() && at("2038-01-19T03:14:08Z").is_none());
    }
}
