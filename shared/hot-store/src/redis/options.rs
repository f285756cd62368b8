//! What the store is told about its server.

use std::{fmt, time::Duration};

use ::redis::{ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion};
use model::ShardCount;

use crate::{HotStoreError, REQUEST_WINDOW};

/// How to reach Redis, and under which names.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://host:port`; what it says of user, password and database is overruled by the fields below.
    pub url: String,
    /// The ACL user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// The numbered database.
    pub db: Option<i64>,
    /// Connections; each is multiplexed, and a shard always uses the same one.
    pub pool: u16,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for an answer; after it the outcome is unknown.
    pub response_timeout: Duration,
    /// The first part of every key; without braces.
    pub prefix: String,
    /// How many shards the installation has.
    pub shards: ShardCount,
    /// How long a request is remembered.
    pub request_window: Duration,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            username: None,
            password: None,
            db: None,
            pool: 4,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(2),
            prefix: "sa".to_owned(),
            shards: ShardCount::DEFAULT,
            request_window: REQUEST_WINDOW,
        }
    }
}

impl RedisOptions {
    pub(super) fn connection_info(&self) -> Result<ConnectionInfo, HotStoreError> {
        let unusable =
            |problem: String| HotStoreError::Unavailable(format!("its configuration is unusable: {problem}"));
        if self.prefix.is_empty() || self.prefix.contains(['{', '}']) {
            return Err(unusable("the key prefix must not be empty and must hold no braces".to_owned()));
        }
        let info = self.url.as_str().into_connection_info().map_err(|e| unusable(e.to_string()))?;
        // RESP3 is what makes the client library report a connection that ended while nobody was waiting on it.
        let mut redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        if let Some(username) = &self.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &self.password {
            redis = redis.set_password(password);
        }
        if let Some(db) = self.db {
            redis = redis.set_db(db);
        }
        Ok(info.set_redis_settings(redis))
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.rsplit_once('@').map_or(self.url.as_str(), |(_, host)| host);
        f.debug_struct("RedisOptions")
            .field("host", &host)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "(set)"))
            .field("db", &self.db)
            .field("pool", &self.pool)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("prefix", &self.prefix)
            .field("shards", &self.shards)
            .field("request_window", &self.request_window)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let options = RedisOptions {
            url: "redis://user:sesame@localhost:1".to_owned(),
            password: Some("sesame".to_owned()),
            ..RedisOptions::default()
        };
        let printed = format!("{options:?}");
        assert!(!printed.contains("sesame") && printed.contains("localhost:1"), "{printed}");
    }

    #[test]
    fn fields_overrule_the_url() {
        let options = RedisOptions {
            url: "redis://a:b@localhost:1/3".to_owned(),
            username: Some("c".to_owned()),
            db: Some(5),
            ..RedisOptions::default()
        };
        let info = options.connection_info().unwrap();
        let redis = info.redis_settings();
        assert_eq!((redis.username(), redis.password(), redis.db()), (Some("c"), Some("b"), 5));
    }

    #[test]
    fn a_prefix_that_would_move_keys_to_another_slot_is_refused() {
        for prefix in ["", "{a}", "a{"] {
            let options = RedisOptions { prefix: prefix.to_owned(), ..RedisOptions::default() };
            assert!(options.connection_info().is_err(), "{prefix}");
        }
    }
}
