//! Names and values that mean harm: what a database takes is carried as it is, or refused with the reason, and nothing of
//! it is ever taken for a part of a statement.

use database::{Applied, Database, DatabaseError};
use model::{Key, TableName, Value, VersionGuard};

use crate::harness::*;

on_every_sql_database!(
    a_name_is_carried_or_refused_and_never_carried_out,
    a_table_is_known_by_its_own_name_only,
    our_own_tables_are_nobody_else_s,
    a_value_is_what_it_was,
);

const NAMES: &[&str] = &[
    // Quotes, and what hides them.
    "a`b",
    "`",
    "``",
    "a\"b",
    "\"",
    "\"\"",
    "a'b",
    "'",
    "a\\",
    "\\`",
    "\\\"",
    "[a]",
    "]",
    "x'00'",
    // Ends of statements, and comments.
    "; DROP TABLE trap; --",
    "`; DROP TABLE trap; -- ",
    "\"; DROP TABLE trap; --",
    "') ON CONFLICT DO NOTHING; DROP TABLE trap; --",
    "--",
    "-- ",
    "#",
    "/*",
    "*/",
    "/*!99999 x*/",
    ";",
    // What stands for something else somewhere.
    "?",
    "??",
    "{}",
    "{0}",
    "$1",
    ":x",
    "@a",
    "@@version",
    "%s",
    "%",
    "_",
    "*",
    "a:b",
    "{s17}",
    "a{s17}b",
    "a.b",
    "information_schema.tables",
    ".",
    "..",
    "a/b",
    "../a",
    "a,b",
    "(",
    "a=b",
    "0",
    "1e5",
    "NULL",
    "DEFAULT",
    "VALUES",
    "excluded",
    // Reserved words, and letters in either case.
    "select",
    "SELECT",
    "order",
    "table",
    "key",
    "MiXeD",
    "ÄÖÜ",
    // Spaces.
    " begins",
    "ends ",
    " ",
    "a b",
    "\u{a0}",
    "\u{3000}",
    // Other characters.
    "é",
    "e\u{301}",
    "漢字",
    "🎉",
    "\u{200b}",
    "\u{202e}abc",
    "\u{feff}",
    "\u{fffd}",
    "\u{1f468}\u{200d}\u{1f469}",
    // Control characters.
    "a\nb",
    "a\rb",
    "a\tb",
    "a\u{1}b",
    "a\u{7f}b",
    "a\u{85}b",
    "a\0b",
];

/// As long as a name of some database may be, and longer.
fn long_names() -> Vec<String> {
    let mut names: Vec<String> = [62, 63, 64, 65].map(|many| "n".repeat(many)).to_vec();
    names.extend([31, 32].map(|many| "é".repeat(many)));
    names.extend([20, 21, 22, 64].map(|many| "漢".repeat(many)));
    names.push("`".repeat(64));
    names.push("\"".repeat(63));
    names
}

fn quoted(h: &Harness, name: &str) -> String {
    let quote = h.of('`', '"', '"');
    format!("{quote}{}{quote}", name.replace(quote, &format!("{quote}{quote}")))
}

async fn a_name_is_carried_or_refused_and_never_carried_out(h: Harness) {
    h.sql("CREATE TABLE trap (id BIGINT)").await;
    h.sql("INSERT INTO trap VALUES (1)").await;
    let (mut carried, mut by_server, mut by_us) = (0, Vec::new(), Vec::new());
    let long = long_names();
    for given in NAMES.iter().copied().chain(long.iter().map(String::as_str)) {
        // By itself a column, and together with its table.
        for (table, guard) in [("holds_it", VersionGuard::Column), (given, VersionGuard::Ledger)] {
            let (table_quoted, column) = (quoted(&h, table), quoted(&h, given));
            let create = format!("CREATE TABLE {table_quoted} ({column} BIGINT NOT NULL PRIMARY KEY, n BIGINT NULL)");
            if h.somebody_else().await.try_run(&create).await.is_err() {
                by_server.push(given);
                continue;
            }
            // PostgreSQL cuts what is too long, MySQL makes question marks of what it does not know: then it is another
            // name, by which it can be carried.
            if !h.is_kept(table, given).await {
                by_server.push(given);
                h.sql(&format!("DROP TABLE {table_quoted}")).await;
                continue;
            }
            match carry(&h, table, given, guard).await {
                Ok(()) => carried += 1,
                Err(reason) => {
                    let is_long = given.chars().count() > 64;
                    // What databases call the new row of an upsert.
                    let is_taken = table == "excluded" && !h.is_mysql();
                    assert!(given.chars().any(char::is_control) || is_long || is_taken, "{given:?}: {reason}");
                    assert!(reason.len() > 20, "{given:?}: {reason}");
                    by_us.push(given);
                }
            }
            h.sql(&format!("DROP TABLE {table_quoted}")).await;
            assert_eq!(h.number("SELECT count(*) FROM trap").await, Some(1), "{given:?}");
        }
    }
    by_server.dedup();
    by_us.dedup();
    println!("{carried} carried; refused by the server: {by_server:?}; by us: {by_us:?}");
    // Twice each.
    assert!(carried > 2 * (NAMES.len() - 20), "{carried} of {}", NAMES.len());
    assert!(by_us.contains(&"a\nb") && !by_us.contains(&"a`b") && !by_server.contains(&"a\"b"));
}

