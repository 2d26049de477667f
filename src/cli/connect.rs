//! The way to the server.

use super::error::Failure;
use super::ui::Ui;
use crate::client::{Client, ClientError, ClientOptions};
use std::future::Future;
use std::time::Duration;
use tonic::{Response, Status};

/// What every command has at hand.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) server: String,
    pub(crate) ui: Ui,
}

impl Context {
    /// A client for a person who waits for an answer: what does not work is said soon.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        self.connect_for(Duration::from_secs(2)).await
    }

    /// A client for work that goes on: it sits out a restart of the server.
    pub(crate) async fn connect_patient(&self) -> Result<Client, Failure> {
        self.connect_for(Duration::from_secs(60)).await
    }

    async fn connect_for(&self, retry_for: Duration) -> Result<Client, Failure> {
        let options = ClientOptions { retry_for, ..ClientOptions::default() };
        Client::connect_with(&self.server, options).await.map_err(|error| self.failure(error))
    }

    /// What a call's error means here.
    pub(crate) fn failure(&self, error: ClientError) -> Failure {
        Failure::of(error, &self.server)
    }

    /// Awaits a call of the operator's service.
    pub(crate) async fn ask<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
        call.await.map(Response::into_inner).map_err(|status| self.failure(status.into()))
    }
}
