//! Settings from their sources, as a process gets them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{io::Write as _, path::PathBuf, time::Duration};

use clap::Parser;
use runtime::config::{
    ConfigArgs, ConfigError, ConfigSources, CreateCheck, DEFAULT_YAML, GroupProtocol, SecurityProtocol, Settings,
};

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn from_file(text: &str) -> Result<Settings, ConfigError> {
    let file = file(text);
    Settings::load(ConfigSources { file: Some(file.path().to_owned()), ..ConfigSources::default() })
}

fn from_environment(pairs: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let environment = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Settings::load(ConfigSources { environment, ..ConfigSources::default() })
}

fn from_flags(flags: &[&str]) -> Result<Settings, ConfigError> {
    Settings::load(ConfigSources { flags: flags.iter().map(|f| (*f).to_owned()).collect(), ..ConfigSources::default() })
}

#[test]
fn without_sources_the_defaults_are_in_effect() {
    let settings = Settings::load(ConfigSources::default()).unwrap();
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.shards, 64);
    assert_eq!(settings.kafka.retention, Duration::from_secs(168 * 3600));
    assert_eq!(settings.kafka.topic_of("main", "payments"), "shock-absorber.payments");
}

#[test]
fn the_examples_in_the_comments_of_the_defaults_are_true() {
    // An example begins with the commented key of a list or map, and ends with the comment.
    let mut in_example = false;
    let uncommented = DEFAULT_YAML
        .lines()
        .filter(|line| !matches!(*line, "databases: []" | "  per_table: {}"))
        .map(|line| {
            let comment = line.trim_start().strip_prefix("# ");
            in_example = comment.is_some_and(|text| in_example || matches!(text, "databases:" | "per_table:"));
            if in_example { line.replacen("# ", "", 1) } else { line.to_owned() }
        })
        .collect::<Vec<_>>()
        .join("\n");
    let settings = from_file(&uncommented).unwrap();
    assert_eq!(settings.databases.len(), 1);
    assert_eq!(settings.table("main.payments").namespace, "payments");
    assert_eq!(settings.table("main.payments").create_check, CreateCheck::Database);
}

#[test]
fn flags_lie_over_the_environment_over_the_file_over_the_defaults() {
    let file = file("redis: {pool: 5, db: 5, prefix: five}");
    let settings = Settings::load(ConfigSources {
        file: Some(file.path().to_owned()),
        environment: vec![
            ("SHOCK_ABSORBER__REDIS__POOL".into(), "6".into()),
            ("SHOCK_ABSORBER__REDIS__DB".into(), "6".into()),
            ("SHOCK_ABSORBER_CONFIG".into(), "not a setting".into()),
            ("PATH".into(), "/bin".into()),
        ],
        flags: vec!["redis.pool=7".into()],
    })
    .unwrap();
    assert_eq!((settings.redis.pool, settings.redis.db, settings.redis.prefix.as_str()), (7, 6, "five"));
    assert_eq!(settings.redis.url, Settings::default().redis.url);
}

