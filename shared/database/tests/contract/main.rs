//! What every database must do, whichever it is: the contract of trait `Database`.
//!
//! On the database in memory and on SQLite files always; on MariaDB, MySQL and PostgreSQL where
//! `SHOCK_ABSORBER_TEST_MARIADB`, `SHOCK_ABSORBER_TEST_MYSQL` (`mysql://root@127.0.0.1:3306/any`) and
//! `SHOCK_ABSORBER_TEST_POSTGRES` (`postgres://postgres@127.0.0.1:5432/any`) name a server, each test in a schema of its own.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

/// Makes a test per database out of `async fn name(harness: Harness)`.
macro_rules! on_every_database {
    ($($name:ident),* $(,)?) => {
        on_each!(on_memory, memory: $($name),*);
        on_each!(on_sqlite, sqlite: $($name),*);
        on_servers!($($name),*);
    };
}

/// The same for a module whose tests are all about SQL: its text, its types, its own errors, others' connections.
macro_rules! on_every_sql_database {
    ($($name:ident),* $(,)?) => {
        on_each!(on_sqlite, sqlite: $($name),*);
        on_servers!($($name),*);
    };
}

/// The same for a module of which a few tests, after the `;`, are about SQL.
macro_rules! on_each_database {
    ($($every:ident),* ; about_sql: $($sql:ident),* $(,)?) => {
        on_each!(on_memory, memory: $($every),*);
        on_each!(on_sqlite, sqlite: $($every,)* $($sql),*);
        on_servers!($($every,)* $($sql),*);
    };
}

macro_rules! on_each {
    ($module:ident, $harness:ident: $($name:ident),* $(,)?) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::harness::Harness::$harness().await).await;
            })*
        }
    };
}

/// Makes a test per kind of server out of `async fn name(harness: Harness)`.
macro_rules! on_servers {
    ($($name:ident),* $(,)?) => {
        on_mysql!($($name),*);
        on_postgres!($($name),*);
    };
}

/// Makes a test on PostgreSQL out of `async fn name(harness: Harness)`.
macro_rules! on_postgres {
    ($($name:ident),* $(,)?) => {
        on_server!(on_postgres, postgres: $($name),*);
    };
}

/// Makes a test on MariaDB, and one on MySQL, out of `async fn name(harness: Harness)`.
macro_rules! on_mysql {
    ($($name:ident),* $(,)?) => {
        on_server!(on_mariadb, mariadb: $($name),*);
        on_server!(on_mysql, mysql: $($name),*);
    };
}

macro_rules! on_server {
    ($module:ident, $harness:ident: $($name:ident),* $(,)?) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a server: ./tests/run starts one"]
            async fn $name() {
                let harness = $crate::harness::Harness::$harness().await;
                let schema = harness.on_server().unwrap();
                super::$name(harness).await;
                schema.drop().await;
            })*
        }
    };
}

mod altered;
mod bounds;
mod cancellation;
mod corpus;
mod defaults;
mod errors;
mod find;
mod find_plan;
mod guards;
mod harness;
mod installation;
mod introspection;
mod laws;
mod names;
mod order;
mod ownership;
mod paging;
mod pool;
mod purge;
mod random;
mod rebalance;
mod rights;
mod script;
mod spellings;
mod tables;
mod tested;
mod throughput;
mod types;
mod unique;
mod values;