/// Writes, reads and deletes a row; or why the table is refused.
async fn carry(h: &Harness, table: &str, column: &str, guard: VersionGuard) -> Result<(), String> {
    let reason = |error: DatabaseError| match error {
        DatabaseError::Unsupported { reason, .. } => reason,
        DatabaseError::NoSuchTable(table) => format!("there is no such table: {table}"),
        other => panic!("{column:?}: {other}"),
    };
    let table = TableName::new(table).map_err(|refused| refused.to_string())?;
    if guard == VersionGuard::Column {
        h.database.add_version_column(&table).await.map_err(reason)?;
    }
    let schema = h.database.introspect(&main_database(), &table).await.map_err(reason)?;
    assert_eq!(schema.guard, guard, "{column:?}");
    h.own(&schema).await;
    let key = Key(vec![Value::Int64(7)]);
    for number in [10, 20] {
        let row = row([(column, Value::Int64(7)), ("n", Value::Int64(number))]);
        let version = number as u64;
        assert_eq!(h.apply_one(&schema, put_row(&schema, row.clone(), version)).await, Applied::Written, "{column:?}");
        assert_eq!(h.read(&schema, &key).await, present(version, row), "{column:?}");
    }
    let plain = format!("SELECT n FROM {} WHERE {} = 7", quoted(h, table.as_str()), quoted(h, column));
    assert_eq!(h.number(&plain).await, Some(20), "{column:?}");
    let delete = change(&schema, key.clone(), 30, model::Content::Tombstone);
    assert_eq!(h.apply_one(&schema, delete).await, Applied::Written, "{column:?}");
    assert_eq!(h.read(&schema, &key).await, deleted(30), "{column:?}");
    assert_eq!(h.number(&format!("SELECT count(*) FROM {}", quoted(h, table.as_str()))).await, Some(0), "{column:?}");
    let lists = h.database.list_tables().await.unwrap();
    assert!(lists.contains(&table), "{column:?} is not among {lists:?}");
    let _ = h.database.purge_tombstones(&schema, &horizon(schema.shard_of(&key, shards()), 30), 10).await;
    h.sql("DELETE FROM _sa_ledger").await;
    h.sql("DELETE FROM _sa_shard").await;
    Ok(())
}

/// Whether the database has these very names.
impl Harness {
    async fn is_kept(&self, table: &str, column: &str) -> bool {
        let text = |text: &str| format!("'{}'", text.replace('\\', self.of("\\\\", "\\", "\\")).replace('\'', "''"));
        let (table, column) = (text(table), text(column));
        let select = self.of(
            format!(
                "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() \
                 AND BINARY TABLE_NAME = {table} AND BINARY COLUMN_NAME = {column}"
            ),
            format!(
                "SELECT count(*) FROM information_schema.columns WHERE table_schema = current_schema() \
                 AND table_name::text = {table} AND column_name::text = {column}"
            ),
            format!("SELECT count(*) FROM sqlite_schema s, pragma_table_xinfo(s.name) x WHERE s.name = {table} AND x.name = {column}"),
        );
        self.number(&select).await == Some(1)
    }
}

/// Two spellings would be two tables to us, with records of their own, and one in the database.
async fn a_table_is_known_by_its_own_name_only(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let own = schema.table.table.as_str();
        for other in [
            own.to_uppercase(),
            own.replacen('i', "I", 1),
            format!("{own} "),
            format!(" {own}"),
            format!("{own}."),
            format!("`{own}`"),
            format!("\"{own}\""),
            format!("main.{own}"),
            format!("public.{own}"),
            own.replace('_', "%"),
            own.replacen('e', "é", 1),
            format!("{own}\u{200b}"),
        ] {
            let found = h.introspect(&other).await;
            assert_eq!(found, Err(DatabaseError::NoSuchTable(name(&other))), "{other:?}");
        }
        assert!(h.introspect(own).await.is_ok());
    }
}

