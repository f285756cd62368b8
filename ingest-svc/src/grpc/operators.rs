//! OperatorService: each call taken apart, handed to its use case, answered.

use std::sync::Arc;

use database::{Database, Hold, HoldKind, HoldScope};
use event_log::{EventPublisher, LogReader};
use futures::stream::BoxStream;
use hot_store::HotStore;
use prost::Message;
use proto::{
    Reason,
    v1::{self, operator_service_server::OperatorService},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{dead_letters as convert, failure::Failure, request::Databases, status, verify, work::Work};
use crate::{
    Core,
    dead_letters::{DeadLetters, LetterName},
    holds::Operators,
    status as use_case,
    verify::Verifier,
};

pub(super) struct OperatorCalls<H, L, D> {
    pub(super) core: Arc<Core<H, L, D>>,
    pub(super) letters: DeadLetters<H, L, D>,
    pub(super) operators: Operators<H, L, D>,
    pub(super) verifier: Verifier<H, L, D>,
    /// Ends what would go on for hours.
    pub(super) stopping: CancellationToken,
    pub(super) databases: Arc<Databases>,
    pub(super) max_batch_items: usize,
    pub(super) work: Work,
}

/// The letters that are meant; no more than the server takes.
fn named(databases: &Databases, names: Vec<v1::DeadLetterName>, max: usize) -> Result<Vec<LetterName>, Failure> {
    if names.len() > max {
        let message = format!("{} letters are named, the server takes {max}", names.len());
        return Err(Failure::new(Reason::BatchTooLarge, message).with("max_items", max));
    }
    convert::names(databases, names)
}

#[tonic::async_trait]
impl<H, L, D> OperatorService for OperatorCalls<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    type ListDeadLettersStream = BoxStream<'static, Result<v1::ListDeadLettersResponse, Status>>;

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<Self::ListDeadLettersStream>, Status> {
        let (letters, databases) = (self.letters.clone(), self.databases.clone());
        let list = |request, pages| async move {
            let filter = convert::filter(&databases, request)?;
            Ok(letters.list(&filter, &pages).await?)
        };
        Ok(Response::new(self.work.in_pages("ListDeadLetters", request, list, convert::page)))
    }

    async fn get_dead_letter(
        &self,
        request: Request<v1::GetDeadLetterRequest>,
    ) -> Result<Response<v1::GetDeadLetterResponse>, Status> {
        let (letters, databases) = (self.letters.clone(), self.databases.clone());
        let get = |request: v1::GetDeadLetterRequest| async move {
            let name = convert::name(&databases, request.name).map_err(|failure| failure.within("name"))?;
            Ok(convert::shown(letters.get(&name).await?))
        };
        self.work.on("GetDeadLetter", request, get).await
    }

    async fn replay_dead_letters(
        &self,
        request: Request<v1::ReplayDeadLettersRequest>,
    ) -> Result<Response<v1::ReplayDeadLettersResponse>, Status> {
        let (letters, databases, max) = (self.letters.clone(), self.databases.clone(), self.max_batch_items);
        let replay = move |request: v1::ReplayDeadLettersRequest| async move {
            let names = named(&databases, request.names, max)?;
            let results = letters.replay(&names).await.into_iter().map(convert::result).collect();
            Ok(v1::ReplayDeadLettersResponse { results })
        };
        self.work.on("ReplayDeadLetters", request, replay).await
    }

    async fn purge_dead_letters(
        &self,
        request: Request<v1::PurgeDeadLettersRequest>,
    ) -> Result<Response<v1::PurgeDeadLettersResponse>, Status> {
        let (letters, databases, max) = (self.letters.clone(), self.databases.clone(), self.max_batch_items);
        let purge = move |request: v1::PurgeDeadLettersRequest| async move {
            let names = named(&databases, request.names, max)?;
            let results = letters.purge(&names).await.into_iter().map(convert::result).collect();
            Ok(v1::PurgeDeadLettersResponse { results })
        };
        self.work.on("PurgeDeadLetters", request, purge).await
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let (core, databases) = (self.core.clone(), self.databases.clone());
        let get = |request: v1::GetStatusRequest| async move {
            let table = request.table.map(|table| databases.table(Some(table))).transpose()?;
            Ok(status::status(use_case::look(&core, table.as_ref()).await))
        };
        self.work.on("GetStatus", request, get).await
    }

    async fn pause(&self, request: Request<v1::PauseRequest>) -> Result<Response<v1::PauseResponse>, Status> {
        let request = request.map(|v1::PauseRequest { table, reason, by }| (table, reason, by));
        let hold = |hold| v1::PauseResponse { hold: Some(hold) };
        self.stop("Pause", HoldKind::Pause, request, hold).await
    }

    async fn resume(&self, request: Request<v1::ResumeRequest>) -> Result<Response<v1::ResumeResponse>, Status> {
        let answer = |was_held, still| v1::ResumeResponse { was_held, still };
        self.go_on("Resume", HoldKind::Pause, request.map(|request| request.table), answer).await
    }

    async fn start_drain_down(
        &self,
        request: Request<v1::StartDrainDownRequest>,
    ) -> Result<Response<v1::StartDrainDownResponse>, Status> {
        let request = request.map(|v1::StartDrainDownRequest { table, reason, by }| (table, reason, by));
        let hold = |hold| v1::StartDrainDownResponse { hold: Some(hold) };
        self.stop("StartDrainDown", HoldKind::DrainDown, request, hold).await
    }

    async fn get_drain_down(
        &self,
        request: Request<v1::GetDrainDownRequest>,
    ) -> Result<Response<v1::GetDrainDownResponse>, Status> {
        let (operators, databases) = (self.operators.clone(), self.databases.clone());
        let get = |request: v1::GetDrainDownRequest| async move {
            let scope = status::scope(&databases, request.table)?;
            Ok(status::drain_down(operators.drain_down(&scope).await?))
        };
        self.work.on("GetDrainDown", request, get).await
    }

    async fn end_drain_down(
        &self,
        request: Request<v1::EndDrainDownRequest>,
    ) -> Result<Response<v1::EndDrainDownResponse>, Status> {
        let answer = |was_held, still| v1::EndDrainDownResponse { was_held, still };
        self.go_on("EndDrainDown", HoldKind::DrainDown, request.map(|request| request.table), answer).await
    }

    type VerifyTableStream = BoxStream<'static, Result<v1::VerifyTableResponse, Status>>;

    async fn verify_table(
        &self,
        request: Request<v1::VerifyTableRequest>,
    ) -> Result<Response<Self::VerifyTableStream>, Status> {
        let (verifier, databases, stopping) = (self.verifier.clone(), self.databases.clone(), self.stopping.clone());
        let verify = |request, tell| async move {
            let request = verify::request(&databases, request)?;
            Ok(verifier.verify(&request, &tell, &stopping).await.map(drop)?)
        };
        Ok(Response::new(self.work.in_pages("VerifyTable", request, verify, verify::told)))
    }
}

