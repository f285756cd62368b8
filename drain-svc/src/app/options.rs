//! From the settings to what each server's client is told.

use database::DatabaseOptions;
use event_log::kafka::{GroupProtocol, KafkaOptions, KafkaSecurity};
use hot_store::redis::RedisOptions;
use model::{DatabaseName, ShardCount};
use runtime::{
    Settings,
    config::{self, HostNameUnknown},
};

use super::RunError;
use crate::options::host;

/// Where the servers are.
pub(super) struct Plan {
    pub(super) shards: ShardCount,
    pub(super) redis: RedisOptions,
    pub(super) kafka: KafkaOptions,
    pub(super) databases: Vec<DatabaseOptions>,
}

impl Plan {
    pub(super) fn of(settings: &Settings) -> Result<Self, RunError> {
        let shards = ShardCount::new(settings.shards)?;
        let database = |database: &config::DatabaseSettings| {
            let name = DatabaseName::new(&database.name)?;
            Ok(DatabaseOptions { pool: database.pool, ..DatabaseOptions::new(name, database.url.expose()) })
        };
        Ok(Self {
            shards,
            redis: redis(settings, shards),
            kafka: kafka(settings, host().as_deref())?,
            databases: settings.databases.iter().map(database).collect::<Result<_, RunError>>()?,
        })
    }
}

/// An empty setting is one that was not given.
fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn redis(Settings { redis: settings, request_window, .. }: &Settings, shards: ShardCount) -> RedisOptions {
    RedisOptions {
        url: settings.url.expose().to_owned(),
        username: given(&settings.username),
        password: given(settings.password.expose()),
        // 0 is the default of both; a number in the url counts then.
        db: (settings.db != 0).then_some(i64::from(settings.db)),
        pool: u16::try_from(settings.pool).unwrap_or(u16::MAX),
        connect_timeout: settings.connect_timeout,
        response_timeout: settings.response_timeout,
        prefix: settings.prefix.clone(),
        shards,
        request_window: *request_window,
    }
}

fn kafka(
    Settings { kafka: settings, request_window, .. }: &Settings,
    host: Option<&str>,
) -> Result<KafkaOptions, HostNameUnknown> {
    Ok(KafkaOptions {
        group_protocol: match settings.group_protocol {
            config::GroupProtocol::Auto => GroupProtocol::Auto,
            config::GroupProtocol::Classic => GroupProtocol::Classic,
            config::GroupProtocol::Consumer => GroupProtocol::Consumer,
        },
        session_timeout: settings.session_timeout,
        max_poll_interval: settings.max_poll_interval,
        group_instance_id: settings.instance_id(host)?,
        max_message_bytes: settings.max_message_bytes,
        allow_single_node: settings.allow_single_node,
        request_window: *request_window,
        security: KafkaSecurity {
            protocol: Some(settings.security_protocol.as_str().to_owned()),
            mechanism: given(&settings.sasl_mechanism),
            username: given(&settings.sasl_username),
            password: given(settings.sasl_password.expose()),
            ca: given(&settings.ssl_ca_location),
        },
        ..KafkaOptions::new(&settings.brokers, &settings.group)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_set_reaches_the_clients() {
        let flags = [
            "databases=[{name: main, url: 'mysql://localhost/pay', pool: 3}]",
            "redis.url=redis://127.0.0.1:1/2",
            "redis.prefix=other",
            "kafka.group=g",
            "kafka.session_timeout=7s",
            "shards=16",
        ];
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let settings = Settings::load(config::ConfigSources { flags, ..Default::default() }).unwrap();
        let plan = Plan::of(&settings).unwrap();
        assert_eq!((plan.shards.get(), plan.redis.shards.get(), plan.redis.db), (16, 16, None));
        assert_eq!((plan.redis.prefix.as_str(), plan.kafka.group.as_str()), ("other", "g"));
        assert_eq!(plan.kafka.session_timeout, std::time::Duration::from_secs(7));
        assert_eq!((plan.databases[0].name.as_str(), plan.databases[0].pool), ("main", 3));
    }
}
