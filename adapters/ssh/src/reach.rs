//! Attempts to log in to each host of a pool, for `check-config --connect`. They change nothing that stays on the hosts.

use crate::adapter::SshAdapter;
use crate::canary::{self, Trials};
use crate::connection::Connection;
use crate::logins::Logins;
use crate::probe::{self, HolderLogin};
use crate::shell::SshShell;
use futures::future::join_all;
use std::sync::Arc;
use wharfinger_adapter::{Command, Exit, Failure, Shell};

/// Decides whether the scratch directories could be made.
const REACH: &str = include_str!("sh/reach.sh");

/// The result of the attempts on one host.
pub struct Reached {
    /// Name of the host.
    pub host: String,
    /// A shell on it, with what it says of itself; or why it could not be used, with the remedy.
    pub result: Result<(Arc<dyn Shell>, String), Failure>,
}

impl SshAdapter {
    /// Logs in to each enabled host: as the broker, and as holders do, if the pool hands out a key or
    /// signs certificates; wrong certificates must be refused. All hosts are
    /// tried at the same time.
    pub async fn reach(&self) -> Vec<Reached> {
        let hosts = self.enabled();
        join_all(hosts.into_iter().map(|(connection, work_dir)| async move {
            let host = connection.endpoint.name.clone();
            Reached { host, result: self.reach_one(connection, &work_dir).await }
        }))
        .await
    }

    async fn reach_one(
        &self,
        connection: Arc<Connection>,
        work_dir: &str,
    ) -> Result<(Arc<dyn Shell>, String), Failure> {
        connection.try_login(None).await?;
        let shell = SshShell { connection: Arc::clone(&connection) };
        match self.holder_login().await? {
            HolderLogin::Own => {}
            HolderLogin::Key(key) => connection.try_login(Some(key)).await.map_err(|error| {
                let failure = Failure::from(error);
                Failure { message: format!("holders cannot log in: {}", failure.message), ..failure }
            })?,
            HolderLogin::Certificate(authority) => {
                let logins = Logins { shell: &shell, authority: &authority };
                logins.examine().await?;
                canary::prove(&logins, Trials::All).await?;
            }
        }
        let endpoint = &connection.endpoint;
        let argv = ["/bin/sh", "-c", REACH, "sh", work_dir].map(String::from).to_vec();
        let output = shell.run_kept(&Command::new(argv).timeout(probe::proof_limit(&connection))).await?;
        if output.exit != Exit::Code(0) {
            let (name, user, at) = (&endpoint.name, &endpoint.user, output.text());
            let why = if at.is_empty() { output.complaint() } else { format!("user {user:?} cannot write {at}") };
            let remedy = "give the user that directory, or set another work_dir in [pool.ssh]";
            return Err(Failure::configuration("WORK_DIR", format!("host {name}: {why}; {remedy}")));
        }
        let said = output.text();
        Ok((Arc::new(shell), said))
    }
}
