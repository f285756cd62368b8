//! A corpus of edge values of every type, each asked of the server itself: what the server takes and keeps is taken
//! here and read as it is kept, before and after it was drained; what it refuses in strict mode is refused here, with
//! the column named. Where the server would silently make another value of it, it is refused here, or that very value
//! is made of it before it is accepted.
//!
//! It also writes the table in `docs/TYPES.md`, and fails if that one is out of date.

use std::{collections::BTreeSet, fmt::Write as _};

use database::{Applied, Database as _, DatabaseError, DatabaseRow};
use jiff::Timestamp;
use model::{ColumnName, Image, Key, Row, TableSchema, Value, VersionGuard, ViolationReason};

use crate::{corpus, harness::*};

on_each!(on_sqlite, sqlite: every_value_is_taken_or_refused_as_the_server_does, the_table_of_types_is_up_to_date);
on_servers!(every_value_is_taken_or_refused_as_the_server_does, the_table_of_types_is_up_to_date);

/// A type, and values for it.
pub struct Case {
    /// As it is declared; also the row of the table.
    pub declared: &'static str,
    /// Each with the literal by which a plain client writes it.
    pub values: Vec<(Value, String)>,
    /// A SELECT's expression over column `c` that gives the value as a text exactly.
    pub shown: &'static str,
    /// What we refuse though the server would keep it as it is: literals, and why.
    pub narrower: &'static [(&'static str, &'static str)],
}

/// What the server makes of a literal.
enum Kept {
    /// It refuses it in strict mode.
    Refused,
    /// It keeps it, and we can't read what it keeps.
    Unreadable,
    /// It keeps it as we then read it.
    As(Value),
}

async fn asked(h: &Harness, schema: &TableSchema, id: i64, literal: &str) -> Kept {
    let strict = h.of(
        "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE', time_zone = '+00:00'; ",
        "",
        "",
    );
    let insert = format!("{strict}INSERT INTO {} (id, c) VALUES ({id}, {literal})", schema.table.table);
    if h.somebody_else().await.try_run(&insert).await.is_err() {
        return Kept::Refused;
    }
    match h.database.read(schema, &[Key(vec![Value::Int64(id)])]).await {
        Ok(rows) => Kept::As(value_of(&rows[0])),
        Err(DatabaseError::Statement { message, .. }) => {
            assert!(message.contains("correct it in the database"), "{message}");
            Kept::Unreadable
        }
        Err(other) => panic!("{other}"),
    }
}

/// Compares what we take for equal with what the server does, among the values of our rows.
async fn try_equality(h: &Harness, table: &str, forms: &[(i64, Vec<u8>)]) -> Option<String> {
    let pair = h.of(
        "GROUP_CONCAT(CONCAT(a.id, '=', b.id))",
        "string_agg(a.id || '=' || b.id, ',')",
        "group_concat(a.id || '=' || b.id)",
    );
    // SQLite has no other collation by default, and a column that is declared with another one is asked for this one.
    let binary = h.of("", "", " COLLATE BINARY");
    let select = format!("SELECT {pair} FROM {table} a JOIN {table} b ON a.c = b.c{binary} AND a.id < b.id");
    let told = h.text(&select).await.unwrap_or_default();
    let is_tried = |id: &str| forms.iter().any(|(tried, _)| tried.to_string() == id);
    let theirs: BTreeSet<String> = told
        .split(',')
        .filter(|pair| pair.split_once('=').is_some_and(|(a, b)| is_tried(a) && is_tried(b)))
        .map(str::to_owned)
        .collect();
    let pairs = forms.iter().enumerate().flat_map(|(at, a)| forms[at + 1..].iter().map(move |b| (a, b)));
    let ours: BTreeSet<String> =
        pairs.filter(|((_, a), (_, b))| a == b).map(|((a, _), (b, _))| format!("{a}={b}")).collect();
    (ours != theirs).then(|| format!("we take for equal {ours:?}, the server {theirs:?}"))
}

