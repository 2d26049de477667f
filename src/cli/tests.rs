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
    assert!(whole.contains("WHARFINGER_SERVER"), "{whole}");
    let run = std::fs::read_to_string(folder.path().join("wharfinger-run.1")).unwrap();
    for variable in ["WHARFINGER_RESULT", "WHARFINGER_EXIT_LOST", "WHARFINGER_CA_FILE"] {
        assert!(run.contains(variable), "{variable}: {run}");
    }
    let refused = manual(&folder.path().join("nothing"));
    assert!(refused.is_err_and(|failure| failure.exit == Exit::BadData));
}

/// The words of a line of a shell up to the first operator, without the comment at its end.
fn words_of(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match quote {
            Some(mark) if c == mark => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None if matches!(c, '#' | '|' | '&' | '>' | '<' | ';') && word.is_none() => break,
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The commands of a page: lines of its code that begin with the name of the program.
fn commands_of(page: &str) -> impl Iterator<Item = (usize, Vec<String>)> {
    page.lines().enumerate().filter_map(|(number, line)| {
        let code = line.strip_prefix("    ").unwrap_or(line);
        let code = code.strip_prefix("$ ").unwrap_or(code);
        let words = words_of(&code.replace('…', "1").replace("$$", "1"));
        (words.first().is_some_and(|word| word == "wharfinger") && words.len() > 1).then_some((number + 1, words))
    })
}

#[cfg(feature = "server")]
#[test]
fn each_command_of_the_documentation_is_accepted() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = documents.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let (mut read, mut faults) = (0, Vec::new());
    for path in pages.chain([root.join("README.md")]) {
        let page = std::fs::read_to_string(&path).unwrap();
        for (line, words) in commands_of(&page) {
            read += 1;
            if let Err(error) = Cli::try_parse_from(&words)
                && error.use_stderr()
            {
                let first = error.to_string().lines().next().unwrap_or_default().to_owned();
                faults.push(format!("{}:{line}: {}: {first}", path.display(), words.join(" ")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(read > 30, "{read} commands were read");
    let found =
        commands_of("    wharfinger run --pool a -- sh -c 'a && b'   # runs\nwharfinger ls | head\n    cargo run\n");
    let found: Vec<_> = found.map(|(line, words)| (line, words.len())).collect();
    assert_eq!(found, [(1, 8), (2, 2)]);
}
