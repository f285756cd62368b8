//! What no type can say about settings: limits, and what must fit together.

use std::{collections::HashSet, time::Duration};

use tracing_subscriber::EnvFilter;

use super::{
    ConfigError, KafkaSettings, RedisSettings, Settings,
    settings::{AdaptiveSettings, DatabaseSettings},
    tables::TableOverrides,
};

const DATABASE_SCHEMES: [&str; 5] = ["mysql", "mariadb", "postgres", "postgresql", "sqlite"];

/// Collects what is wrong, so that nobody has to start a process once per mistake.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn unless(&mut self, fine: bool, problem: impl FnOnce() -> String) {
        if !fine {
            self.0.push(problem());
        }
    }

    fn at_least_one(&mut self, key: &str, value: usize) {
        self.unless(value >= 1, || format!("{key} is 0: it must be at least 1"));
    }

    fn some_time(&mut self, key: &str, value: Duration) {
        self.unless(!value.is_zero(), || format!("{key} is 0: it must be some time, such as 1s"));
    }

    fn rate(&mut self, key: &str, value: f64) {
        self.unless(value.is_finite() && value >= 0.0, || {
            format!("{key} is {value}: it must be a number of rows per second, or 0 for no limit")
        });
    }
}

impl Settings {
    /// Checks what the types can't.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with everything that is wrong, each in one sentence.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        let shards = self.shards;
        problems.unless((1..=1024).contains(&shards), || format!("shards is {shards}: it must be 1 to 1024"));
        problems.some_time("request_window", self.request_window);
        problems.some_time("table_refresh", self.table_refresh);
        problems.some_time("shutdown_deadline", self.shutdown_deadline);
        self.check_services(&mut problems);
        check_redis(&self.redis, &mut problems);
        check_kafka(&self.kafka, self.databases.len(), &mut problems);
        check_databases(&self.databases, &mut problems);
        self.check_tables(&mut problems);
        problems.unless(EnvFilter::try_new(&self.telemetry.log).is_ok(), || {
            format!(
                "telemetry.log is {:?}: it must be a level or a filter such as info,drain_svc=debug",
                self.telemetry.log
            )
        });
        problems.unless(!self.embedded.data_dir.as_os_str().is_empty(), || {
            "embedded.data_dir is empty: it must name a directory".to_owned()
        });
        problems.unless(self.embedded.max_hot_bytes >= 1 << 20, || {
            "embedded.max_hot_bytes is too small: it must be at least 1048576".to_owned()
        });
        problems.unless(self.embedded.max_log_bytes >= 1 << 20, || {
            "embedded.max_log_bytes is too small: it must be at least 1048576".to_owned()
        });
        if problems.0.is_empty() { Ok(()) } else { Err(ConfigError::Invalid { problems: problems.0 }) }
    }

    fn check_services(&self, problems: &mut Problems) {
        let (ingest, drain) = (&self.ingest, &self.drain);
        problems.at_least_one("ingest.max_message_bytes", ingest.max_message_bytes);
        problems.at_least_one("ingest.max_batch_items", ingest.max_batch_items);
        problems.at_least_one("ingest.max_in_flight", ingest.max_in_flight);
        problems.at_least_one("ingest.max_streams", ingest.max_streams);
        problems.at_least_one("ingest.stream_items", ingest.stream_items);
        problems.at_least_one("ingest.stream_bytes", ingest.stream_bytes);
        problems.some_time("ingest.stream_idle", ingest.stream_idle);
        problems.at_least_one("ingest.max_cold_reads", ingest.max_cold_reads);
        problems.at_least_one("ingest.max_watches", ingest.max_watches);
        problems.at_least_one("ingest.max_find_records", ingest.max_find_records);
        problems.at_least_one("ingest.max_find_bytes", ingest.max_find_bytes);
        problems.at_least_one("ingest.relay_batch", ingest.relay_batch);
        problems.some_time("ingest.database_patience", ingest.database_patience);
        problems.some_time("ingest.lease_ttl", ingest.lease_ttl);
        problems.some_time("ingest.absent_ttl", ingest.absent_ttl);
        problems.some_time("ingest.watch_progress", ingest.watch_progress);
        problems.some_time("ingest.relay_interval", ingest.relay_interval);
        problems.some_time("ingest.checkpoint_interval", ingest.checkpoint_interval);
        problems.unless(ingest.listen != ingest.admin_listen || ingest.listen.port() == 0, || {
            format!("ingest.listen and ingest.admin_listen are both {}: they must differ", ingest.listen)
        });
        problems.rate("drain.rows_per_second", drain.rows_per_second);
        problems.rate("drain.transactions_per_second", drain.transactions_per_second);
        problems.at_least_one("drain.batch_rows", drain.batch_rows);
        problems.at_least_one("drain.min_batch_rows", drain.min_batch_rows);
        problems.some_time("drain.batch_target", drain.batch_target);
        problems.at_least_one("drain.batch_bytes", drain.batch_bytes);
        problems.at_least_one("drain.lanes", drain.lanes);
        problems.at_least_one("drain.lane_capacity", drain.lane_capacity);
        problems.some_time("drain.retry_initial", drain.retry_initial);
        problems.unless(drain.retry_initial <= drain.retry_max, || {
            "drain.retry_initial is longer than drain.retry_max: it must not be".to_owned()
        });
        problems.some_time("drain.horizon_interval", drain.horizon_interval);
        problems.some_time("drain.purge_interval", drain.purge_interval);
    }

    fn check_tables(&self, problems: &mut Problems) {
        problems.some_time("tables.defaults.ttl", self.tables.defaults.ttl);
        let mut namespaces = HashSet::new();
        for (name, own) in &self.tables.per_table {
            let key = format!("tables.per_table.{name}");
            match name.split_once('.') {
                Some((database, table)) if !database.is_empty() && !table.is_empty() => problems.unless(
                    // Without databases this is the embedded edition, which brings its own.
                    self.databases.is_empty() || self.databases.iter().any(|d| d.name == database),
                    || format!("{key}: there is no database {database:?} in databases"),
                ),
                _ => problems.0.push(format!("{key}: a table is named database.table here")),
            }
            check_table(&key, own, problems);
            let namespace = self.table(name).namespace;
            problems.unless(namespaces.insert(namespace.clone()), || {
                format!("{key}.namespace: {namespace:?} is another table's namespace as well")
            });
        }
    }
}

