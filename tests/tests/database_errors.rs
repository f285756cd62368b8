//! What a MariaDB says that can't work now is taken for what it is: each error caused on a server of the test's own.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use database::{
    AnyDatabase, Applied, Batch, Change, Database as _, DatabaseError, DatabaseOptions, ErrorClass, Owner, ShardClaim,
};
use model::{
    ColumnName, Content, DatabaseName, Image, Key, Operation, Row, Shard, TableName, TableSchema, Value, Version,
};
use shock_absorber_tests::servers::MariaDbServer;

const SCHEMA: &str = "errors";
const SHARD: Shard = Shard(0);

/// A server with one table, and our connections to it as a user who may do little else.
struct Stand {
    server: MariaDbServer,
    database: AnyDatabase,
    schema: TableSchema,
}

fn owner() -> Owner {
    Owner("me".to_owned())
}

fn options(server: &MariaDbServer, user: &str) -> DatabaseOptions {
    let url = format!("mysql://{user}@127.0.0.1:{}/{SCHEMA}", server.port());
    let options = DatabaseOptions::new(DatabaseName::new("main").unwrap(), url);
    DatabaseOptions { pool: 1, connect_timeout: Duration::from_secs(2), ..options }
}

impl Stand {
    async fn new(arguments: &[&str]) -> Self {
        let server = MariaDbServer::start_with(arguments).await.unwrap();
        server.create_schema(SCHEMA).await.unwrap();
        let create = "CREATE TABLE items (id BIGINT NOT NULL PRIMARY KEY, note LONGTEXT NULL); \
                      CREATE USER app@'%' IDENTIFIED BY 'app'; GRANT ALL ON errors.* TO app@'%'";
        server.sql(SCHEMA, create).await.unwrap();
        let database = AnyDatabase::connect(options(&server, "app:app")).await.unwrap();
        database.prepare().await.unwrap();
        let table = TableName::new("items").unwrap();
        let schema = database.introspect(&DatabaseName::new("main").unwrap(), &table).await.unwrap();
        database.take_ownership(&[ShardClaim { table, shard: SHARD }], &owner()).await.unwrap();
        Self { server, database, schema }
    }

    async fn root(&self, sql: &str) {
        self.server.sql(SCHEMA, sql).await.unwrap();
    }

    async fn write(&self, id: i64, note: &str) -> Result<Vec<Applied>, DatabaseError> {
        let column = |name: &str, value| (ColumnName::new(name).unwrap(), value);
        let row = Row::from_iter([column("id", Value::Int64(id)), column("note", Value::Text(note.to_owned()))]);
        let image = Image {
            content: Content::Row(row),
            operation: Operation::Put,
            fingerprint: self.schema.fingerprint(),
            request: None,
            since: None,
        };
        let version = Version::new(id.unsigned_abs()).unwrap();
        let changes = [Change { shard: SHARD, key: Key(vec![Value::Int64(id)]), version, image }];
        let owners = vec![(SHARD, owner())];
        self.database.apply(Batch { schema: &self.schema, owners, changes: &changes }).await
    }

    /// A write is refused so.
    async fn refuses(&self, id: i64, expected: &[(ErrorClass, &str)]) {
        match self.write(id, "x").await {
            Err(error) if is_one_of(&error, expected) => {}
            other => panic!("{other:?}, not one of {expected:?}"),
        }
    }

    /// Somebody has killed our one connection, which the next write finds out, unless it was seen before.
    async fn finds_its_connection_gone(&self) {
        if let Err(error) = self.database.introspect(&self.schema.table.database, &self.schema.table.table).await {
            assert!(error.class().may_pass(), "{error}");
        }
    }

    /// The same connections can write again, without anything having been done to them.
    async fn takes(&self, id: i64) {
        assert_eq!(self.write(id, "x").await, Ok(vec![Applied::Written]));
    }
}

