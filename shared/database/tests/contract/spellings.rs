//! Keys that the database takes for one are one here too, or the table is refused.

use database::{Applied, DatabaseError};
use jiff::Timestamp;
use model::{Key, Row, TableSchema, VersionGuard};

use crate::harness::*;

on_mysql!(
    what_the_server_takes_for_equal_is_one_key_here,
    a_record_is_found_and_changed_by_any_spelling_of_its_key,
    a_key_that_was_accepted_in_an_older_form_finds_its_row,
    a_row_that_only_the_server_takes_for_ours_is_in_the_way_of_itself_only,
    a_key_that_only_the_server_can_tell_apart_is_refused,
);

on_postgres!(a_key_that_is_equal_to_others_is_refused_and_other_texts_are_not);

mod on_sqlite {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_key_with_a_collation_is_refused() {
        super::a_key_with_a_collation_is_refused(crate::harness::Harness::sqlite().await).await;
    }
}

fn key_of(schema: &TableSchema, text: &str) -> Option<Key> {
    schema.accept_key(&row([("id", self::text(text))])).ok()
}

/// All printable characters of ASCII, and short texts of them, some with spaces at the end, in an order that any seed
/// gives again.
fn words() -> Vec<String> {
    let chance = model::Chance::seeded(20);
    let any = || char::from(b' ' + (chance.token() % 95) as u8);
    let singles = (b' '..=b'~').map(|byte| char::from(byte).to_string());
    let mut words: Vec<String> = singles.chain([String::new()]).collect();
    for n in 0..400 {
        let mut word: String = (0..2 + n % 3).map(|_| any()).collect();
        // Twins that differ in case or in spaces, for chance seldom makes any.
        words.push(word.to_ascii_uppercase());
        words.push(word.to_ascii_lowercase());
        word.push_str(&" ".repeat(n % 4));
        words.push(word);
    }
    words.sort();
    words.dedup();
    words
}

async fn what_the_server_takes_for_equal_is_one_key_here(h: Harness) {
    let names = "SELECT GROUP_CONCAT(CONCAT(CHARACTER_SET_NAME, ' ', COLLATION_NAME) ORDER BY COLLATION_NAME) FROM \
                 information_schema.COLLATIONS WHERE CHARACTER_SET_NAME IN ('utf8mb4', 'latin1', 'ascii')";
    let mut somebody = h.somebody_else().await;
    somebody.run("SET SESSION group_concat_max_len = 1000000000").await;
    let names = somebody.text(names).await.unwrap();
    let words = words();
    let mut known = Vec::new();
    for name in names.split(',') {
        let (charset, collation) = name.split_once(' ').unwrap();
        h.sql(&format!(
            "DROP TABLE IF EXISTS k; CREATE TABLE k (id VARCHAR(20) CHARACTER SET {charset} COLLATE {collation} PRIMARY KEY)"
        ))
        .await;
        let schema = match h.introspect("k").await {
            Ok(schema) => schema,
            Err(DatabaseError::Unsupported { reason, .. }) => {
                assert!(reason.contains("collation"), "{collation}: {reason}");
                continue;
            }
            Err(error) => panic!("{collation}: {error}"),
        };
        known.push(collation.to_owned());
        let quoted = |word: &String| format!("'{}'", word.replace('\\', "\\\\").replace('\'', "''"));
        let rows: Vec<String> = words.iter().enumerate().map(|(n, word)| format!("({n}, {})", quoted(word))).collect();
        somebody
            .run(&format!(
                "DROP TEMPORARY TABLE IF EXISTS w, v; CREATE TEMPORARY TABLE w (n INT PRIMARY KEY, t VARCHAR(20) CHARACTER SET \
                 {charset} COLLATE {collation}, KEY (t)); INSERT INTO w VALUES {}; CREATE TEMPORARY TABLE v AS SELECT n, t FROM w",
                rows.join(", ")
            ))
            .await;
        // The smallest number among those that are equal stands for all of them.
        let equal = "SELECT GROUP_CONCAT(first ORDER BY n) FROM (SELECT v.n, MIN(w.n) AS first FROM v JOIN w ON w.t = v.t \
                     GROUP BY v.n) AS equal";
        let theirs = somebody.text(equal).await.unwrap();
        let keys: Vec<Key> = words.iter().map(|word| key_of(&schema, word).unwrap()).collect();
        let ours: Vec<String> =
            keys.iter().map(|key| keys.iter().position(|other| other == key).unwrap().to_string()).collect();
        let theirs: Vec<&str> = theirs.split(',').collect();
        for (n, word) in words.iter().enumerate() {
            assert_eq!(
                theirs[n],
                ours[n],
                "{collation}: {word:?} is first equal to {:?} there, to {:?} here",
                words[theirs[n].parse::<usize>().unwrap()],
                words[ours[n].parse::<usize>().unwrap()]
            );
        }
    }
    for must in ["utf8mb4_bin", "utf8mb4_general_ci", "utf8mb4_unicode_ci", "latin1_swedish_ci", "ascii_general_ci"] {
        assert!(known.iter().any(|name| name == must), "{must} is not among {known:?}");
    }
}

