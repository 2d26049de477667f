//! A shell in which every command succeeds without output.

use async_trait::async_trait;
use bytes::Bytes;
use wharfinger_adapter::{Command, Exit, OutputSink, Shell, ShellError};

pub(crate) struct FakeShell;

#[async_trait]
impl Shell for FakeShell {
    async fn stream(&self, _command: Command, _output: OutputSink) -> Result<Exit, ShellError> {
        Ok(Exit::Code(0))
    }

    async fn put(&self, _path: &str, _content: Bytes, _mode: u32) -> Result<(), ShellError> {
        Ok(())
    }

    async fn get(&self, _path: &str, _limit: usize) -> Result<Bytes, ShellError> {
        Ok(Bytes::new())
    }
}
