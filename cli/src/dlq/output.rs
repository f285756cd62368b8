//! Dead letters on the screen, and as JSON: one object a line.

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;
use shock_absorber_client::{DeadLetter, DeadLetterCause, DeadLetterName, DeadLetterOutcome, Row, ShownDeadLetter};

/// How it is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Format {
    /// As JSON, one object a line
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) const HEAD: &str =
    "ID         TABLE                     CAUSE        STATE       GIVEN UP AT           CODE          WHAT";

#[derive(Serialize)]
struct LetterJson<'a> {
    table: String,
    id: &'a str,
    cause: String,
    state: String,
    code: &'a str,
    message: &'a str,
    attempts: u32,
    topic: &'a str,
    partition: u32,
    offset: i64,
    version: Option<u64>,
    first_refused_at: String,
    dead_lettered_at: String,
    replica: &'a str,
}

impl<'a> LetterJson<'a> {
    fn of(letter: &'a DeadLetter) -> Self {
        Self {
            table: letter.name.table.to_string(),
            id: &letter.name.id,
            cause: cause(letter.cause),
            state: word(letter.state.as_str_name(), "DEAD_LETTER_STATE_"),
            code: &letter.code,
            message: &letter.message,
            attempts: letter.attempts,
            topic: &letter.topic,
            partition: letter.partition,
            offset: letter.offset,
            version: letter.version,
            first_refused_at: letter.first_refused_at.to_string(),
            dead_lettered_at: letter.dead_lettered_at.to_string(),
            replica: &letter.replica,
        }
    }
}

/// The last part of a name of the API, in small letters.
fn cause(cause: DeadLetterCause) -> String {
    match cause {
        // Of a later release.
        DeadLetterCause::Unspecified => "unknown".to_owned(),
        known => word(known.as_str_name(), "DEAD_LETTER_CAUSE_"),
    }
}

fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase()
}

/// A letter in a list.
pub(super) fn line(letter: &DeadLetter, format: Format) -> Result<String> {
    let json = LetterJson::of(letter);
    if format.json {
        return Ok(serde_json::to_string(&json)?);
    }
    let LetterJson { id, table, cause, state, code, message, .. } = json;
    let at = letter.dead_lettered_at.strftime("%Y-%m-%dT%H:%M:%SZ");
    let code = if code.is_empty() { "-" } else { code };
    Ok(format!("{id:<10} {table:<25} {cause:<12} {state:<11} {at}  {code:<13} {message}"))
}

#[derive(Serialize)]
struct ShownJson<'a> {
    #[serde(flatten)]
    letter: LetterJson<'a>,
    operation: Option<String>,
    key: Option<Box<RawValue>>,
    row: Option<Box<RawValue>>,
    event_key_hex: String,
    event_payload_hex: String,
}

/// A letter with all that it holds.
pub(super) fn shown(shown: &ShownDeadLetter, format: Format) -> Result<String> {
    let raw = |row: &Row| -> Result<Box<RawValue>> { Ok(RawValue::from_string(row.to_json()?)?) };
    let record = shown.record.as_ref();
    let json = ShownJson {
        letter: LetterJson::of(&shown.letter),
        operation: record.map(|record| word(record.operation.as_str_name(), "DEAD_LETTER_OPERATION_")),
        key: record.map(|record| raw(&record.key)).transpose()?,
        row: record.and_then(|record| record.row.as_ref()).map(raw).transpose()?,
        event_key_hex: hex(&shown.event_key),
        event_payload_hex: hex(&shown.event_payload),
    };
    if format.json {
        return Ok(serde_json::to_string(&json)?);
    }
    let ShownJson { letter, operation, key, row, event_key_hex, event_payload_hex } = json;
    let mut lines = vec![
        format!("{} of {}: {}", letter.id, letter.table, letter.state),
        field("cause", &format!("{} {}", letter.cause, letter.code)),
        field("what", letter.message),
        field(
            "given up",
            &format!("{} after {} attempts, by {}", letter.dead_lettered_at, letter.attempts, letter.replica),
        ),
        field("first refused", &letter.first_refused_at),
        field("event", &format!("{}/{} at offset {}", letter.topic, letter.partition, letter.offset)),
    ];
    lines.extend(letter.version.map(|version| field("version", &version.to_string())));
    if let (Some(operation), Some(key)) = (operation, key) {
        lines.push(field("operation", &operation));
        lines.push(field("key", key.get()));
        lines.extend(row.map(|row| field("row", row.get())));
    } else {
        lines.push(field("key, hex", &event_key_hex));
        lines.push(field("bytes, hex", &event_payload_hex));
    }
    Ok(lines.join("\n"))
}

fn field(name: &str, value: &str) -> String {
    format!("  {name:<14} {}", value.trim_end())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Serialize)]
struct OutcomeJson<'a> {
    table: String,
    id: &'a str,
    outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// What became of one letter.