fn check_table(key: &str, own: &TableOverrides, problems: &mut Problems) {
    if let Some(ttl) = own.ttl {
        problems.some_time(&format!("{key}.ttl"), ttl);
    }
    if let Some(rate) = own.rows_per_second {
        problems.rate(&format!("{key}.rows_per_second"), rate);
    }
    if let Some(rate) = own.transactions_per_second {
        problems.rate(&format!("{key}.transactions_per_second"), rate);
    }
    if let Some(rows) = own.batch_rows {
        problems.at_least_one(&format!("{key}.batch_rows"), rows);
    }
    if let Some(rows) = own.min_batch_rows {
        problems.at_least_one(&format!("{key}.min_batch_rows"), rows);
    }
    if let Some(namespace) = &own.namespace {
        let fine = !namespace.is_empty() && !namespace.contains(|c: char| c.is_control() || matches!(c, '{' | '}'));
        problems
            .unless(fine, || format!("{key}.namespace: it must not be empty, nor hold braces or control characters"));
    }
    if let Some(columns) = &own.group_by {
        let distinct: HashSet<_> = columns.iter().collect();
        let fine = distinct.len() == columns.len() && !columns.iter().any(String::is_empty);
        problems.unless(fine, || format!("{key}.group_by: a column is empty or there twice"));
    }
}

fn check_redis(redis: &RedisSettings, problems: &mut Problems) {
    let shown = &redis.url;
    problems.unless(matches!(redis.url.scheme(), Some("redis" | "rediss")), || {
        format!("redis.url is {shown}: it must be redis://host:port or rediss://host:port")
    });
    problems.unless(!redis.cluster, || {
        "redis.cluster is true: Redis Cluster is not supported yet; use a single Redis".to_owned()
    });
    problems.at_least_one("redis.pool", redis.pool);
    problems.some_time("redis.connect_timeout", redis.connect_timeout);
    problems.some_time("redis.response_timeout", redis.response_timeout);
    let prefix = &redis.prefix;
    problems
        .unless(!prefix.is_empty() && prefix.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)), || {
            format!("redis.prefix is {prefix:?}: it must be made of letters, digits, _ - .")
        });
}