fn is_one_of(error: &DatabaseError, expected: &[(ErrorClass, &str)]) -> bool {
    let code = if let DatabaseError::Statement { code, .. } = error { code.as_str() } else { "" };
    expected.contains(&(error.class(), code))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn a_server_that_can_write_nothing_now_blames_no_row() {
    let stand = Stand::new(&["--max-connections=10"]).await;
    stand.takes(1).await;

    // It has become a replica. A new connection may lead to the new primary, so the old one is not kept.
    let connection = || async {
        stand.server.sql("", "SELECT max(id) FROM information_schema.PROCESSLIST WHERE USER = 'app'").await
    };
    let before = connection().await.unwrap();
    stand.root("SET GLOBAL read_only = 1").await;
    stand.refuses(2, &[(ErrorClass::Transient, "1290")]).await;
    let probed = stand.database.probe().await.unwrap_err();
    assert!(is_one_of(&probed, &[(ErrorClass::Transient, "1290")]), "{probed}");
    stand.root("SET GLOBAL read_only = 0").await;
    assert_eq!(stand.database.probe().await, Ok(()));
    stand.takes(2).await;
    assert_ne!(connection().await.unwrap(), before, "the connection to what was read-only is kept");

    // A statement takes too long.
    stand.root("CREATE TRIGGER slow BEFORE INSERT ON items FOR EACH ROW DO SLEEP(3)").await;
    stand.root("SET GLOBAL max_statement_time = 0.5; KILL USER app").await;
    stand.finds_its_connection_gone().await;
    stand.refuses(3, &[(ErrorClass::Transient, "1969")]).await;
    stand.root("DROP TRIGGER slow").await;

    // No room for prepared statements.
    stand.root("SET GLOBAL max_prepared_stmt_count = 0; KILL USER app").await;
    stand.finds_its_connection_gone().await;
    stand.refuses(3, &[(ErrorClass::Transient, "1461")]).await;
    stand.root("SET GLOBAL max_prepared_stmt_count = 1000").await;
    stand.takes(3).await;

    // Too many connections, for one user and for all.
    stand.root("GRANT USAGE ON *.* TO app@'%' WITH MAX_CONNECTIONS_PER_HOUR 1").await;
    let refused = |user: &'static str| async {
        let connected = AnyDatabase::connect(options(&stand.server, user)).await;
        connected.err().unwrap()
    };
    let error = refused("app:app").await;
    assert!(is_one_of(&error, &[(ErrorClass::Transient, "1226")]), "{error}");
    stand.root("GRANT USAGE ON *.* TO app@'%' WITH MAX_CONNECTIONS_PER_HOUR 0").await;
    let mut held = Vec::new();
    let error = loop {
        match AnyDatabase::connect(options(&stand.server, "root")).await {
            Ok(one) => held.push(one),
            Err(error) => break error,
        }
        assert!(held.len() < 20);
    };
    assert!(is_one_of(&error, &[(ErrorClass::Transient, "1040")]), "{error}");
    drop(held);

    // A password that is being changed is waited for; a schema that isn't there needs a hand.
    let error = refused("app:wrong").await;
    assert!(is_one_of(&error, &[(ErrorClass::Transient, "1045")]), "{error}");
    let url = format!("mysql://app:app@127.0.0.1:{}/missing", stand.server.port());
    let elsewhere = DatabaseOptions { url, ..options(&stand.server, "app:app") };
    let error = AnyDatabase::connect(elsewhere).await.err().unwrap();
    assert!(is_one_of(&error, &[(ErrorClass::Schema, "1044"), (ErrorClass::Schema, "1049")]), "{error}");
}

/// It is busy, not away: nobody else is to wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn a_pool_that_is_all_in_use_is_told_from_a_server_that_is_away() {
    let stand = Stand::new(&[]).await;
    stand.takes(1).await;
    let slow = "CREATE TRIGGER slow BEFORE INSERT ON items FOR EACH ROW DO SLEEP(IF(NEW.id = 2, 12, 0))";
    stand.root(slow).await;
    let busy = async {
        // Our one connection; within a trigger it is said to be its definer's.
        let in_it = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE = 'User sleep'";
        let begun = std::time::Instant::now();
        while stand.server.sql("", in_it).await.unwrap().trim() != "1" {
            assert!(begun.elapsed() < Duration::from_secs(60), "the connection is never in use");
        }
        stand.refuses(3, &[(ErrorClass::Contended, "pool")]).await;
        assert_eq!(stand.database.probe().await, Ok(()));
    };
    let (written, ()) = tokio::join!(stand.write(2, "x"), busy);
    assert_eq!(written, Ok(vec![Applied::Written]));
    stand.takes(3).await;
}

