//! Never running the half of a transaction that a power loss tore.
//!
//! An append-only file that ended in the middle of a transaction was cut behind the last whole *command* of it, and
//! Redis goes on writing there: the next start would run the first half of that transaction, hidden in one of later
//! (seen with 7.0.15). What is written anew holds what this start has made of the file, which is whole, and from then on
//! Redis appends to a file of its own. So nobody of ours writes anything before that has begun.

use ::redis::{Cmd, RedisError, aio::MultiplexedConnection, cmd};
use tokio::sync::Mutex;

use super::settings::{fields, text};

/// The append-only file of one server, as this process knows it.
#[derive(Debug, Default)]
pub(super) struct TornFile(Mutex<Lives>);

/// Lives of the server, by its run id.
#[derive(Debug, Default)]
struct Lives {
    /// In this one it can't go on writing to a torn file.
    safe: String,
    /// In this one it was complained of that it may.
    complained: String,
}

/// What Redis does with its append-only file.
#[derive(Debug, PartialEq, Eq)]
enum Rewriting {
    /// It has begun to write it anew since its start, or there is none.
    Begun,
    /// It will, as soon as it has finished something else.
    PutOff,
    /// Neither.
    NotAsked,
}

impl Rewriting {
    /// As INFO tells it.
    fn of(info: &str) -> Self {
        let facts = fields(info);
        let number = |name: &str| facts.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
        if number("aof_enabled") == 0 || number("aof_rewrite_in_progress") > 0 || number("aof_rewrites") > 0 {
            Self::Begun
        } else if number("aof_rewrite_scheduled") > 0 {
            Self::PutOff
        } else {
            Self::NotAsked
        }
    }
}

impl TornFile {
    /// Lets the server at the other end write its append-only file anew, once in each of its lives: by a connection
    /// that nothing has been written to since then.
    ///
    /// # Errors
    /// While the server can't be asked, or has put it off: nothing may be written meanwhile.
    pub(super) async fn leave_behind(&self, connection: &mut MultiplexedConnection) -> Result<(), String> {
        let mut lives = self.0.lock().await;
        let mut facts = fields(&info(connection, "server").await?);
        let live = facts.remove("run_id").unwrap_or_default();
        if lives.safe == live {
            return Ok(());
        }
        let mut rewriting = Rewriting::of(&info(connection, "persistence").await?);
        if rewriting == Rewriting::NotAsked {
            let answer = send(connection, &cmd("BGREWRITEAOF")).await;
            rewriting = Rewriting::of(&info(connection, "persistence").await?);
            match answer {
                Err(error) if rewriting == Rewriting::NotAsked && is_final(&error) => {
                    // Nobody shall hang on it, but the next connection asks again.
                    if lives.complained != live {
                        tracing::warn!(
                            %error,
                            "Redis does not write its append-only file anew: if that was torn by a power loss, run \
                             redis-check-aof --fix on it before the next start"
                        );
                        lives.complained = live;
                    }
                    return Ok(());
                }
                Err(error) if rewriting == Rewriting::NotAsked => return Err(error.to_string()),
                Ok(_) | Err(_) => {}
            }
        }
        if rewriting == Rewriting::PutOff {
            return Err("it writes its append-only file anew as soon as a snapshot is done".to_owned());
        }
        lives.safe = live;
        Ok(())
    }
}

/// Whether asking again would be answered the same: we may not ask, there is no such command, or it failed.
fn is_final(error: &RedisError) -> bool {
    matches!(error.code(), Some("ERR" | "NOPERM"))
}

async fn info(connection: &mut MultiplexedConnection, section: &str) -> Result<String, String> {
    let mut info = cmd("INFO");
    info.arg(section);
    Ok(text(&send(connection, &info).await.map_err(|error| error.to_string())?))
}

async fn send(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<::redis::Value, RedisError> {
    connection.send_packed_command(command).await?.extract_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_tells_whether_the_file_is_written_anew() {
        let of = |enabled, under_way, put_off, done| {
            Rewriting::of(&format!(
                "# Persistence\r\naof_enabled:{enabled}\r\naof_rewrite_in_progress:{under_way}\r\n\
                 aof_rewrite_scheduled:{put_off}\r\naof_rewrites:{done}\r\n"
            ))
        };
        assert_eq!(of(1, 0, 0, 0), Rewriting::NotAsked);
        assert_eq!(of(1, 0, 1, 0), Rewriting::PutOff);
        assert_eq!(of(1, 1, 0, 0), Rewriting::Begun);
        assert_eq!(of(1, 0, 0, 2), Rewriting::Begun);
        assert_eq!(of(1, 0, 1, 2), Rewriting::Begun, "the second of this life");
        assert_eq!(of(0, 0, 0, 0), Rewriting::Begun, "there is none");
    }
}