/// The table that is meant, if it is one; why; who.
type Wish = (Option<v1::TableRef>, String, String);

impl<H, L, D> OperatorCalls<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    async fn stop<A: Message + Send + 'static>(
        &self,
        method: &'static str,
        kind: HoldKind,
        request: Request<Wish>,
        answer: impl FnOnce(v1::Hold) -> A + Send + 'static,
    ) -> Result<Response<A>, Status> {
        let (operators, databases) = (self.operators.clone(), self.databases.clone());
        let set = move |(table, reason, by): Wish| async move {
            let scope = status::scope(&databases, table)?;
            let hold = operators.set(scope, kind, &reason, &by).await?;
            Ok::<_, Failure>(answer(status::hold(hold)))
        };
        self.work.on(method, request, set).await
    }

    async fn go_on<A: Message + Send + 'static>(
        &self,
        method: &'static str,
        kind: HoldKind,
        request: Request<Option<v1::TableRef>>,
        answer: impl FnOnce(bool, Vec<v1::Hold>) -> A + Send + 'static,
    ) -> Result<Response<A>, Status> {
        let (operators, databases) = (self.operators.clone(), self.databases.clone());
        let lift = move |table| async move {
            let scope = status::scope(&databases, table)?;
            let (was_held, left) = operators.lift(&scope, kind).await?;
            let concerned = |hold: &Hold| concerns(&scope, &hold.scope);
            let still = left.list.into_iter().filter(concerned).collect();
            Ok::<_, Failure>(answer(was_held, status::holds(still)))
        };
        self.work.on(method, request, lift).await
    }
}

/// Whether a hold of `other` concerns a table that was asked for.
fn concerns(asked: &HoldScope, other: &HoldScope) -> bool {
    match asked {
        HoldScope::Everything => true,
        HoldScope::Table(table) => other.covers(table),
    }
}
