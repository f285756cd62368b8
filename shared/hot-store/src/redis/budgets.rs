//! Budgets in Redis.

use std::time::Duration;

use super::{
    keys,
    reply::Reply,
    scripts::{self, Call},
    store::RedisStore,
};
use crate::{
    AgreedLimit, Agreement, Budget, Ended, Grant, HotStoreError, Limit, Limits, PERMIT_LEASE, Permit, PermitId, Unit,
};

/// How long is waited for a limit that lets nothing pass; whoever waited so long asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

impl RedisStore {
    async fn account(
        &self,
        limits: &Limits,
        asked: Option<Permit>,
        held: &[Permit],
        ended: &[Ended],
    ) -> Result<Reply, HotStoreError> {
        let mut call = scripts::TAKE.call(limits.limits.len());
        for limit in &limits.limits {
            call.push(keys::limit(self.prefix(), &limits.database, &limit.name));
        }
        let asked = asked.unwrap_or(Permit { id: PermitId(0), rows: 0 });
        call.push(asked.rows);
        call.push(name(asked.id));
        call.push(micros(PERMIT_LEASE));
        call.push(held.len());
        call.push(ended.len());
        for limit in &limits.limits {
            push_limit(&mut call, limit);
        }
        for permit in held {
            call.push(name(permit.id));
            call.push(permit.rows);
        }
        for Ended { permit, ago } in ended {
            call.push(name(permit.id));
            call.push(permit.rows);
            call.push(micros(*ago));
        }
        self.call_beside(call).await
    }

    async fn settle(&self, database: &str, before: String, after: String) -> Result<(bool, Agreement), HotStoreError> {
        let mut call = scripts::AGREE.call(1);
        call.push(keys::agreed(self.prefix(), database));
        call.push(before);
        call.push(after);
        let mut reply = self.call_beside(call).await?;
        let (changed, now, text) = (reply.count()? == 1, reply.count()?, reply.text()?.unwrap_or_default());
        let unfit = || reply.corrupt(format!("{text:?} is agreed on as the limit of database {database}"));
        let limit = if text.is_empty() { None } else { Some(read(&text).ok_or_else(unfit)?) };
        Ok((changed, Agreement { limit, now }))
    }
}

impl Budget for RedisStore {
    async fn take(&self, limits: &Limits, permit: Permit, ended: &[Ended]) -> Result<Grant, HotStoreError> {
        let lets_nothing_pass = |limit: &Limit| limit.per_second.is_nan() || limit.per_second <= 0.0;
        let nothing_asked = permit.rows == 0 || limits.limits.is_empty();
        if nothing_asked || limits.limits.iter().any(lets_nothing_pass) {
            self.tell(limits, &[], ended).await?;
            return Ok(if nothing_asked { Grant::Now(Duration::ZERO) } else { Grant::After(LONGEST_WAIT) });
        }
        let mut reply = self.account(limits, Some(permit), &[], ended).await?;
        let (kind, time) = (reply.count()?, Duration::from_micros(reply.count()?));
        match kind {
            0 => Ok(Grant::Now(time)),
            1 => Ok(Grant::After(time)),
            2 => Ok(Grant::Busy),
            other => Err(reply.corrupt(format!("a budget answered {other}"))),
        }
    }

    async fn tell(&self, limits: &Limits, held: &[Permit], ended: &[Ended]) -> Result<(), HotStoreError> {
        if limits.limits.is_empty() || held.is_empty() && ended.is_empty() {
            return Ok(());
        }
        self.account(limits, None, held, ended).await.map(|_| ())
    }

    async fn agreed(&self, database: &str) -> Result<Agreement, HotStoreError> {
        self.settle(database, String::new(), String::new()).await.map(|(_, agreement)| agreement)
    }

    async fn agree(
        &self,
        database: &str,
        before: Option<AgreedLimit>,
        after: AgreedLimit,
    ) -> Result<bool, HotStoreError> {
        let before = before.map(stored).unwrap_or_default();
        self.settle(database, before, stored(after)).await.map(|(changed, _)| changed)
    }
}

fn push_limit(call: &mut Call, limit: &Limit) {
    let rate = if limit.per_second.is_finite() { limit.per_second.max(0.0) } else { 0.0 };
    call.push(rate.to_string());
    call.push(limit.unfinished.unwrap_or(0));
    call.push(match limit.unit {
        Unit::Rows => "r",
        Unit::Transactions => "t",
    });
}

/// As it lies in Redis, where it is compared as text: the same number always has the same.
fn stored(limit: AgreedLimit) -> String {
    let AgreedLimit { per_second, raised, lowered, troubled } = limit;
    format!("{per_second} {raised} {lowered} {troubled}")
}

fn read(text: &str) -> Option<AgreedLimit> {
    let mut parts = text.split(' ');
    let per_second = parts.next()?.parse().ok()?;
    let mut moment = || parts.next()?.parse().ok();
    Some(AgreedLimit { per_second, raised: moment()?, lowered: moment()?, troubled: moment()? })
}

fn name(permit: PermitId) -> String {
    format!("{:016x}", permit.0)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