#[test]
fn texts_of_the_environment_become_what_the_setting_is() {
    let settings = from_environment(&[
        ("SHOCK_ABSORBER__SHARDS", "128"),
        ("SHOCK_ABSORBER__INGEST__REFLECTION", "false"),
        ("SHOCK_ABSORBER__INGEST__LISTEN", "0.0.0.0:1"),
        ("SHOCK_ABSORBER__DRAIN__ROWS_PER_SECOND", "0.25"),
        ("SHOCK_ABSORBER__DRAIN__BATCH_AGE", "1m30s"),
        ("SHOCK_ABSORBER__KAFKA__GROUP_PROTOCOL", "consumer"),
        ("SHOCK_ABSORBER__KAFKA__SECURITY_PROTOCOL", "ssl"),
        ("SHOCK_ABSORBER__REDIS__PASSWORD", "0123"),
        ("SHOCK_ABSORBER__REDIS__USERNAME", "true"),
        ("SHOCK_ABSORBER__TABLES__PER_TABLE", r#"{"main.payments": {"ttl": "1h", "group_by": ["tenant"]}}"#),
        ("SHOCK_ABSORBER__DATABASES__0__NAME", "main"),
        ("SHOCK_ABSORBER__DATABASES__0__URL", "mysql://a:b@h/s"),
        ("SHOCK_ABSORBER__DATABASES__0__POOL", "3"),
    ])
    .unwrap();
    assert_eq!(settings.shards, 128);
    assert!(!settings.ingest.reflection);
    assert_eq!(settings.ingest.listen.port(), 1);
    assert_eq!(settings.drain.rows_per_second, 0.25);
    assert_eq!(settings.drain.batch_age, Duration::from_secs(90));
    assert_eq!(settings.kafka.group_protocol, GroupProtocol::Consumer);
    assert_eq!(settings.kafka.security_protocol, SecurityProtocol::Ssl);
    assert_eq!(settings.redis.password.expose(), "0123");
    assert_eq!(settings.redis.username, "true");
    assert_eq!(settings.table("main.payments").group_by, ["tenant"]);
    assert_eq!(settings.databases[0].url.expose(), "mysql://a:b@h/s");
    assert_eq!(settings.databases[0].pool, 3);
}

#[test]
fn a_dozen_databases_can_come_from_the_environment() {
    let mut environment: Vec<(String, String)> = (0..12)
        .flat_map(|n| {
            [
                (format!("SHOCK_ABSORBER__DATABASES__{n}__URL"), format!("mysql://h/s{n}")),
                (format!("SHOCK_ABSORBER__DATABASES__{n}__NAME"), format!("d{n}")),
            ]
        })
        .collect();
    environment.push(("SHOCK_ABSORBER__KAFKA__TOPIC_TEMPLATE".into(), "{database}.{table}".into()));
    let settings = Settings::load(ConfigSources { environment, ..ConfigSources::default() }).unwrap();
    assert_eq!(settings.databases.len(), 12);
    assert_eq!(settings.databases[11].name, "d11");
}

#[test]
fn lists_and_tables_can_be_given_as_flags() {
    let settings = from_flags(&[
        "databases=[{name: main, url: 'mysql://h/s'}]",
        r#"tables.per_table."main.payments".ttl=2h"#,
        "kafka.allow_single_node=true",
    ])
    .unwrap();
    assert_eq!(settings.databases[0].pool, 16);
    assert_eq!(settings.table("main.payments").ttl, Duration::from_secs(7200));
    assert!(settings.kafka.allow_single_node);
}

#[test]
fn a_file_of_comments_says_nothing() {
    assert_eq!(from_file("# later\n").unwrap(), Settings::default());
    assert_eq!(from_file("redis:\n  # later\n").unwrap(), Settings::default());
}

/// What the message must name: the source, the key, and the reason.
fn refused(outcome: Result<Settings, ConfigError>, parts: &[&str]) {
    let message = outcome.unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn errors_name_the_source_and_the_key() {
    refused(from_file("redis: {pasword: x}"), &["/tmp", "redis.pasword", "unknown field"]);
    refused(from_file("tables: {per_table: {main.t: {tll: 1h}}}"), &["tables.per_table.main.t.tll", "unknown field"]);
    refused(from_file("databases: [{nmae: x}]"), &["databases[0].nmae", "unknown field"]);
    refused(from_file("drain: {batch_age: 20}"), &["drain.batch_age"]);
    refused(from_file("ingest: {listen: nowhere}"), &["ingest.listen", "socket address"]);
    refused(from_file("kafka: {acks: 1}"), &["kafka.acks", "must be all"]);
    let shorter = from_flags(&["kafka.max_poll_interval=9s"]);
    refused(shorter, &["kafka.max_poll_interval", "kafka.session_timeout"]);
    refused(from_file("- a"), &["a map of settings"]);
    refused(from_file("a: [1"), &["/tmp"]);
    refused(
        from_environment(&[("SHOCK_ABSORBER__DRAIN__LANES", "many")]),
        &["SHOCK_ABSORBER__DRAIN__LANES", "drain.lanes"],
    );
    refused(from_environment(&[("SHOCK_ABSORBER__DRAIN", "x")]), &["SHOCK_ABSORBER__DRAIN"]);
    refused(from_flags(&["drain.lanes"]), &["--set", "has no ="]);
    refused(from_flags(&["drain.lane=1"]), &["--set drain.lane", "unknown field"]);
    refused(from_flags(&["kafka.group_protocol=modern"]), &["kafka.group_protocol", "classic", "consumer"]);
    refused(
        Settings::load(ConfigSources { file: Some(PathBuf::from("/no/such/file")), ..ConfigSources::default() }),
        &["/no/such/file"],
    );
}

#[test]
fn a_drain_replica_s_name_may_be_that_of_its_machine() {
    let name = |id: &str, host: Option<&str>| {
        let settings = from_flags(&[&format!("kafka.group_instance_id={id}")]).unwrap();
        settings.kafka.instance_id(host)
    };
    let known = Some("drain-3\n");
    assert_eq!(name("", known), Ok(None));
    assert_eq!(name("west", known), Ok(Some("west".into())));
    assert_eq!(name("west-{hostname}", known), Ok(Some("west-drain-3".into())));
    // Two replicas of one name would put each other out.
    for unknown in [None, Some(""), Some("\n")] {
        assert_eq!(name("", unknown), Ok(None));
        assert_eq!(name("west", unknown), Ok(Some("west".into())));
        let error = name("west-{hostname}", unknown).unwrap_err().to_string();
        assert!(error.contains("kafka.group_instance_id") && error.contains("{hostname}"), "{error}");
    }
}

#[test]
fn no_error_repeats_a_secret() {
    for outcome in [
        from_file("redis: {password: 4711471147}"),
        from_file("redis: {password: \"4711471147"),
        from_file("databases: \"mysql://a:4711471147@h/s\""),
        from_flags(&["databases=mysql://a:4711471147@h/s"]),
        from_flags(&["redis.pasword=4711471147"]),
        from_flags(&["redis.cluster=true", "redis.url=http://:4711471147@h"]),
    ] {
        let message = outcome.unwrap_err().to_string();
        assert!(!message.contains("4711471147"), "{message}");
    }
}

#[test]
fn the_dump_has_no_secrets_and_is_a_configuration() {
    let settings = from_flags(&[
        "redis.password=hunter2",
        "redis.url=redis://u:hunter2@h:1",
        "kafka.sasl_password=hunter2",
        "databases=[{name: main, url: 'mysql://app:hunter2@h/s'}]",
        r#"tables.per_table."main.t".ttl=2h"#,
    ])
    .unwrap();
    let dump = settings.redacted_yaml().unwrap();
    assert!(!dump.contains("hunter2") && !format!("{settings:?}").contains("hunter2"), "{dump}");
    assert!(dump.contains("mysql://app:<redacted>@h/s"), "{dump}");

    let mut again = from_file(&dump).unwrap();
    again.redis.password = settings.redis.password.clone();
    again.redis.url = settings.redis.url.clone();
    again.kafka.sasl_password = settings.kafka.sasl_password.clone();
    again.databases = settings.databases.clone();
    assert_eq!(again, settings);
}

#[derive(Parser)]
struct Binary {
    #[command(flatten)]
    config: ConfigArgs,
}

#[test]
fn arguments_become_sources() {
    let file = file("shards: 2");
    let path = file.path().to_str().unwrap();
    let binary = Binary::parse_from(["binary", "--config", path, "--set", "redis.db=3", "--set", "redis.pool=2"]);
    let settings = Settings::load(binary.config.sources(Vec::new())).unwrap();
    assert_eq!((settings.shards, settings.redis.db, settings.redis.pool), (2, 3, 2));
}
