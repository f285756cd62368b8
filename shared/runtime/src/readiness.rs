//! Whether a process can do its work, part by part.

use std::{collections::BTreeMap, fmt};

use tokio::sync::watch;

/// What is missing of each part; `None` where nothing is.
type Parts = BTreeMap<&'static str, Option<String>>;

/// The parts of a process that have something to get ready, and whether they are. A handle: clones share the parts.
#[derive(Debug, Clone)]
pub struct Readiness {
    parts: watch::Sender<Parts>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Without parts, which is ready: name all parts before the process is told of.
    pub fn new() -> Self {
        Self { parts: watch::Sender::new(Parts::new()) }
    }

    /// Names a part. It is not ready until it says so.
    pub fn part(&self, name: &'static str) -> ReadyPart {
        let part = ReadyPart { name, parts: self.parts.clone() };
        part.not_ready("starting");
        part
    }

    /// Whether every part is ready.
    pub fn is_ready(&self) -> bool {
        self.parts.borrow().values().all(Option::is_none)
    }

    /// What is not ready, and why.
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        self.parts.borrow().iter().filter_map(|(name, why)| Some((*name, why.clone()?))).collect()
    }

    /// Waits until every part is ready.
    pub async fn ready(&self) {
        let mut parts = self.parts.subscribe();
        // The sender lives as long as self, so this can't fail.
        let _ = parts.wait_for(|parts| parts.values().all(Option::is_none)).await;
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, why) in self.parts.borrow().iter() {
            writeln!(f, "{name}: {}", why.as_deref().unwrap_or("ready"))?;
        }
        Ok(())
    }
}

/// One part of a process: with this it says whether it is ready.
#[derive(Debug, Clone)]
pub struct ReadyPart {
    name: &'static str,
    parts: watch::Sender<Parts>,
}

impl ReadyPart {
    /// The part can do its work.
    pub fn ready(&self) {
        self.set(None);
    }

    /// The part can't, and why.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    fn set(&self, why: Option<String>) {
        self.parts.send_if_modified(|parts| parts.insert(self.name, why.clone()) != Some(why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_ready_when_every_part_is_and_again_not_when_one_is_lost() {
        let readiness = Readiness::new();
        let (redis, kafka) = (readiness.part("redis"), readiness.part("kafka"));
        assert!(!readiness.is_ready());
        redis.ready();
        assert_eq!(readiness.missing(), [("kafka", "starting".to_owned())]);
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        kafka.ready();
        assert!(waiting.await.is_ok());
        redis.not_ready("connection refused");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.to_string(), "kafka: ready\nredis: connection refused\n");
    }
}
