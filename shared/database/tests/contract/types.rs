//! A corpus of edge values of every type, each asked of the server itself: what the server takes and keeps is taken
//! here and read as it is kept, before and after it was drained; what it refuses in strict mode is refused here, with
//! the column named. Where the server would silently make another value of it, it is refused here, or that very value
//! is made of it before it is accepted.
//!
//! It also writes the table in `docs/TYPES.md`, and fails if that one is out of date.

use std::fmt::Write as _;

use database::{Applied, DatabaseError, DatabaseRow};
use jiff::Timestamp;
use model::{ColumnName, Image, Key, Row, TableSchema, Value, VersionGuard, ViolationReason};

use crate::{corpus, harness::*};

on_each!(on_sqlite, sqlite: every_value_is_taken_or_refused_as_the_server_does, the_table_of_types_is_up_to_date);
on_mysql!(every_value_is_taken_or_refused_as_the_server_does, the_table_of_types_is_up_to_date);

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

/// What the server makes of a literal: the value that we then read, or that it refuses.
async fn asked(h: &Harness, schema: &TableSchema, id: i64, literal: &str) -> Option<DatabaseRow> {
    let strict = h.of(
        "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE', time_zone = '+00:00'; ",
        "",
        "",
    );
    let insert = format!("{strict}INSERT INTO {} (id, c) VALUES ({id}, {literal})", schema.table.table);
    h.somebody_else().await.try_run(&insert).await.ok()?;
    Some(h.read(schema, &Key(vec![Value::Int64(id)])).await)
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
    for (n, (value, literal)) in case.values.iter().chain([&null]).enumerate() {
        let (theirs, ours) = (2 * n as i64, 2 * n as i64 + 1);
        let mut told = |problem: String| wrong.push(format!("{} {literal:.60}: {problem}", case.declared));
        let named = row([("id", Value::Int64(ours)), ("c", value.clone())]);
        // SQLite takes anything; there it is only asked whether what is accepted comes back.
        let kept = if h.is_mysql() {
            asked(h, &schema, theirs, literal).await.map(|row| value_of(&row))
        } else {
            let accepted = schema.accept_row(named.clone(), moment(Timestamp::UNIX_EPOCH));
            accepted.ok().map(|row| row.get("c").unwrap().clone())
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
                if kept.as_ref().is_some_and(|kept| is_same(kept, value)) && !narrower {
                    told(format!("the server keeps it, and it is refused: {violation}"));
                }
                continue;
            }
            (Ok(_), None) => {
                told("the server refuses it, and it is accepted".to_owned());
                continue;
            }
            (Ok(row), Some(_)) => row,
        };
        if narrower {
            told("it is accepted, and noted as refused".to_owned());
        }
        let hot = stored(&schema, accepted);
        let hot_value = hot.get("c").unwrap().clone();
        if !is_same(&hot_value, kept.as_ref().unwrap()) {
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
        let from_theirs = if h.is_mysql() { shown(theirs).await } else { from_ours.clone() };
        if from_theirs != from_ours {
            told(format!("a plain client's row shows {from_theirs:?}, ours {from_ours:?}"));
        }
    }
}

/// For `./tests/figures types`: a file for each number, in the directory that it names.
async fn report(h: &Harness, what: &str, text: &str) {
    if let Ok(directory) = std::env::var("SHOCK_ABSORBER_TYPES_REPORT") {
        std::fs::write(format!("{directory}/{}.{what}", h.server().await), text).unwrap();
    }
}

async fn every_value_is_taken_or_refused_as_the_server_does(h: Harness) {
    let (mut wrong, mut round_tripped, mut values) = (Vec::new(), 0, 0);
    let cases = corpus::cases(&h).await;
    for (at, case) in cases.iter().enumerate() {
        let before = wrong.len();
        try_case(&h, at, case, &mut wrong).await;
        round_tripped += usize::from(wrong.len() == before);
        values += case.values.len() + 1;
    }
    report(&h, "round_tripped", &format!("{round_tripped} {} {values}", cases.len())).await;
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The part of the table that is about this database.
async fn table_of_types(h: &Harness) -> String {
    let mut table = format!("| Type | In the API | Refused though {} keeps it |\n|---|---|---|\n", h.server().await);
    for (at, case) in corpus::cases(h).await.iter().enumerate() {
        let create = format!("CREATE TABLE shown_{at} (id BIGINT NOT NULL PRIMARY KEY, c {} NULL)", case.declared);
        let schema = h.table(&format!("shown_{at}"), &create, VersionGuard::Ledger).await;
        let kind = schema.column("c").unwrap().ty.kind();
        let narrower: Vec<String> = case.narrower.iter().map(|(literal, why)| format!("`{literal}`: {why}")).collect();
        writeln!(table, "| `{}` | {kind} | {} |", case.declared.replace('|', "\\|"), narrower.join("; ")).unwrap();
    }
    table.push_str("\n| Refused when the table is enabled | Why |\n|---|---|\n");
    for declared in corpus::refused(h) {
        let column = ColumnName::new("c").unwrap();
        h.sql(&format!("CREATE TABLE refused (id BIGINT NOT NULL PRIMARY KEY, {column} {declared})")).await;
        match h.introspect("refused").await {
            Err(DatabaseError::Unsupported { reason, .. }) => writeln!(table, "| `{declared}` | {reason} |").unwrap(),
            other => panic!("{declared}: {other:?}"),
        }
        h.sql("DROP TABLE refused").await;
    }
    table
}

/// The document, and in it the part between the marks of this database.
async fn the_table_of_types_is_up_to_date(h: Harness) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/TYPES.md");
    let table = table_of_types(&h).await;
    let name = h.server().await;
    report(&h, "refused", &corpus::refused(&h).len().to_string()).await;
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
