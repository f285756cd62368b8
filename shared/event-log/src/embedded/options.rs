//! The settings of the embedded log.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

/// What happens when a commit of the log fails: nothing may be acknowledged any more, and what the disk really holds
/// can't be known before it is read again. So the process ends. Tests put something else in its place.
#[derive(Clone)]
pub struct LastWords(Arc<dyn Fn(&str) + Send + Sync>);

impl LastWords {
    /// Another end; it gets the reason. If it returns, the log refuses everything from then on.
    pub fn new(end: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(end))
    }

    pub(super) fn speak(&self, reason: &str) {
        (self.0)(reason);
    }
}

impl Default for LastWords {
    fn default() -> Self {
        Self::new(|reason| {
            // The process is about to end: this must get out whatever became of the logging.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("the event log could not be written and the process ends: {reason}");
            }
            std::process::abort();
        })
    }
}

impl fmt::Debug for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LastWords")
    }
}

/// The settings of the embedded log.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The directory of the log's file; made if it is not there. One process at a time.
    pub dir: PathBuf,
    /// Undrained bytes at most, and as many of dead letters; past it records are refused.
    pub max_log_bytes: u64,
    /// Key and payload of one record at most.
    pub max_message_bytes: usize,
    /// A member that does not call `next` for so long while others wait for its partitions loses them.
    pub session_timeout: Duration,
    /// Records are kept for so long after they were drained: a restarted hot store has to know the requests in them.
    pub request_window: Duration,
    /// What a failed commit does.
    pub last_words: LastWords,
}

impl EmbeddedOptions {
    /// The defaults for this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            max_log_bytes: 256 << 20,
            max_message_bytes: 1_000_000,
            session_timeout: Duration::from_secs(10),
            request_window: Duration::from_secs(120),
            last_words: LastWords::default(),
        }
    }

    /// The file's size at most: what is drained stays for a while, shares blobs with what is not, and SQLite keeps free
    /// pages.
    pub(super) fn max_file_bytes(&self) -> u64 {
        self.max_log_bytes.saturating_mul(4).saturating_add(64 << 20)
    }
}
