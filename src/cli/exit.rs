//! Exit codes: all of them are here. From 64 on they are those of sysexits.h; a command's own code passes through
//! `run` and `exec` unchanged.

use std::process::ExitCode;

/// How the program ends. (2, a wrong command line, is clap's.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All well.
    Ok,
    /// Our error.
    Internal,
    /// EX_DATAERR: the request is wrong, or names what is not there.
    BadData,
    /// EX_UNAVAILABLE: no server, or no capacity.
    Unavailable,
    /// EX_TEMPFAIL: the lease was lost for good.
    Lost,
    /// The server begins anew; EX_TEMPFAIL if it cannot.
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "only the verbs of the server end so"))]
    Again,
    /// The caller's own token cannot be had (its file, its command, its CI product), or a certificate is refused, its own or the server's.
    /// (EX_PROTOCOL is for nothing else here.)
    Credentials,
    /// EX_NOPERM: not theirs.
    Denied,
    /// EX_CONFIG: the configuration.
    Config,
    /// As the shell says it: no such program.
    NotFound,
    /// Exit code of a command, or 128 and the number of the signal that ended it.
    Command(u8),
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Internal => 1,
            Exit::BadData => 65,
            Exit::Unavailable => 69,
            Exit::Lost | Exit::Again => 75,
            Exit::Credentials => 76,
            Exit::Denied => 77,
            Exit::Config => 78,
            Exit::NotFound => 127,
            Exit::Command(code) => code,
        }
    }

    /// As a command ended.
    pub(crate) fn of(exit: &wharfinger_adapter::Exit) -> Self {
        match exit {
            // A code that does not fit into a byte is a failure all the same.
            wharfinger_adapter::Exit::Code(code) => Exit::Command(u8::try_from(*code).unwrap_or(255)),
            wharfinger_adapter::Exit::Signal(name) => Exit::Command(128 + signal_number(name)),
            wharfinger_adapter::Exit::TimedOut => Exit::Command(124),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// The number of a signal on Linux; 0 if it is not known, so that the code says "by a signal" and no more.
fn signal_number(name: &str) -> u8 {
    match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "TRAP" => 5,
        "ABRT" => 6,
        "BUS" => 7,
        "FPE" => 8,
        "KILL" => 9,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        "XCPU" => 24,
        "XFSZ" => 25,
        "SYS" => 31,
        other => other.parse().ok().filter(|number| *number < 128).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_end_passes_through() {
        for (exit, code) in [
            (wharfinger_adapter::Exit::Code(0), 0),
            (wharfinger_adapter::Exit::Code(3), 3),
            (wharfinger_adapter::Exit::Code(256), 255),
            (wharfinger_adapter::Exit::Signal("KILL".into()), 137),
            (wharfinger_adapter::Exit::Signal("TERM".into()), 143),
            (wharfinger_adapter::Exit::Signal("34".into()), 162),
            (wharfinger_adapter::Exit::Signal("ODD".into()), 128),
            (wharfinger_adapter::Exit::TimedOut, 124),
        ] {
            assert_eq!(Exit::of(&exit).code(), code, "{exit:?}");
        }
    }
}
