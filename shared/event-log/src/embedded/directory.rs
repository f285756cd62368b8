//! The directory of the log, held by one process at a time.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use crate::log::LogError;

/// The locked directory. The lock goes with the value, and with the process however it ends.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory if it is not there, and locks it.
    pub(super) fn lock(path: &Path) -> Result<Self, LogError> {
        let failed =
            |what: &str, error: &dyn std::fmt::Display| LogError::Fatal(format!("{what} {}: {error}", path.display()));
        fs::create_dir_all(path).map_err(|error| failed("can't make the directory", &error))?;
        let lock_path = path.join("event-log.lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|error| failed("can't open the lock file in", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LogError::Fatal(format!(
                    "another process uses the directory {}; stop it, or name another directory",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed("can't lock the directory", &error)),
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The file of the log.
    pub(super) fn file(&self) -> PathBuf {
        self.path.join("event-log.sqlite")
    }

    /// Makes sure that the directory's entries themselves survive a power loss.
    pub(super) fn sync(&self) -> Result<(), LogError> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        for dir in std::iter::once(self.path.as_path()).chain(parent) {
            File::open(dir)
                .and_then(|handle| handle.sync_all())
                .map_err(|error| LogError::Fatal(format!("can't sync the directory {}: {error}", dir.display())))?;
        }
        Ok(())
    }
}
