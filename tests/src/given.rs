//! The servers that `./tests/run` has started (or that you have) for all tests that break none of them.

use std::env;

/// `redis://127.0.0.1:PORT`.
pub const REDIS: &str = "SHOCK_ABSORBER_TEST_REDIS";
/// `127.0.0.1:PORT`.
pub const KAFKA: &str = "SHOCK_ABSORBER_TEST_KAFKA";
/// `mysql://root@127.0.0.1:PORT/DB`.
pub const MARIADB: &str = "SHOCK_ABSORBER_TEST_MARIADB";
/// `mysql://root@127.0.0.1:PORT/DB`.
pub const MYSQL: &str = "SHOCK_ABSORBER_TEST_MYSQL";
/// `postgres://postgres@127.0.0.1:PORT/DB`.
pub const POSTGRES: &str = "SHOCK_ABSORBER_TEST_POSTGRES";

/// The Redis of the tests.
///
/// # Panics
/// If there is none.
pub fn redis() -> String {
    required(REDIS)
}

/// The Kafka of the tests.
///
/// # Panics
/// If there is none.
pub fn kafka() -> String {
    required(KAFKA)
}

/// The MariaDB of the tests.
///
/// # Panics
/// If there is none.
pub fn mariadb() -> String {
    required(MARIADB)
}

/// The MySQL itself of the tests.
///
/// # Panics
/// If there is none.
pub fn mysql() -> String {
    required(MYSQL)
}

/// The PostgreSQL of the tests.
///
/// # Panics
/// If there is none.
pub fn postgres() -> String {
    required(POSTGRES)
}

fn required(variable: &str) -> String {
    match env::var(variable) {
        Ok(address) if !address.is_empty() => address,
        // A test that can't run must not look like one that passed.
        _ => panic!("{variable} is not set, and this test needs that server: ./tests/run starts one"),
    }
}
