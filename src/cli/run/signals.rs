//! SIGINT, SIGTERM and SIGHUP: the first asks us to end what we hold; the second ends us at once.

use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

/// A signal that asks us to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Control-C.
    Int,
    /// Asked to end.
    Term,
    /// The terminal is gone.
    Hup,
}

impl Signal {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Signal::Int => "SIGINT",
            Signal::Term => "SIGTERM",
            Signal::Hup => "SIGHUP",
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Signal::Hup => 1,
            Signal::Int => 2,
            Signal::Term => 15,
        }
    }

    /// As a command that it ended would say it.
    pub(crate) fn exit(self) -> Exit {
        Exit::Command(128 + self.number())
    }
}

/// Hears them from now on, instead of being ended by them.
#[derive(Debug)]
pub(crate) struct Signals {
    int: Listener,
    term: Listener,
    hup: Listener,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(Exit::Internal, format!("signals cannot be heard: {error}")))
        };
        Ok(Self {
            int: listen(SignalKind::interrupt())?,
            term: listen(SignalKind::terminate())?,
            hup: listen(SignalKind::hangup())?,
        })
    }

    /// The next one. Nothing is lost if the future is dropped.
    pub(crate) async fn recv(&mut self) -> Signal {
        tokio::select! {
            _ = self.int.recv() => Signal::Int,
            _ = self.term.recv() => Signal::Term,
            _ = self.hup.recv() => Signal::Hup,
        }
    }

    /// From now on the next one ends the process at once: someone has no patience for an orderly end.
    pub(crate) fn end_on_next(mut self) {
        tokio::spawn(async move {
            let signal = self.recv().await;
            std::process::exit(i32::from(128 + signal.number()));
        });
    }
}
