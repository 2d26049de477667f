//! `top`: *Now*, pools, resources with their lanes, the queue, leases, events and servers in a terminal, for those who sit on a
//! machine without a browser. It shows what the page shows, by the caller's own identity, and changes nothing.

mod app;
mod ask;
mod draw;
mod lanes;
mod sheet;

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::run::signals::Signals;
use super::select::time;
use app::{App, Step};
use ask::{There, ask};
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Arguments of `top`.
#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    /// Time between two readings
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "2s")]
    every: Duration,
}

/// Minimum time between two readings.
const MIN_EVERY: Duration = Duration::from_millis(200);
/// Maximum number of keys that wait.
const KEYS: usize = 64;

/// The terminal in its own screen, which is given back when this is dropped.
struct Own(DefaultTerminal);

impl Own {
    fn take() -> Result<Self, Failure> {
        let failure = |error| Failure::new(Exit::Internal, format!("the terminal cannot be used: {error}"));
        ratatui::try_init().map(Self).map_err(failure)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows the farm until the reader quits.
pub(crate) async fn top(context: &Context, args: TopArgs) -> Result<Exit, Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let failure = Failure::new(Exit::BadData, "`top` needs a terminal for its input and its output");
        return Err(failure.remedy("use `wharfinger pools`, `resources`, `ls` and `events`; for programs with --json"));
    }
    let mut signals = Signals::listen()?;
    let there = There::new(context.clone(), context.connect().await?);
    // The first answer comes before the screen changes, so that a refusal is read where it was asked for.
    let first = ask(&there, app::View::Now).await.map_err(|error| context.failure(error))?;
    let mut app = App::new(&context.server, context.ui.color_out);
    app.take(Ok(first));
    let mut terminal = Own::take()?;
    let mut keys = keys();
    let every = args.every.max(MIN_EVERY);
    let mut next = Instant::now() + every;
    let mut reading = None;
    loop {
        let drawn = terminal.0.draw(|frame| draw::draw(frame, &mut app));
        drawn.map_err(|error| Failure::new(Exit::Internal, format!("the terminal cannot be written: {error}")))?;
        tokio::select! {
            event = keys.recv() => match event {
                Some(Event::Key(key)) => match app.key(key) {
                    Step::Stay => {}
                    Step::Read => reading = Some(Box::pin(ask(&there, app.view().clone()))),
                    Step::Quit => return Ok(Exit::Ok),
                },
                Some(_) => {}
                None => return Err(Failure::new(Exit::Internal, "the terminal gives no more keys")),
            },
            answer = async { match &mut reading { Some(reading) => reading.await, None => std::future::pending().await } } => {
                reading = None;
                next = Instant::now() + every;
                app.take(answer.map_err(|error| context.failure(error).message));
            }
            () = sleep_until(next), if reading.is_none() && !app.paused() => {
                reading = Some(Box::pin(ask(&there, app.view().clone())));
            }
            signal = signals.recv() => return Ok(signal.exit()),
        }
    }
}

/// The keys of the terminal, and its changes of size. The thread ends with the program.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(KEYS);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                break;
            }
        }
    });
    receiver
}