fn value_of(row: &DatabaseRow) -> Value {
    match row {
        DatabaseRow::Present { row, .. } => row.get("c").unwrap().clone(),
        other => panic!("{other:?}"),
    }
}

/// The same to the bit: minus zero is not zero.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

/// Through the form in which the hot store and the log keep it.
fn stored(schema: &TableSchema, row: Row) -> Row {
    let image = put_row(schema, row, 1).image;
    match Image::decode(image.encode()).unwrap().content {
        model::Content::Row(row) => row,
        model::Content::Tombstone => panic!("a row became a tombstone"),
    }
}

async fn try_case(h: &Harness, at: usize, case: &Case, wrong: &mut Vec<String>) {
    let table = format!("case_{at}");
    let create = format!("CREATE TABLE {table} (id BIGINT NOT NULL PRIMARY KEY, c {} NULL)", case.declared);
    let schema = h.table(&table, &create, VersionGuard::Ledger).await;
    let null = (Value::Null, "NULL".to_owned());
    let mut forms = Vec::new();
    for (n, (value, literal)) in case.values.iter().chain([&null]).enumerate() {
        let (theirs, ours) = (2 * n as i64, 2 * n as i64 + 1);
        let mut told = |problem: String| wrong.push(format!("{} {literal:.60}: {problem}", case.declared));
        let named = row([("id", Value::Int64(ours)), ("c", value.clone())]);
        // SQLite takes anything; there it is only asked whether what is accepted comes back.
        let kept = if h.is_sqlite() {
            let accepted = schema.accept_row(named.clone(), moment(Timestamp::UNIX_EPOCH));
            accepted.map_or(Kept::Refused, |row| Kept::As(row.get("c").unwrap().clone()))
        } else {
            asked(h, &schema, theirs, literal).await
        };
        let narrower = case.narrower.iter().any(|(narrower, _)| narrower == literal);
        let accepted = match (schema.accept_row(named, moment(Timestamp::UNIX_EPOCH)), &kept) {
            (Err(violations), kept) => {
                let [violation] = violations.as_slice() else { panic!("{violations:?}") };
                let is_named = violation.column == "c"
                    && matches!(violation.reason, ViolationReason::OutOfRange | ViolationReason::WrongType);
                if !is_named {
                    told(format!("refused as {violation}"));
                }
                let is_kept = match kept {
                    Kept::Refused => false,
                    Kept::Unreadable => true,
                    Kept::As(kept) => is_same(kept, value),
                };
                if is_kept != narrower {
                    told(format!("the server keeps it: {is_kept}, and it is refused: {violation}"));
                }
                continue;
            }
            (Ok(_), Kept::Refused | Kept::Unreadable) => {
                told("the server refuses it, or we can't read it, and it is accepted".to_owned());
                continue;
            }
            (Ok(row), Kept::As(kept)) => (row, kept),
        };
        let (accepted, kept) = accepted;
        if narrower {
            told("it is accepted, and noted as refused".to_owned());
        }
        let hot = stored(&schema, accepted);
        let hot_value = hot.get("c").unwrap().clone();
        if !is_same(&hot_value, kept) {
            told(format!("accepted as {hot_value:?}, the server makes {kept:?} of it"));
        }
        let applied = h.apply_one(&schema, put_row(&schema, hot, 10)).await;
        assert_eq!(applied, Applied::Written, "{} {literal}", case.declared);
        let cold = value_of(&h.read(&schema, &Key(vec![Value::Int64(ours)])).await);
        if !is_same(&cold, &hot_value) {
            told(format!("accepted as {hot_value:?}, read from the database as {cold:?}"));
        }
        let shown = async |id: i64| h.text(&format!("SELECT {} FROM {table} WHERE id = {id}", case.shown)).await;
        let from_ours = shown(ours).await;
        let from_theirs = if h.is_sqlite() { from_ours.clone() } else { shown(theirs).await };
        if from_theirs != from_ours {
            told(format!("a plain client's row shows {from_theirs:?}, ours {from_ours:?}"));
        }
        forms.extend(schema.column("c").unwrap().ty.equality_bytes(&cold).map(|form| (ours, form)));
    }
    if !forms.is_empty() {
        wrong.extend(try_equality(h, &table, &forms).await.map(|problem| format!("{}: {problem}", case.declared)));
    }
}

