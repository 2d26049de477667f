//! The ways in for holders: certificates of the pool's authority, a key that the pool hands out, or keys of their own.

use crate::adapter::SshAdapter;
use crate::canary;
use crate::logins::Logins;
use crate::probe::HolderLogin;
use crate::shell::SshShell;
use std::sync::Arc;
use wharfinger_adapter::Failure;

impl SshAdapter {
    /// How holders log in.
    pub(crate) async fn holder_login(&self) -> Result<HolderLogin, Failure> {
        match self.ways_in() {
            (Some(authority), _) => Ok(HolderLogin::Certificate(Box::new(authority))),
            (None, Some(source)) => Ok(HolderLogin::Key(Arc::new(source.key().await?))),
            (None, None) => Ok(HolderLogin::Own),
        }
    }

    /// Proves that certificates of the pool let holders in, and wrong ones do not; and that no lease is let in yet.
    pub(crate) async fn prove_logins(&self, shell: &SshShell) -> Result<(), Failure> {
        let (Some(authority), _) = self.ways_in() else { return Ok(()) };
        let logins = Logins { shell, authority: &authority };
        let users = logins.examine().await?;
        if !users.is_empty() {
            logins.sweep(&users).await?;
        }
        canary::prove(&logins).await
    }
}
