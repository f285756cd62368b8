//! The scripts, and how a call of one is put together.

use std::sync::LazyLock;

use ::redis::{Cmd, ToRedisArgs, cmd};

use super::planted::plant;

const PRELUDE: &str = include_str!("scripts/prelude.lua");

/// A script as Redis gets it: its own first line (the flags), the prelude, the rest.
#[derive(Debug)]
pub(super) struct Script {
    code: String,
    hash: String,
}

impl Script {
    fn new(source: &str) -> Self {
        let (flags, body) = source.split_once('\n').unwrap_or((source, ""));
        let code = plant(format!("{flags}\n{PRELUDE}{body}"));
        let hash = ::redis::Script::new(&code).get_hash().to_owned();
        Self { code, hash }
    }

    /// One that shares nothing with the others.
    fn alone(source: &str) -> Self {
        let hash = ::redis::Script::new(source).get_hash().to_owned();
        Self { code: source.to_owned(), hash }
    }

    /// A call with so many keys, to which first the keys and then the arguments are added.
    pub(super) fn call(&'static self, keys: usize) -> Call {
        let mut command = cmd("EVALSHA");
        command.arg(&self.hash).arg(keys);
        Call { script: self, command }
    }
}

/// A call that is being put together.
pub(super) struct Call {
    script: &'static Script,
    command: Cmd,
}

impl Call {
    /// Adds a key or an argument.
    pub(super) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds a key or an argument.
    pub(super) fn push(&mut self, arg: impl ToRedisArgs) {
        self.command.arg(arg);
    }

    /// What is sent.
    pub(super) fn command(&self) -> &Cmd {
        &self.command
    }

    /// What makes the script known to a server that has forgotten it.
    pub(super) fn load_command(&self) -> Cmd {
        let mut command = cmd("SCRIPT");
        command.arg("LOAD").arg(&self.script.code);
        command
    }
}

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!(concat!("scripts/", $file))));)*

        /// The prelude, and every script without it.
        #[cfg(test)]
        pub(super) fn bodies() -> Vec<&'static str> {
            vec![PRELUDE, $(include_str!(concat!("scripts/", $file))),*]
        }
    };
}

scripts! {
    WRITE = "write.lua";
    READ = "read.lua";
    MARK_QUEUED = "mark_queued.lua";
    LEASE = "lease.lua";
    FILL = "fill.lua";
    MARK_CLEAN = "mark_clean.lua";
    EVICT = "evict.lua";
    PARK = "park.lua";
    PURGE_PARKED = "purge_parked.lua";
    DIRTY = "dirty.lua";
    BACKLOG = "backlog.lua";
    HEADER = "header.lua";
    CHECKPOINT = "checkpoint.lua";
    CLAIM = "claim.lua";
    BEGIN_OPENING = "begin_opening.lua";
    SET_ASIDE = "set_aside.lua";
    RESTORE = "restore.lua";
    FINISH_OPENING = "finish_opening.lua";
    TAKE = "take.lua";
    AGREE = "agree.lua";
    HALT = "halt.lua";
    REPORT = "report.lua";
    WITHDRAW = "withdraw.lua";
    REPORTS = "reports.lua";
    BEGIN_INDEX = "begin_index.lua";
    BUILD_INDEX = "build_index.lua";
}

pub(super) static LOOK_UP: LazyLock<Script> = LazyLock::new(|| Script::alone(include_str!("scripts/look_up.lua")));
