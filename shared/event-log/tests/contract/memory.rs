//! The memory log: the contract, on one thread and tokio's paused clock.

use event_log::memory::{MemoryLog, MemoryLogOptions, MemorySource};
use model::Topic;

use crate::{cases::contract, harness::Backend};

struct Memory {
    log: MemoryLog,
}

impl Backend for Memory {
    type Log = MemoryLog;
    type Source = MemorySource;

    async fn start() -> Self {
        Self { log: MemoryLog::new(MemoryLogOptions::default()) }
    }

    fn log(&self) -> &MemoryLog {
        &self.log
    }

    fn topic(&self, name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn join(&self) -> MemorySource {
        self.log.member("member")
    }
}

mod contract {
    use super::{Memory, contract};

    contract!(Memory, [], (start_paused = true));
}