async fn a_record_is_found_and_changed_by_any_spelling_of_its_key(h: Harness) {
    for (guard, unique) in GUARDS.into_iter().flat_map(|guard| [(guard, ""), (guard, ", UNIQUE (n)")]) {
        let table = format!("spelled_{guard:?}_{}", unique.len()).to_lowercase();
        let create = format!(
            "CREATE TABLE {table} (id VARCHAR(20) COLLATE utf8mb4_general_ci NOT NULL, b VARCHAR(9) COLLATE utf8mb4_bin, \
             n BIGINT, PRIMARY KEY (id, b){unique})"
        );
        let schema = h.table(&table, &create, guard).await;
        let record = |id: &str, b: &str, n: i64| {
            let named = row([("id", text(id)), ("b", text(b)), ("n", model::Value::Int64(n))]);
            schema.accept_row(named, moment(Timestamp::UNIX_EPOCH)).unwrap()
        };
        let key = |id: &str, b: &str| schema.accept_key(&row([("id", text(id)), ("b", text(b))])).unwrap();
        let apply = async |row: Row, version: u64| h.apply_one(&schema, put_row(&schema, row, version)).await;
        assert_eq!(apply(record("Abc ", "x", 1), 10).await, Applied::Written);
        assert_eq!(h.read(&schema, &key("aBC", "x ")).await, present(10, record("Abc ", "x", 1)));
        // Another spelling is a newer version of the same row, which is then spelled so.
        assert_eq!(apply(record("aBC", "x ", 2), 20).await, Applied::Written);
        assert_eq!(h.rows(&schema.table.table).await, 1);
        assert_eq!(h.read(&schema, &key("abc", "x")).await, present(20, record("aBC", "x ", 2)));
        assert_eq!(h.text(&format!("SELECT CONCAT(id, '|', b) FROM {table}")).await.as_deref(), Some("aBC|x "));
        // The case of what has a binary collation counts.
        assert_eq!(apply(record("abc", "X", 3), 20).await, Applied::Written);
        assert_eq!(h.rows(&schema.table.table).await, 2);
        let delete = change(&schema, key("ABC", "x"), 30, model::Content::Tombstone);
        assert_eq!(h.apply_one(&schema, delete).await, Applied::Written);
        assert_eq!(h.read(&schema, &key("aBC ", "x")).await, deleted(30));
        assert_eq!(h.rows(&schema.table.table).await, 1);
        // What only the server can tell apart never gets there.
        let refused = schema.accept_key(&row([("id", text("é")), ("b", text("é"))])).unwrap_err();
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].column == "id" && refused[0].problem.contains("collation"), "{refused:?}");
    }
}

/// As after the collation of a key was altered while records were on their way.
async fn a_key_that_was_accepted_in_an_older_form_finds_its_row(h: Harness) {
    for unique in ["", ", UNIQUE (n)"] {
        let table = format!("older_{}", unique.len());
        let create = format!(
            "CREATE TABLE {table} (id VARCHAR(20) COLLATE utf8mb4_general_ci NOT NULL PRIMARY KEY, n BIGINT{unique})"
        );
        let schema = h.table(&table, &create, VersionGuard::Column).await;
        let record = |id: &str, n: i64| row([("id", text(id)), ("n", model::Value::Int64(n))]);
        let put = |key: &str, n: u64| change(&schema, id(key), n, model::Content::Row(record(key, n as i64)));
        assert_eq!(h.apply_one(&schema, put("abc", 10)).await, Applied::Written);
        let changes = [put("ABC", 20), put("Other", 21)];
        assert_eq!(h.apply(&schema, &changes).await.unwrap(), [Applied::Written, Applied::Written]);
        assert_eq!(h.rows(&schema.table.table).await, 2);
        for key in ["abc", "ABC"] {
            assert_eq!(h.read(&schema, &id(key)).await, present(20, record("ABC", 20)), "{key}");
        }
        // And an older version of it does not take the row back.
        let stale = Applied::Stale { current: present(20, record("ABC", 20)) };
        assert_eq!(h.apply_one(&schema, put("Abc", 15)).await, stale);
        let delete = change(&schema, id("ABC"), 30, model::Content::Tombstone);
        assert_eq!(h.apply_one(&schema, delete).await, Applied::Written);
        assert_eq!(h.rows(&schema.table.table).await, 1);
    }
}

