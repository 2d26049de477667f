//! Arguments that the command line takes, and those that it refuses.

use super::*;

fn parse(line: &str) -> Result<Cli, String> {
    Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_verbs_of_the_server_are_in_the_help_only_with_the_server() {
    let help = Cli::command().render_help().to_string();
    for verb in ["serve", "check-config", "db"] {
        assert_eq!(help.contains(&format!("\n  {verb} ")), cfg!(feature = "server"), "{verb}: {help}");
    }
    assert!(help.contains("\n  run ") && help.contains("\n  health "), "{help}");
}

#[test]
fn a_command_comes_after_two_dashes() {
    let cli = parse("wharfinger run --pool work --branch main -e A=b -- make -j test").unwrap();
    assert!(matches!(cli.verb, Verb::Run(_)));
    for (line, says) in [
        ("wharfinger run --pool work", "required"),
        ("wharfinger run --pool work make test", "unexpected argument 'make'"),
        ("wharfinger run -- make", "--label <KEY=VALUE>"),
        ("wharfinger run --pool a --branch b --tag c -- make", "cannot be used with"),
        ("wharfinger run --pool a --ttl 90 -- make", "write \"90s\" for seconds"),
        ("wharfinger run --pool a --priority 101 -- make", "101 is not in -100..=100"),
        ("wharfinger run --pool a --param x -- make", "write it as KEY=VALUE"),
        ("wharfinger run --pool a --no-queue --queue-for 1m -- make", "cannot be used with"),
        ("wharfinger exec --pool a -- make", "--local"),
        ("wharfinger cordon", "required"),
        ("wharfinger cordon res_1 --pool a", "cannot be used with"),
        ("wharfinger lease --pool a --keep --wait 1m", "cannot be used with"),
        ("wharfinger events --limit 0", "0 is not in 1.."),
        ("wharfinger get", "required"),
        ("wharfinger hold res_1", "--for <TIME>"),
        ("wharfinger cordon lse_1", "that is a lease"),
        ("wharfinger why", "required"),
        ("wharfinger why lse_1 --limit 1001", "1001 is not in 1..=1000"),
        ("wharfinger release lse_1 --hold 2", "write \"2s\" for seconds"),
        ("wharfinger nonsense", "unrecognized subcommand"),
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.contains(says), "{line}: {error}");
    }
}

#[test]
fn flags_about_failures_are_accepted() {
    for line in [
        "wharfinger run --pool a --work job@1234 --hold-on-failure 1h -- make",
        "wharfinger lease --pool a --work job@1234",
        "wharfinger release lse_1 --outcome failed --hold 1h",
        "wharfinger report lse_1 odd",
        "wharfinger hold lse_1 --for 2h --reason triage",
        "wharfinger hold res_1 --for 2h",
        "wharfinger why lse_1 --json",
        "wharfinger spot-stats",
        "wharfinger tenants --json",
        "wharfinger weather",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn a_global_option_may_stand_anywhere() {
    let cli = parse("wharfinger ls --json --server http://broker:1 --all").unwrap();
    assert!(cli.json);
    assert_eq!(cli.server, "http://broker:1");
}

#[test]
fn each_verb_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    assert!(manual(folder.path()).is_ok());
    let mut command = Cli::command();
    command.build();
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        let page = folder.path().join(format!("wharfinger-{}.1", verb.get_name()));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{}", page.display());
    }
    let whole = std::fs::read_to_string(folder.path().join("wharfinger.1")).unwrap();
    assert!(whole.contains("HOST:PORT") && !whole.contains("manual pages"), "{whole}");
    let refused = manual(&folder.path().join("nothing"));
    assert!(refused.is_err_and(|failure| failure.exit == Exit::BadData));
}