pub(super) fn outcome(name: &DeadLetterName, outcome: &DeadLetterOutcome, format: Format) -> Result<String> {
    let (what, version, error) = match outcome {
        DeadLetterOutcome::Replayed(version) => ("replayed".to_owned(), Some(*version), None),
        DeadLetterOutcome::Purged => ("purged".to_owned(), None, None),
        DeadLetterOutcome::Settled(state) => (word(state.as_str_name(), "DEAD_LETTER_STATE_"), None, None),
        DeadLetterOutcome::Failed(error) => ("failed".to_owned(), None, Some(error)),
    };
    if format.json {
        let json = OutcomeJson {
            table: name.table.to_string(),
            id: &name.id,
            outcome: what,
            version,
            reason: error.and_then(|error| error.reason()),
            problem: error.map(ToString::to_string),
        };
        return Ok(serde_json::to_string(&json)?);
    }
    let told = match outcome {
        DeadLetterOutcome::Replayed(version) => format!("replayed: QUEUED as version {version}"),
        DeadLetterOutcome::Purged => "purged: reads answer what the database has".to_owned(),
        DeadLetterOutcome::Settled(_) => format!("nothing to do: it is {what} already"),
        DeadLetterOutcome::Failed(error) => format!("failed: {error}"),
    };
    Ok(format!("{:<25} {:<10} {told}", name.table.to_string(), name.id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use jiff::Timestamp;
    use shock_absorber_client::{DeadLetterOperation, DeadLetterRecord, DeadLetterState, TableRef, Value};

    const PLAIN: Format = Format { json: false };
    const JSON: Format = Format { json: true };

    fn letter() -> DeadLetter {
        DeadLetter {
            name: DeadLetterName { table: TableRef::new("main", "payments"), id: "17-5".into() },
            topic: "main.payments".into(),
            partition: 17,
            offset: 42,
            version: Some(7),
            cause: DeadLetterCause::Permanent,
            code: "22001/1406".into(),
            message: "Data too long for column note".into(),
            attempts: 3,
            first_refused_at: Timestamp::UNIX_EPOCH,
            dead_lettered_at: Timestamp::from_second(1).unwrap(),
            replica: "drain 1".into(),
            state: DeadLetterState::Unresolved,
        }
    }

    #[test]
    fn a_list_says_what_happened_and_nothing_of_the_row() {
        let plain = line(&letter(), PLAIN).unwrap();
        assert_eq!(
            plain,
            "17-5       main.payments             permanent    unresolved  1970-01-01T00:00:01Z  22001/1406    Data too long for column note"
        );
        let (at, width) = (HEAD.find("WHAT").unwrap(), plain.find("Data").unwrap());
        assert_eq!(at, width, "the head stands over its columns");
        let json: serde_json::Value = serde_json::from_str(&line(&letter(), JSON).unwrap()).unwrap();
        assert_eq!((&json["id"], &json["cause"], &json["version"]), (&"17-5".into(), &"permanent".into(), &7.into()));
        let later = DeadLetter { cause: DeadLetterCause::Unspecified, ..letter() };
        assert!(line(&later, PLAIN).unwrap().contains(" unknown "), "a later release wrote it");
    }

    #[test]
    fn one_letter_is_shown_with_its_row_or_its_bytes() {
        let key = Row::new().set("id", "p1");
        let row = key.clone().set("meta", Value::json("{\"n\":123456789012345678901234567890}"));
        let record = DeadLetterRecord { operation: DeadLetterOperation::Put, key, row: Some(row) };
        let with_row = ShownDeadLetter {
            letter: letter(),
            record: Some(record),
            event_key: vec![1, 0xab],
            event_payload: vec![2],
        };
        let plain = shown(&with_row, PLAIN).unwrap();
        assert!(plain.starts_with("17-5 of main.payments: unresolved\n"), "{plain}");
        // Numbers keep all their digits.
        assert!(plain.contains(r#"row            {"id":"p1","meta":{"n":123456789012345678901234567890}}"#), "{plain}");
        let json = shown(&with_row, JSON).unwrap();
        assert!(json.contains("123456789012345678901234567890") && json.contains(r#""operation":"put""#), "{json}");
        let unreadable = ShownDeadLetter { record: None, ..with_row };
        let plain = shown(&unreadable, PLAIN).unwrap();
        assert!(plain.ends_with("  key, hex       01ab\n  bytes, hex     02"), "{plain}");
    }

    #[test]
    fn each_outcome_is_told() {
        let name = letter().name;
        let told = |it: &DeadLetterOutcome| outcome(&name, it, PLAIN).unwrap();
        assert!(told(&DeadLetterOutcome::Replayed(9)).ends_with("17-5       replayed: QUEUED as version 9"));
        let superseded = DeadLetterOutcome::Settled(DeadLetterState::Superseded);
        assert!(told(&superseded).ends_with("nothing to do: it is superseded already"));
        let json = outcome(&name, &superseded, JSON).unwrap();
        assert_eq!(json, r#"{"table":"main.payments","id":"17-5","outcome":"superseded"}"#);
    }
}
