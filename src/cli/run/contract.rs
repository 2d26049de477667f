//! The options with which `run` and `exec` answer to the CI product that started them (docs/ci.md).

use super::record::End;
use crate::cli::ci::{self, Job, Wish};
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::select::time;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

const HEADING: &str = "For CI products";

/// The variables that stand for these options. A command that runs here gets none of them: it may start this program too.
pub(crate) const VARIABLES: [&str; 6] = [
    "WHARFINGER_RESULT",
    "WHARFINGER_EXIT_LOST",
    "WHARFINGER_EXIT_FAILED",
    "WHARFINGER_CANCEL_GRACE",
    "WHARFINGER_CI",
    "WHARFINGER_CI_KEY",
];

/// How the end is reported, and how soon it comes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Contract {
    /// Write how it ended, and whose fault it was, to this file as JSON
    #[arg(long, value_name = "FILE", env = "WHARFINGER_RESULT", help_heading = HEADING)]
    pub(super) result: Option<PathBuf>,
    /// Exit with this code, in place of 75 and 69, when leases were lost for good or none could be had
    #[arg(long, value_name = "CODE", env = "WHARFINGER_EXIT_LOST", value_parser = clap::value_parser!(u8).range(1..), help_heading = HEADING)]
    exit_lost: Option<u8>,
    /// Exit with this code, in place of the command's own, when the command failed
    #[arg(long, value_name = "CODE", env = "WHARFINGER_EXIT_FAILED", value_parser = clap::value_parser!(u8).range(1..), help_heading = HEADING)]
    exit_failed: Option<u8>,
    /// After a signal, end within this time; the lease then ends by its TTL
    #[arg(long, value_name = "TIME", value_parser = time, env = "WHARFINGER_CANCEL_GRACE", default_value = "6s", help_heading = HEADING)]
    pub(super) cancel_grace: Duration,
    /// End the command when one attempt has run for this time, and exit with 124
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = HEADING)]
    pub(super) timeout: Option<Duration>,
    /// Take work, holder, request id and notes from the environment of this CI product, fold the log as it does, and annotate; auto: of
    /// the one that is there, if any
    #[arg(long, value_name = "PRODUCT", value_parser = Wish::parse, env = "WHARFINGER_CI", help_heading = HEADING)]
    ci: Option<Wish>,
    /// With --ci: tells jobs of the same name apart, as the values of a matrix do
    #[arg(long, value_name = "TEXT", env = "WHARFINGER_CI_KEY", help_heading = HEADING)]
    ci_key: Option<String>,
}

impl Contract {
    /// The job of the CI product that runs this program.
    pub(super) fn job(&self) -> Result<Option<Job>, Failure> {
        let Some(wish) = self.ci else { return Ok(None) };
        ci::job(wish, self.ci_key.as_deref(), &ci::environment)
    }

    /// The exit code for this end.
    pub(super) fn exit(&self, ended: &Result<End, Failure>) -> Exit {
        let failed = |own: Exit| self.exit_failed.map_or(own, Exit::Command);
        match ended {
            Ok(End::Command(exit)) if exit.success() => Exit::Ok,
            Ok(End::Command(exit) | End::Blamed(Some(exit))) => failed(Exit::of(exit)),
            Ok(End::NotStarted) => failed(Exit::NotFound),
            Ok(End::Blamed(None)) => failed(Exit::Command(1)),
            Ok(End::Cancelled(signal)) => signal.exit(),
            Err(failure) => match failure.exit {
                Exit::Lost | Exit::Unavailable => self.exit_lost.map_or(failure.exit, Exit::Command),
                other => other,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::signals::Signal;
    use super::*;
    use clap::Parser;
    use wharfinger_adapter::Exit as Ended;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        contract: Contract,
    }

    fn contract(args: &[&str]) -> Contract {
        Line::try_parse_from(std::iter::once("x").chain(args.iter().copied())).ok().unwrap().contract
    }

    fn ends() -> Vec<Result<End, Failure>> {
        vec![
            Ok(End::Command(Ended::Code(0))),
            Ok(End::Command(Ended::Code(3))),
            Ok(End::Command(Ended::Code(75))),
            Ok(End::Command(Ended::Signal("KILL".into()))),
            Ok(End::Command(Ended::TimedOut)),
            Ok(End::NotStarted),
            Ok(End::Blamed(None)),
            Ok(End::Blamed(Some(Ended::Code(4)))),
            Ok(End::Cancelled(Signal::Term)),
            Err(Failure::new(Exit::Lost, "lost")),
            Err(Failure::new(Exit::Unavailable, "none")),
            Err(Failure::new(Exit::BadData, "wrong")),
            Err(Failure::new(Exit::Denied, "no")),
        ]
    }

    #[test]
    fn each_end_has_its_code() {
        let codes = |args: &[&str]| ends().iter().map(|ended| contract(args).exit(ended).code()).collect::<Vec<_>>();
        assert_eq!(codes(&[]), [0, 3, 75, 137, 124, 127, 1, 4, 143, 75, 69, 65, 77]);
        assert_eq!(codes(&["--exit-lost", "2", "--exit-failed", "1"]), [0, 1, 1, 1, 1, 1, 1, 1, 143, 2, 2, 65, 77]);
    }

    #[test]
    fn zero_is_no_code_of_a_failure() {
        for option in ["--exit-lost", "--exit-failed"] {
            assert!(Line::try_parse_from(["x", option, "0"]).is_err());
            assert!(Line::try_parse_from(["x", option, "256"]).is_err());
        }
    }
}
