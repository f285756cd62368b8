//! OperatorService: each call taken apart, handed to its use case, answered.

use std::sync::Arc;

use database::Database;
use event_log::{EventPublisher, LogReader};
use futures::stream::BoxStream;
use hot_store::HotStore;
use proto::{
    Reason,
    v1::{self, operator_service_server::OperatorService},
};
use tonic::{Request, Response, Status};

use super::{dead_letters as convert, failure::Failure, request::Databases, work::Work};
use crate::dead_letters::{DeadLetters, LetterName};

pub(super) struct OperatorCalls<H, L, D> {
    pub(super) letters: DeadLetters<H, L, D>,
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
}