/// Who could write them through us could say which versions were drained, and by whom.
async fn our_own_tables_are_nobody_else_s(h: Harness) {
    let mut ours: Vec<String> =
        ["shard", "ledger", "table", "epoch", "meta", "rate", "hold"].map(|of| format!("_sa_{of}")).to_vec();
    ours.extend(["_SA_META".to_owned(), "_sa_of_a_later_release".to_owned()]);
    ours.extend(["sqlite_schema", "sqlite_master", "sqlite_sequence"].map(str::to_owned));
    for table in &ours {
        for refused in [h.introspect(table).await.map(drop), h.database.add_version_column(&name(table)).await] {
            match refused {
                Err(DatabaseError::Unsupported { reason, .. }) => assert!(reason.contains("own"), "{table}: {reason}"),
                Err(DatabaseError::NoSuchTable(_)) if !table.starts_with("_sa_") || table.contains("later") => {}
                other => panic!("{table}: {other:?}"),
            }
        }
    }
}

async fn a_value_is_what_it_was(h: Harness) {
    let create = h.of(
        "CREATE TABLE kept (id VARCHAR(99) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, v TEXT CHARACTER SET utf8mb4 \
         COLLATE utf8mb4_bin NULL, l VARCHAR(99) CHARACTER SET latin1 NULL, PRIMARY KEY (id))",
        "CREATE TABLE kept (id VARCHAR(99) NOT NULL PRIMARY KEY, v TEXT NULL, l VARCHAR(99) NULL)",
        "CREATE TABLE kept (id VARCHAR(99) NOT NULL PRIMARY KEY, v TEXT NULL, l VARCHAR(99) NULL)",
    );
    let schema = h.table("kept", create, VersionGuard::Column).await;
    let mut version = 0;
    for given in [
        "'",
        "''",
        "\\'",
        "\\",
        "\\\\",
        "\\' OR 1 = 1 -- ",
        "' OR '1'='1",
        "'; DROP TABLE kept; --",
        "\"",
        "`",
        "\"; DROP TABLE kept; --",
        "?",
        "$1",
        "{}",
        "%",
        "_",
        "%_\\%",
        "a\nb\rc\td",
        "\u{1a}",
        "\u{8}",
        "--",
        "/* */",
        "#",
        "NULL",
        "0x27",
        "X'27'",
        "E'\\x27'",
        "$$ $$",
        "\u{bf}'",
        "\u{bf}\u{5c}'",
        "縗' OR 1 = 1 -- ",
        "¿\\",
        "ｱ\\",
        "\u{2019}\u{ff07}\u{2032}",
        "🎉'",
        "a'\0b",
        "\0",
    ] {
        let has_nul = given.contains('\0');
        let value = |value: &str| Value::Text(value.to_owned());
        let fits = given.chars().all(|c| model::Repertoire::Latin1.contains(c));
        let latin = if fits || !h.is_mysql() { value(given) } else { Value::Null };
        let named = row([("id", value(given)), ("v", value(given)), ("l", latin)]);
        let moment = moment(jiff::Timestamp::UNIX_EPOCH);
        let row = match schema.accept_row(named, moment) {
            Ok(row) => row,
            Err(refused) => {
                assert!(h.is_postgres() && has_nul, "{given:?}: {refused:?}");
                continue;
            }
        };
        let key = schema.key_of(&row).unwrap();
        for _ in 0..2 {
            version += 10;
            assert_eq!(
                h.apply_one(&schema, put_row(&schema, row.clone(), version)).await,
                Applied::Written,
                "{given:?}"
            );
            assert_eq!(h.read(&schema, &key).await, present(version, row.clone()), "{given:?}");
        }
        let hex: String = given.bytes().map(|byte| format!("{byte:02X}")).collect();
        let plain = h.of(
            "SELECT CONCAT(HEX(id), ' ', HEX(v), ' ', COALESCE(HEX(CONVERT(l USING utf8mb4)), '')) FROM kept",
            "SELECT upper(encode(convert_to(id, 'UTF8'), 'hex') || ' ' || encode(convert_to(v, 'UTF8'), 'hex') || ' ' || \
             encode(convert_to(l, 'UTF8'), 'hex')) FROM kept",
            "SELECT hex(id) || ' ' || hex(v) || ' ' || hex(l) FROM kept",
        );
        let latin = if row.get("l").is_some_and(Value::is_null) { "" } else { hex.as_str() };
        assert_eq!(h.text(plain).await, Some(format!("{hex} {hex} {latin}")), "{given:?}");
        version += 10;
        let delete = change(&schema, key.clone(), version, model::Content::Tombstone);
        assert_eq!(h.apply_one(&schema, delete).await, Applied::Written, "{given:?}");
        assert_eq!(h.rows(&schema.table.table).await, 0, "{given:?}");
    }
}