async fn a_row_that_only_the_server_takes_for_ours_is_in_the_way_of_itself_only(h: Harness) {
    let create = "CREATE TABLE z (id VARCHAR(20) COLLATE utf8mb4_unicode_ci NOT NULL PRIMARY KEY, n BIGINT)";
    for guard in GUARDS {
        h.sql("DROP TABLE IF EXISTS z").await;
        let schema = h.table("z", create, guard).await;
        h.sql("INSERT INTO z (id, n) VALUES ('É', 1)").await;
        let put = |key: &str| put_row(&schema, row([("id", text(key)), ("n", model::Value::Int64(2))]), 10);
        // Permanent: the drain takes the batch apart and writes the others.
        match h.apply(&schema, &[put("d"), put("e"), put("f")]).await {
            Err(DatabaseError::Statement { class: database::ErrorClass::Permanent, message, .. }) => {
                assert!(message.contains("collation"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(h.rows(&schema.table.table).await, 1);
        assert_eq!(h.apply(&schema, &[put("d"), put("f")]).await.unwrap(), [Applied::Written, Applied::Written]);
    }
}

async fn a_key_that_only_the_server_can_tell_apart_is_refused(h: Harness) {
    h.sql("CREATE TABLE x (id VARCHAR(20) COLLATE utf8mb4_turkish_ci PRIMARY KEY)").await;
    match h.introspect("x").await {
        Err(DatabaseError::Unsupported { reason, .. }) => assert!(reason.contains("utf8mb4_bin"), "{reason}"),
        other => panic!("{other:?}"),
    }
    // Outside the key it is a text like any other. A row that somebody else has written is not taken for another one.
    let create = "CREATE TABLE y (id VARCHAR(20) COLLATE utf8mb4_unicode_ci PRIMARY KEY, t VARCHAR(9) COLLATE \
                  utf8mb4_turkish_ci)";
    let schema = h.table("y", create, VersionGuard::Ledger).await;
    h.sql("INSERT INTO y (id, t) VALUES ('É', 'ı')").await;
    let read = h.database.sql();
    use database::Database as _;
    match read.read(&schema, &[key_of(&schema, "e").unwrap()]).await {
        Err(DatabaseError::Statement { message, .. }) => assert!(message.contains("collation"), "{message}"),
        other => panic!("{other:?}"),
    }
}

async fn a_key_that_is_equal_to_others_is_refused_and_other_texts_are_not(h: Harness) {
    crate::corpus::declare_types(&h).await;
    let refused = [
        "public.citext",
        "TEXT COLLATE loose",
        "VARCHAR(20) COLLATE loose",
        "CHAR(4) COLLATE loose",
        "loosely",
        "NUMERIC",
    ];
    for declared in refused {
        h.sql(&format!("CREATE TABLE x (n BIGINT NOT NULL, id {declared} NOT NULL, PRIMARY KEY (n, id))")).await;
        match h.introspect("x").await {
            Err(DatabaseError::Unsupported { reason, .. }) => {
                assert!(reason.contains(": use "), "{declared}: {reason}")
            }
            other => panic!("{declared}: {other:?}"),
        }
        h.sql("DROP TABLE x").await;
    }
    // Each text is itself under all others, and outside the key.
    let carried = ["TEXT", "TEXT COLLATE \"C\"", "TEXT COLLATE \"de-x-icu\"", "code"];
    for (at, declared) in carried.into_iter().enumerate() {
        let table = format!("y{at}");
        let create = format!("CREATE TABLE {table} (id {declared} NOT NULL PRIMARY KEY, c public.citext)");
        let schema = h.table(&table, &create, VersionGuard::Column).await;
        let texts = ["a", "A", "á", "a ", "ß", "ss", "e\u{301}", "é"];
        let put = |key: &str| put_row(&schema, row([("id", text(key)), ("c", text(key))]), 10);
        let changes: Vec<_> = texts.iter().map(|key| put(key)).collect();
        assert_eq!(h.apply(&schema, &changes).await.unwrap(), vec![Applied::Written; texts.len()], "{declared}");
        assert_eq!(h.rows(&schema.table.table).await, texts.len() as i64);
        for key in texts {
            let found = h.read(&schema, &key_of(&schema, key).unwrap()).await;
            assert_eq!(found, present(10, row([("id", text(key)), ("c", text(key))])), "{declared} {key}");
        }
    }
}

async fn a_key_with_a_collation_is_refused(h: Harness) {
    for collation in ["NOCASE", "RTRIM"] {
        h.sql(&format!(
            "CREATE TABLE x (n BIGINT NOT NULL, id TEXT NOT NULL COLLATE {collation}, PRIMARY KEY (n, id))"
        ))
        .await;
        match h.introspect("x").await {
            Err(DatabaseError::Unsupported { reason, .. }) => assert!(reason.contains(collation), "{reason}"),
            other => panic!("{other:?}"),
        }
        h.sql("DROP TABLE x").await;
    }
}