fn check_kafka(kafka: &KafkaSettings, databases: usize, problems: &mut Problems) {
    let is_broker = |broker: &str| {
        broker.trim().rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    problems.unless(kafka.brokers.split(',').all(is_broker), || {
        format!("kafka.brokers is {:?}: it must be host:port, or several with commas between", kafka.brokers)
    });
    let template = &kafka.topic_template;
    problems.unless(template.contains("{table}"), || {
        format!("kafka.topic_template is {template:?}: it must hold {{table}}, since each table has a topic of its own")
    });
    problems.unless(databases <= 1 || template.contains("{database}"), || {
        format!("kafka.topic_template is {template:?}: with several databases it must hold {{database}} as well")
    });
    let is_topic = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    problems.unless(kafka.topic_of("d", "t").chars().all(is_topic), || {
        format!("kafka.topic_template is {template:?}: a topic is made of letters, digits, . _ - and {{database}}, {{table}}")
    });
    problems.unless(!kafka.group.is_empty(), || "kafka.group is empty: the drain replicas need one".to_owned());
    problems.unless(matches!(kafka.acks.as_str(), "all" | "-1"), || {
        format!("kafka.acks is {:?}: it must be all, or acknowledged writes could be lost", kafka.acks)
    });
    problems.some_time("kafka.session_timeout", kafka.session_timeout);
    problems.unless(kafka.max_poll_interval >= kafka.session_timeout, || {
        "kafka.max_poll_interval is shorter than kafka.session_timeout: a member that lives would be thrown out"
            .to_owned()
    });
    problems.some_time("kafka.delivery_timeout", kafka.delivery_timeout);
    problems.some_time("kafka.retention", kafka.retention);
    problems.unless(kafka.linger < kafka.delivery_timeout, || {
        "kafka.linger is not shorter than kafka.delivery_timeout: every delivery would time out".to_owned()
    });
    problems.unless(kafka.max_message_bytes >= 1024, || {
        "kafka.max_message_bytes is too small: it must be at least 1024".to_owned()
    });
    let (copies, in_sync) = (kafka.replication_factor, kafka.min_insync_replicas);
    problems.unless(in_sync >= 1 && in_sync <= copies, || {
        format!("kafka.min_insync_replicas is {in_sync}: it must be 1 to kafka.replication_factor, which is {copies}")
    });
    problems.unless(kafka.allow_single_node || (copies >= 3 && in_sync >= 2), || {
        format!(
            "kafka.replication_factor is {copies} and kafka.min_insync_replicas {in_sync}: they must be at least 3 and 2, \
             or the loss of one broker could lose acknowledged writes (kafka.allow_single_node: true permits it)"
        )
    });
    if kafka.security_protocol.uses_sasl() {
        for (key, missing) in [
            ("sasl_mechanism", kafka.sasl_mechanism.is_empty()),
            ("sasl_username", kafka.sasl_username.is_empty()),
            ("sasl_password", kafka.sasl_password.is_empty()),
        ] {
            problems.unless(!missing, || {
                format!("kafka.{key} is empty: kafka.security_protocol {} needs it", kafka.security_protocol.as_str())
            });
        }
    }
}

fn check_databases(databases: &[DatabaseSettings], problems: &mut Problems) {
    let mut names = HashSet::new();
    for (index, database) in databases.iter().enumerate() {
        let name = &database.name;
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        problems.unless((1..=63).contains(&name.len()) && name.chars().all(is_name), || {
            format!("databases.{index}.name is {name:?}: it must be 1 to 63 lower-case letters, digits, _ or -")
        });
        problems
            .unless(names.insert(name), || format!("databases.{index}.name is {name:?}: another one has that name"));
        let url = &database.url;
        problems.unless(url.scheme().is_some_and(|scheme| DATABASE_SCHEMES.contains(&scheme)), || {
            let shown = if url.is_empty() { "missing".to_owned() } else { format!("{url}") };
            format!("databases.{index}.url is {shown}: it must begin with one of {}", DATABASE_SCHEMES.join(", "))
        });
        problems.at_least_one(&format!("databases.{index}.pool"), database.pool as usize);
        problems.rate(&format!("databases.{index}.rows_per_second"), database.rows_per_second);
        if let Some(AdaptiveSettings { min_rows_per_second: min, max_rows_per_second: max }) = database.adaptive {
            problems.unless(min > 0.0 && min <= max && max.is_finite(), || {
                format!(
                    "databases.{index}.adaptive is from {min} to {max} rows per second: the lowest must be above 0, and \
                     the highest at least that"
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn problems_of(change: impl FnOnce(&mut Settings)) -> Vec<String> {
        let mut settings = Settings::default();
        change(&mut settings);
        match settings.validate() {
            Ok(()) => Vec::new(),
            Err(ConfigError::Invalid { problems }) => problems,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_defaults_are_fine() {
        assert_eq!(problems_of(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn each_mistake_is_found_and_named_by_its_key() {
        type Change = fn(&mut Settings);
        let cases: &[(&str, Change)] = &[
            ("shards", |s| s.shards = 0),
            ("shards", |s| s.shards = 1025),
            ("ingest.max_in_flight", |s| s.ingest.max_in_flight = 0),
            ("ingest.max_streams", |s| s.ingest.max_streams = 0),
            ("ingest.stream_items", |s| s.ingest.stream_items = 0),
            ("ingest.stream_bytes", |s| s.ingest.stream_bytes = 0),
            ("ingest.stream_idle", |s| s.ingest.stream_idle = Duration::ZERO),
            ("ingest.listen and ingest.admin_listen", |s| s.ingest.admin_listen = s.ingest.listen),
            ("drain.rows_per_second", |s| s.drain.rows_per_second = -1.0),
            ("drain.rows_per_second", |s| s.drain.rows_per_second = f64::NAN),
            ("drain.retry_initial", |s| s.drain.retry_initial = Duration::from_secs(60)),
            ("drain.horizon_interval", |s| s.drain.horizon_interval = Duration::ZERO),
            ("drain.purge_interval", |s| s.drain.purge_interval = Duration::ZERO),
            ("redis.url", |s| s.redis.url = "http://x".into()),
            ("redis.cluster", |s| s.redis.cluster = true),
            ("redis.prefix", |s| s.redis.prefix = "{x}".into()),
            ("kafka.brokers", |s| s.kafka.brokers = "localhost".into()),
            ("kafka.topic_template", |s| s.kafka.topic_template = "all".into()),
            ("kafka.acks", |s| s.kafka.acks = "1".into()),
            ("kafka.linger", |s| s.kafka.linger = Duration::from_secs(60)),
            ("kafka.min_insync_replicas", |s| s.kafka.min_insync_replicas = 4),
            ("kafka.replication_factor", |s| s.kafka.replication_factor = 2),
            ("kafka.sasl_mechanism", |s| s.kafka.security_protocol = super::super::SecurityProtocol::SaslSsl),
            ("databases.0.url", |s| {
                s.databases.push(DatabaseSettings { name: "main".into(), ..DatabaseSettings::default() });
            }),
            ("databases.0.adaptive", |s| {
                let adaptive = AdaptiveSettings { min_rows_per_second: 0.0, max_rows_per_second: 9.0 };
                s.databases.push(DatabaseSettings { adaptive: Some(adaptive), ..DatabaseSettings::default() });
            }),
            ("databases.0.adaptive", |s| {
                let adaptive = AdaptiveSettings { min_rows_per_second: 9.0, max_rows_per_second: 8.0 };
                s.databases.push(DatabaseSettings { adaptive: Some(adaptive), ..DatabaseSettings::default() });
            }),
            ("tables.per_table.payments", |s| {
                s.tables.per_table.insert("payments".into(), TableOverrides::default());
            }),
            ("tables.per_table.main.t.group_by", |s| {
                let own = TableOverrides { group_by: Some(vec!["a".into(), "a".into()]), ..TableOverrides::default() };
                s.tables.per_table.insert("main.t".into(), own);
            }),
            ("telemetry.log", |s| s.telemetry.log = "a=b=c".into()),
        ];
        for (key, change) in cases {
            let problems = problems_of(change);
            assert!(problems.iter().any(|p| p.starts_with(key)), "{key}: {problems:?}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let problems = problems_of(|s| {
            s.shards = 0;
            s.redis.cluster = true;
            s.kafka.acks = "1".into();
        });
        assert_eq!(problems.len(), 3, "{problems:?}");
    }

    #[test]
    fn one_node_is_accepted_when_it_is_allowed() {
        let one_node = |s: &mut Settings| {
            s.kafka.allow_single_node = true;
            s.kafka.replication_factor = 1;
            s.kafka.min_insync_replicas = 1;
        };
        assert_eq!(problems_of(one_node), Vec::<String>::new());
    }

    #[test]
    fn no_problem_shows_a_password() {
        let problems = problems_of(|s| s.redis.url = "http://:hunter2@x".into());
        assert!(!problems.concat().contains("hunter2"), "{problems:?}");
    }

    #[test]
    fn two_tables_cannot_share_a_namespace() {
        let problems = problems_of(|s| {
            for table in ["main.a", "main.b"] {
                let own = TableOverrides { namespace: Some("shared".into()), ..TableOverrides::default() };
                s.tables.per_table.insert(table.into(), own);
            }
        });
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
}