/// A process of ours that is frozen within a transaction holds its rows until the server ends that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn a_transaction_in_which_nothing_happens_is_ended_by_the_server() {
    let stand = Stand::new(&[]).await;
    let told = stand.database.query_integers("SELECT @@idle_transaction_timeout").await.unwrap();
    let own = options(&stand.server, "app:app").lock_timeout;
    assert_eq!(told, [i64::try_from(own.as_secs()).unwrap()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn a_missing_privilege_blames_no_row() {
    let stand = Stand::new(&[]).await;
    stand.takes(1).await;
    stand
        .root(
            "REVOKE ALL ON errors.* FROM app@'%'; GRANT ALL ON errors._sa_shard TO app@'%'; \
                GRANT ALL ON errors._sa_ledger TO app@'%'; GRANT SELECT ON errors.items TO app@'%'; KILL USER app",
        )
        .await;
    stand.finds_its_connection_gone().await;
    stand.refuses(2, &[(ErrorClass::Schema, "1142")]).await;
    stand.root("GRANT SELECT, DELETE, UPDATE, INSERT (id) ON errors.items TO app@'%'").await;
    stand.refuses(2, &[(ErrorClass::Schema, "1143")]).await;
    stand.root("GRANT INSERT ON errors.items TO app@'%'").await;
    stand.takes(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn a_server_that_is_full_blames_no_row() {
    let stand = Stand::new(&["--innodb-file-per-table=0", "--innodb-data-file-path=ibdata1:12M"]).await;
    let large = "x".repeat(500_000);
    let mut id = 1;
    let error = loop {
        match stand.write(id, &large).await {
            Ok(_) => id += 1,
            Err(error) => break error,
        }
        assert!(id < 100);
    };
    assert!(is_one_of(&error, &[(ErrorClass::Transient, "1114")]), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn a_record_that_no_packet_holds_any_more_is_to_blame_or_nobody_knows() {
    let stand = Stand::new(&["--max-allowed-packet=16M"]).await;
    stand.takes(1).await;
    stand.root("SET GLOBAL max_allowed_packet = 1048576; KILL USER app").await;
    stand.finds_its_connection_gone().await;
    // The server may close the connection before its word is read.
    let error = stand.write(2, &"x".repeat(3 << 20)).await.unwrap_err();
    let expected = [(ErrorClass::Permanent, "1153"), (ErrorClass::Unclassified, "connection")];
    assert!(is_one_of(&error, &expected), "{error}");
    stand.takes(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run installs it"]
async fn a_server_that_goes_away_blames_no_row() {
    let mut stand = Stand::new(&[]).await;
    stand.takes(1).await;
    for is_killed in [false, true] {
        // In a statement: shutdown, or a connection that breaks.
        let blocked = async {
            stand.root("SELECT id FROM items").await;
            let holding = stand.server.sql(SCHEMA, "LOCK TABLES items WRITE; DO SLEEP(3)");
            let waiting = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                stand.write(2, "x").await.unwrap_err()
            };
            let ended = async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                let pid = std::fs::read_to_string(stand.server.dir().join("mariadbd.pid")).unwrap();
                let signal = if is_killed { "-KILL" } else { "-TERM" };
                std::process::Command::new("kill").args([signal, pid.trim()]).status().unwrap();
            };
            let (_, error, ()) = tokio::join!(holding, waiting, ended);
            error
        };
        let error = blocked.await;
        let in_the_act = [
            (ErrorClass::Unclassified, "connection"),
            (ErrorClass::Transient, "1053"),
            (ErrorClass::Transient, "1927"),
            (ErrorClass::Transient, "1317"),
        ];
        assert!(is_one_of(&error, &in_the_act), "{error}");
        stand.server.stop().await.unwrap();
        // Nobody listens.
        let away = [(ErrorClass::Transient, "connect"), (ErrorClass::Transient, "pool")];
        stand.refuses(2, &away).await;
        stand.server.restart().await.unwrap();
        stand.takes(if is_killed { 3 } else { 2 }).await;
    }
    // It is there and answers nothing.
    let patience = Duration::from_millis(500);
    let hasty = DatabaseOptions { statement_timeout: patience, ..options(&stand.server, "app:app") };
    stand.database = AnyDatabase::connect(hasty).await.unwrap();
    stand.server.freeze();
    let unanswered =
        [(ErrorClass::Unclassified, "connection"), (ErrorClass::Transient, "pool"), (ErrorClass::Transient, "connect")];
    stand.refuses(4, &unanswered).await;
    stand.refuses(4, &unanswered[1..]).await;
    stand.server.thaw();
    stand.takes(4).await;
}
