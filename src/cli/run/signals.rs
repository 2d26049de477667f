//! SIGINT, SIGTERM and SIGHUP: the first asks us to end what we hold, within a time; after that time, or at the second, the
//! process ends.

use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use std::time::Duration;
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};
use tokio::sync::watch;

/// A signal that asks us to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT, as by Control-C.
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

/// Hears them from the first call of [`Signals::listen`] on, instead of being ended by them. Clones hear the same.
#[derive(Clone, Debug)]
pub(crate) struct Signals(watch::Receiver<Option<Signal>>);

impl Signals {
    /// Hears them. The second one ends the process at once.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Self::listen_with(None, |_| {})
    }

    /// Hears them. The second one ends the process at once, and so does the end of `grace` after the first. `last` runs
    /// before, with the first signal.
    pub(crate) fn listen_with(
        grace: Option<Duration>,
        last: impl FnOnce(Signal) + Send + 'static,
    ) -> Result<Self, Failure> {
        let mut heard = Heard::listen()?;
        let (sender, receiver) = watch::channel(None);
        // Ends with the program.
        tokio::spawn(async move {
            let first = heard.next().await;
            sender.send_replace(Some(first));
            let over = async {
                match grace {
                    Some(grace) => tokio::time::sleep(grace).await,
                    None => std::future::pending().await,
                }
            };
            let second = tokio::select! {
                signal = heard.next() => signal,
                () = over => first,
            };
            last(first);
            std::process::exit(i32::from(128 + second.number()));
        });
        Ok(Self(receiver))
    }

    /// Waits for the first signal. Returns it again at each further call.
    pub(crate) async fn recv(&mut self) -> Signal {
        if let Ok(heard) = self.0.wait_for(Option::is_some).await
            && let Some(signal) = *heard
        {
            return signal;
        }
        std::future::pending().await
    }

    /// Whether one was heard.
    pub(crate) fn is_heard(&self) -> bool {
        self.0.borrow().is_some()
    }
}

#[derive(Debug)]
struct Heard {
    int: Listener,
    term: Listener,
    hup: Listener,
}

impl Heard {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(Exit::Internal, format!("signals cannot be heard: {error}")))
        };
        Ok(Self {
            int: listen(SignalKind::interrupt())?,
            term: listen(SignalKind::terminate())?,
            hup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.int.recv() => Signal::Int,
            _ = self.term.recv() => Signal::Term,
            _ = self.hup.recv() => Signal::Hup,
        }
    }
}