/// For `./tests/figures types`: a file for each list, in the directory that it names.
async fn report(h: &Harness, what: &str, list: serde_json::Value) {
    if let Ok(directory) = std::env::var("SHOCK_ABSORBER_TYPES_REPORT") {
        std::fs::write(format!("{directory}/{}.{what}.json", h.server().await), list.to_string()).unwrap();
    }
}

async fn every_value_is_taken_or_refused_as_the_server_does(h: Harness) {
    let (mut wrong, mut told) = (Vec::new(), Vec::new());
    corpus::declare_types(&h).await;
    let cases = corpus::cases(&h).await;
    for (at, case) in cases.iter().enumerate() {
        let before = wrong.len();
        try_case(&h, at, case, &mut wrong).await;
        told.push(serde_json::json!({
            "type": case.declared,
            "values": case.values.len() + 1,
            "round_trips": wrong.len() == before,
            "refused_though_kept": case.narrower.iter().map(|(literal, why)| format!("{literal}: {why}")).collect::<Vec<_>>(),
        }));
    }
    report(&h, "carried", told.into()).await;
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The part of the table that is about this database.
async fn table_of_types(h: &Harness) -> (String, Vec<serde_json::Value>) {
    let mut table = format!("| Type | In the API | Refused though {} keeps it |\n|---|---|---|\n", h.server().await);
    for (at, case) in corpus::cases(h).await.iter().enumerate() {
        let create = format!("CREATE TABLE shown_{at} (id BIGINT NOT NULL PRIMARY KEY, c {} NULL)", case.declared);
        let schema = h.table(&format!("shown_{at}"), &create, VersionGuard::Ledger).await;
        let kind = schema.column("c").unwrap().ty.kind();
        let narrower: Vec<String> = case.narrower.iter().map(|(literal, why)| format!("`{literal}`: {why}")).collect();
        writeln!(table, "| `{}` | {kind} | {} |", case.declared.replace('|', "\\|"), narrower.join("; ")).unwrap();
    }
    table.push_str("\n| Refused when the table is enabled | Why |\n|---|---|\n");
    let mut refused = Vec::new();
    for declared in corpus::refused(h) {
        let column = ColumnName::new("c").unwrap();
        h.sql(&format!("CREATE TABLE refused (id BIGINT NOT NULL PRIMARY KEY, {column} {declared})")).await;
        match h.introspect("refused").await {
            Err(DatabaseError::Unsupported { reason, .. }) => {
                writeln!(table, "| `{declared}` | {reason} |").unwrap();
                refused.push(serde_json::json!({ "type": declared, "why": reason }));
            }
            other => panic!("{declared}: {other:?}"),
        }
        h.sql("DROP TABLE refused").await;
    }
    (table, refused)
}

/// The document, and in it the part between the marks of this database.
async fn the_table_of_types_is_up_to_date(h: Harness) {
    corpus::declare_types(&h).await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/TYPES.md");
    let (table, refused) = table_of_types(&h).await;
    let name = h.server().await;
    report(&h, "refused", refused.into()).await;
    let document = std::fs::read_to_string(path).unwrap();
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let (before, rest) = document.split_once(&begin).unwrap_or_else(|| panic!("docs/TYPES.md has no part for {name}"));
    let (part, after) = rest.split_once(&end).unwrap();
    if part == table {
        return;
    }
    if std::env::var("SHOCK_ABSORBER_WRITE_DOCS").is_ok() {
        std::fs::write(path, format!("{before}{begin}{table}{end}{after}")).unwrap();
    } else {
        panic!(
            "docs/TYPES.md is out of date: run this test with SHOCK_ABSORBER_WRITE_DOCS=1\n{part}\nshould be\n{table}"
        );
    }
}
