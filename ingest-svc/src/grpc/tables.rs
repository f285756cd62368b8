//! TableService.

use std::{future::Future, sync::Arc};

use database::{Database, SetRate};
use event_log::{EventPublisher, LogReader};
use hot_store::HotStore;
use model::{ColumnName, TableRef};
use proto::v1::{self, table_service_server::TableService};
use tonic::{Request, Response, Status};

use super::{
    answer,
    failure::{Failure, FieldProblem},
    request::Databases,
    work::Work,
};
use crate::tables::{TableError, TableInfo, Tables};

pub(super) struct TableCalls<H, L, D> {
    pub(super) tables: Tables<H, L, D>,
    pub(super) databases: Arc<Databases>,
    pub(super) work: Work,
}

impl<H, L, D> TableCalls<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// A call about one table.
    async fn one<F>(
        &self,
        method: &'static str,
        request: Request<Option<v1::TableRef>>,
        call: impl FnOnce(Tables<H, L, D>, TableRef) -> F + Send + 'static,
    ) -> Result<Response<v1::Table>, Status>
    where
        F: Future<Output = Result<TableInfo, TableError>> + Send,
    {
        let (tables, databases) = (self.tables.clone(), self.databases.clone());
        let answer = |table| async move {
            let table = databases.table(table)?;
            let info = call(tables, table).await?;
            Ok::<_, Failure>(answer::table(info))
        };
        self.work.on(method, request, answer).await
    }
}

#[tonic::async_trait]
impl<H, L, D> TableService for TableCalls<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    async fn list_tables(
        &self,
        request: Request<v1::ListTablesRequest>,
    ) -> Result<Response<v1::ListTablesResponse>, Status> {
        let tables = self.tables.clone();
        let list = |_| async move {
            let infos = tables.list().await?;
            Ok(v1::ListTablesResponse { tables: infos.into_iter().map(answer::table).collect() })
        };
        self.work.on("ListTables", request, list).await
    }

    async fn get_table(&self, request: Request<v1::GetTableRequest>) -> Result<Response<v1::GetTableResponse>, Status> {
        let get = |tables: Tables<H, L, D>, table| async move { tables.get(&table).await };
        let answer = self.one("GetTable", request.map(|message| message.table), get).await?;
        Ok(answer.map(|table| v1::GetTableResponse { table: Some(table) }))
    }

    async fn enable_table(
        &self,
        request: Request<v1::EnableTableRequest>,
    ) -> Result<Response<v1::EnableTableResponse>, Status> {
        let (tables, databases) = (self.tables.clone(), self.databases.clone());
        let enable = |message: v1::EnableTableRequest| async move {
            let table = databases.table(message.table)?;
            let fields = message.indexed_fields.map(columns).transpose()?;
            let info = tables.enable_with(&table, fields).await?;
            Ok::<_, Failure>(v1::EnableTableResponse { table: Some(answer::table(info)) })
        };
        self.work.on("EnableTable", request, enable).await
    }

    async fn disable_table(
        &self,
        request: Request<v1::DisableTableRequest>,
    ) -> Result<Response<v1::DisableTableResponse>, Status> {
        let disable = |tables: Tables<H, L, D>, table| async move { tables.disable(&table).await };
        let answer = self.one("DisableTable", request.map(|message| message.table), disable).await?;
        Ok(answer.map(|table| v1::DisableTableResponse { table: Some(table) }))
    }
    async fn set_table_rate(
        &self,
        request: Request<v1::SetTableRateRequest>,
    ) -> Result<Response<v1::SetTableRateResponse>, Status> {
        let (tables, databases) = (self.tables.clone(), self.databases.clone());
        let set = |message: v1::SetTableRateRequest| async move {
            let table = databases.table(message.table)?;
            let rate = message.rate.map(rate).transpose()?;
            let info = tables.set_rate(&table, rate).await?;
            Ok::<_, Failure>(v1::SetTableRateResponse { table: Some(answer::table(info)) })
        };
        self.work.on("SetTableRate", request, set).await
    }
}

fn columns(fields: v1::IndexedFields) -> Result<Vec<ColumnName>, Failure> {
    let named = fields.columns.into_iter().enumerate().map(|(at, name)| {
        ColumnName::new(&name).map_err(|error| {
            let field = format!("indexed_fields.columns[{at}]");
            Failure::of_fields(vec![FieldProblem::invalid(field, format!("names no column: {}", error.problem))])
        })
    });
    named.collect()
}

fn rate(asked: v1::set_table_rate_request::Rate) -> Result<SetRate, Failure> {
    use v1::set_table_rate_request::Rate;
    let invalid = |field, problem| Failure::of_fields(vec![FieldProblem::invalid(field, problem)]);
    match asked {
        Rate::RowsPerSecond(rate) => {
            // 0 would stop the table to one reader and free it to another.
            SetRate::new(rate).ok_or_else(|| invalid("rows_per_second", "must be a number above 0"))
        }
        Rate::Unlimited(true) => Ok(SetRate::Unlimited),
        Rate::Unlimited(false) => Err(invalid("unlimited", "must be true, or leave it away")),
    }
}
