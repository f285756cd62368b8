//! Whether a Redis server is fit to be the hot store.

use std::collections::HashMap;

use ::redis::{FromRedisValue as _, Value, cmd};

use super::{keys, store::RedisStore};
use crate::{HotStoreError, Settings};

/// What a server says of itself.
#[derive(Debug, Clone, Default)]
struct ServerFacts {
    /// The fields of INFO.
    info: HashMap<String, String>,
    /// `appendfsync`; none if CONFIG is forbidden to us.
    appendfsync: Option<String>,
    /// The number of shards under which the store was first used, if it is another one than ours.
    other_shards: Option<String>,
}

impl RedisStore {
    pub(super) async fn check_settings(&self) -> Result<Settings, HotStoreError> {
        let info = text(&self.command(&cmd("INFO")).await?);
        let mut facts = ServerFacts { info: fields(&info), ..ServerFacts::default() };
        let mut config = cmd("CONFIG");
        config.arg("GET").arg("appendfsync");
        // Managed services forbid CONFIG; INFO tells the rest.
        if let Ok(reply) = self.command(&config).await {
            facts.appendfsync =
                HashMap::<String, String>::from_redis_value(reply).ok().and_then(|mut it| it.remove("appendfsync"));
        }
        let shards = self.shard_count();
        let earlier = self.stored_shard_count(shards).await?;
        facts.other_shards = (earlier != shards.to_string()).then_some(earlier);
        Ok(judge(&facts, shards))
    }

    /// The number of shards under which the store was first used: now, if there is none yet.
    async fn stored_shard_count(&self, shards: usize) -> Result<String, HotStoreError> {
        let key = keys::shard_count(self.prefix());
        let (mut set, mut get) = (cmd("SET"), cmd("GET"));
        set.arg(&key).arg(shards).arg("NX");
        get.arg(&key);
        let stored = text(&self.command(&get).await?);
        if !stored.is_empty() {
            return Ok(stored);
        }
        self.command(&set).await?;
        Ok(text(&self.command(&get).await?))
    }
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        _ => String::new(),
    }
}

pub(super) fn fields(info: &str) -> HashMap<String, String> {
    let pairs = info.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect()
}

fn judge(facts: &ServerFacts, shards: usize) -> Settings {
    let mut settings = Settings::default();
    let is = |name: &str, value: &str| facts.info.get(name).is_some_and(|it| it == value);
    let field = |name: &str| facts.info.get(name).map_or("", String::as_str);
    let number = |name: &str| field(name).parse::<u64>().unwrap_or(0);
    let mut refuse = |sentence: String| settings.refused.push(sentence);

    let version = field("redis_version");
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major < 7 {
        refuse(format!("Redis {version} is too old for our scripts: use 7.0 or later"));
    }
    if is("cluster_enabled", "1") {
        refuse("Redis Cluster is not supported yet: use a single server".to_owned());
    }
    if is("role", "slave") {
        refuse("this server is a replica: name its primary".to_owned());
    }
    if number("connected_slaves") > 0 {
        refuse(
            "a replica is connected, and one that is promoted would forget acknowledged writes: detach it (REPLICAOF NO ONE)"
                .to_owned(),
        );
    }
    let (policy, limit) = (field("maxmemory_policy"), number("maxmemory"));
    // Also while there is no limit: it may be set at any moment.
    if policy != "noeviction" {
        refuse(format!(
            "maxmemory-policy is {policy}, which throws acknowledged writes away when memory is short: set it to noeviction"
        ));
    }
    if let Some(earlier) = &facts.other_shards {
        refuse(format!(
            "this store was first used with {earlier} shards, the configuration says {shards}: set shards to {earlier}"
        ));
    }

    let mut warn = |sentence: &str| settings.warned.push(sentence.to_owned());
    if limit == 0 {
        warn("maxmemory is 0, so nothing is refused before the machine's memory is used up: set maxmemory");
    }
    match (is("aof_enabled", "1"), facts.appendfsync.as_deref()) {
        (false, _) => warn(
            "appendonly is no: a restart of Redis loses what was written since its last snapshot, so LOGGED is worth no more than that; set appendonly yes",
        ),
        (true, Some("always")) => {}
        (true, Some("everysec")) => warn(
            "appendfsync is everysec: LOGGED survives the end of the Redis process, but a power loss can take its last second; set appendfsync always",
        ),
        (true, Some(_)) => warn(
            "appendfsync is no: LOGGED survives the end of the Redis process, but a power loss can take half a minute; set appendfsync always",
        ),
        (true, None) => warn(
            "appendfsync can't be read (CONFIG GET is forbidden): unless it is always, a power loss can take writes that were answered LOGGED",
        ),
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit() -> ServerFacts {
        let info = "# Server\r\nredis_version:7.0.15\r\nrole:master\r\nconnected_slaves:0\r\ncluster_enabled:0\r\n\
                    maxmemory:1000000\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";
        ServerFacts { info: fields(info), appendfsync: Some("always".to_owned()), other_shards: None }
    }

    fn but(name: &str, value: &str) -> ServerFacts {
        let mut facts = fit();
        facts.info.insert(name.to_owned(), value.to_owned());
        facts
    }

    #[test]
    fn a_fit_server_is_neither_refused_nor_warned_of() {
        assert_eq!(judge(&fit(), 64), Settings::default());
    }

    #[test]
    fn what_would_break_a_promise_is_refused() {
        let refused = |facts: ServerFacts, word: &str| {
            let settings = judge(&facts, 64);
            assert_eq!(settings.refused.len(), 1, "{settings:?}");
            assert!(settings.refused[0].contains(word), "{settings:?}");
        };
        refused(but("redis_version", "6.2.14"), "7.0");
        refused(but("cluster_enabled", "1"), "Cluster");
        refused(but("role", "slave"), "primary");
        refused(but("connected_slaves", "1"), "detach");
        for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-ttl", ""] {
            refused(but("maxmemory_policy", policy), "noeviction");
            let mut unlimited = but("maxmemory_policy", policy);
            unlimited.info.insert("maxmemory".to_owned(), "0".to_owned());
            refused(unlimited, "noeviction");
        }
        refused(ServerFacts { other_shards: Some("32".to_owned()), ..fit() }, "set shards to 32");
    }

    #[test]
    fn what_weakens_a_promise_is_warned_of() {
        let warned = |facts: ServerFacts, words: &[&str]| {
            let settings = judge(&facts, 64);
            assert!(settings.refused.is_empty(), "{settings:?}");
            assert_eq!(settings.warned.len(), words.len(), "{settings:?}");
            for (sentence, word) in settings.warned.iter().zip(words) {
                assert!(sentence.contains(word), "{sentence}");
            }
        };
        warned(but("aof_enabled", "0"), &["appendonly"]);
        warned(but("maxmemory", "0"), &["maxmemory is 0"]);
        warned(ServerFacts { appendfsync: Some("everysec".to_owned()), ..fit() }, &["last second"]);
        warned(ServerFacts { appendfsync: Some("no".to_owned()), ..fit() }, &["half a minute"]);
        warned(ServerFacts { appendfsync: None, ..fit() }, &["can't be read"]);
    }
}
