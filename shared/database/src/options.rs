//! Where a database is and how it is connected to.

use std::{fmt, time::Duration};

use model::DatabaseName;

/// Where a database is and how it is connected to.
#[derive(Clone)]
pub struct DatabaseOptions {
    /// The name under which it is configured.
    pub name: DatabaseName,
    /// `mysql://user:password@host:port/schema`, `mariadb://…`,
    /// `postgres://user:password@host:port/database`, `postgresql://…`, `sqlite:path` or `sqlite://path`.
    pub url: String,
    /// Connections, at most.
    pub pool: u32,
    /// How long to wait for a connection, new or from the pool.
    pub connect_timeout: Duration,
    /// How long a statement may take; then its connection is closed.
    pub statement_timeout: Duration,
    /// How long a statement may wait for a lock; less than `statement_timeout`, so that the database says so itself.
    pub lock_timeout: Duration,
    /// SQLite: make the file if there is none.
    pub create_if_missing: bool,
}

impl DatabaseOptions {
    /// A database with 16 connections and 5, 30 and 10 seconds of patience.
    pub fn new(name: DatabaseName, url: impl Into<String>) -> Self {
        Self {
            name,
            url: url.into(),
            pool: 16,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
            create_if_missing: false,
        }
    }
}

impl fmt::Debug for DatabaseOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseOptions")
            .field("name", &self.name)
            .field("url", &redacted(&self.url))
            .field("pool", &self.pool)
            .field("connect_timeout", &self.connect_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("lock_timeout", &self.lock_timeout)
            .field("create_if_missing", &self.create_if_missing)
            .finish()
    }
}

/// The url without user, password and parameters.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.split('?').next().unwrap_or_default().to_owned();
    };
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let place = place.split('?').next().unwrap_or_default();
    if rest.contains('@') { format!("{scheme}://***@{place}") } else { format!("{scheme}://{place}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn no_secret_is_shown() {
        for url in ["mysql://user:s3cret@host:3306/pay?ssl-key=s3cret", "mysql://user:s3@cret@host/pay"] {
            let shown = format!("{:?}", DatabaseOptions::new(DatabaseName::new("main").unwrap(), url));
            assert!(shown.contains("host") && !shown.contains("s3") && !shown.contains("user"), "{shown}");
        }
        assert_eq!(redacted("sqlite:/var/lib/db"), "sqlite:/var/lib/db");
    }
}
