//! Completion of pools, leases and resources in real shells, which ask a real server.

use crate::support::{Server, text};
use crate::terminal::{Tmux, tmux};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use wharfinger_testkit::{Need, need};

/// Maximum time for an answer on a busy machine. The program itself gives up after 1.5 s.
const SOON: Duration = Duration::from_secs(10);

const POOLS: &str = r#"
[[pool]]
name = "workshop"
adapter = "local"
slots = 2
min_ready = 1
[pool.local]
root = "scratch"
"#;

/// The candidates for the last of these words, by the words that a script passes on, and what it printed on standard error.
fn candidates(server: &Server, words: &[&str]) -> (Vec<String>, Output) {
    let mut command = server.command(&["--", "wharfinger"]);
    let output = command.args(words).env("WHARFINGER_COMPLETE", "fish").output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", text(&output));
    let printed = String::from_utf8_lossy(&output.stdout);
    let names = printed.lines().filter_map(|line| line.split('\t').next());
    (names.filter(|name| !name.starts_with('-')).map(String::from).collect(), output)
}

fn only(server: &Server, words: &[&str]) -> Vec<String> {
    candidates(server, words).0
}

/// An active lease, and its resource.
fn lease(server: &Server) -> (String, String) {
    let lease = server.json(&["lease", "--pool", "workshop", "--ttl", "1h", "--wait", "1m"])["lease"].clone();
    let text = |key: &str| lease[key].as_str().unwrap().to_owned();
    (text("id"), text("resource_id"))
}

#[test]
fn names_of_the_server_are_candidates_where_they_fit() {
    let server = Server::start(POOLS);
    let ((held, resource), (ended, _)) = (lease(&server), lease(&server));
    assert!(server.cli(&["release", &ended]).status.success());
    assert_eq!(only(&server, &["run", "--pool", ""]), ["workshop"]);
    assert_eq!(only(&server, &["run", "--pool", "work"]), ["workshop"]);
    assert_eq!(only(&server, &["run", "--pool", "x"]), [""; 0]);
    // A lease that has ended can be read, and not be worked in.
    assert_eq!(only(&server, &["on", "lse_"]), [held.as_str()]);
    let mut told = only(&server, &["why", "lse_"]);
    told.sort();
    let mut both = vec![held.clone(), ended];
    both.sort();
    assert_eq!(told, both);
    assert!(only(&server, &["drain", "res_"]).contains(&resource));
    assert_eq!(only(&server, &["ls", "--resource", &resource[..resource.len() - 1]]), [resource]);
    // The server may be named by the line itself, before the verb or after it.
    let (address, other) = (server.address.as_str(), "http://127.0.0.1:1");
    for line in [["--server", address, "run", "--pool", ""], ["run", "--server", address, "--pool", ""]] {
        let mut command = server.command(&["--", "wharfinger"]);
        let output =
            command.args(line).env("WHARFINGER_COMPLETE", "fish").env("WHARFINGER_SERVER", other).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "workshop\tlocal\n", "{line:?}");
    }
}

#[test]
fn a_server_that_does_not_answer_is_silence_within_a_short_time() {
    let mut server = Server::start(POOLS);
    // Takes connections, and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap().to_string();
    server.kill();
    for line in [
        vec!["run", "--pool", ""],
        vec!["--server", &address, "run", "--pool", ""],
        vec!["--server", "no-such-name.invalid:1", "on", "lse_"],
    ] {
        let begun = Instant::now();
        let (names, output) = candidates(&server, &line);
        assert!(names.is_empty() && output.stderr.is_empty(), "{line:?}: {}", text(&output));
        assert!(begun.elapsed() < SOON, "{line:?} took {:?}", begun.elapsed());
    }
}

#[test]
fn an_agents_token_completes_pools_and_a_refused_one_is_silence() {
    let mut server = Server::prepared("w.db");
    let made = server.cli(&["token", "new", "--expires", "never", "--tenant", "web", "--role", "agent", "ci"]);
    let told = String::from_utf8_lossy(&made.stderr).into_owned();
    let (_, callers) = told.split_once("[[auth.token]]").unwrap();
    let callers = format!("[[auth.token]]{}\n", callers.split("\n\n").next().unwrap());
    server.configure(&callers, POOLS);
    server.spawn();
    server.wait_by(|| server.log().contains("INFO serving"));
    let file = server.folder.path().join("token");
    // Others may read it, which is worth a warning to people elsewhere.
    for (token, printed) in
        [(String::from_utf8_lossy(&made.stdout).into_owned(), "workshop\tlocal\n"), ("wfk_ci_wrong_wrong".into(), "")]
    {
        std::fs::write(&file, token).unwrap();
        let mut command = server.command(&["--", "wharfinger", "run", "--pool", ""]);
        command.env("WHARFINGER_COMPLETE", "fish").env("WHARFINGER_AUTH_TOKEN_FILE", &file);
        let output = command.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), printed);
    }
}

/// A shell without a person's own start-up files, which reads the script of the program.
fn shell(server: &Server, name: &str) -> Tmux {
    let folder = server.folder.path();
    let bin = folder.join("bin");
    if !bin.exists() {
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_wharfinger"), bin.join("wharfinger")).unwrap();
    }
    let script = server.cli(&["completions", name]);
    assert!(script.status.success(), "{}", text(&script));
    // In zsh from a directory of `fpath`, as a package has it.
    let file = folder.join(if name == "zsh" { "_wharfinger" } else { name });
    std::fs::write(&file, &script.stdout).unwrap();
    let (file, dump) = (file.display(), folder.join("zcompdump"));
    let (argv, begin): (&[&str], _) = match name {
        "bash" => (&["bash", "--norc"], format!("PS1='> '; source {file}")),
        "zsh" => {
            let fpath = format!("fpath=({} $fpath); autoload compinit", folder.display());
            (&["zsh", "-f"], format!("PS1='> '; {fpath}; compinit -u -d {}", dump.display()))
        }
        _ => (&["fish", "--no-config"], format!("function fish_prompt; printf '> '; end; source {file}")),
    };
    let path = std::env::var("PATH").unwrap_or_default();
    let mut line =
        vec!["env".to_owned(), format!("PATH={}:{path}", bin.display()), format!("HOME={}", folder.display())];
    line.push(format!("WHARFINGER_SERVER={}", server.address));
    line.extend(argv.iter().map(|word| (*word).to_owned()));
    let tmux = Tmux::start(&line);
    tmux.keys(&["-l", &format!("{begin}; clear; echo is-4\"2\"")]);
    tmux.keys(&["Enter"]);
    tmux.reads("is-42");
    tmux
}

#[test]
fn the_key_completes_a_pool_and_a_lease_in_bash_zsh_and_fish() {
    let Some(()) = need(Need::Tmux, tmux()) else { return };
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let Some(()) = need(Need::Shells, (there("zsh") && there("fish")).then_some(())) else { return };
    let server = Server::start(POOLS);
    let (held, _) = lease(&server);
    for name in ["bash", "zsh", "fish"] {
        let tmux = shell(&server, name);
        tmux.keys(&["-l", "wharfinger run --pool wor"]);
        tmux.keys(&["Tab"]);
        tmux.reads("--pool workshop");
        tmux.keys(&["C-u"]);
        tmux.keys(&["-l", "wharfinger release ls"]);
        tmux.keys(&["Tab"]);
        tmux.reads(&format!("release {held}"));
        // The verbs themselves, as before.
        tmux.keys(&["C-u"]);
        tmux.keys(&["-l", "wharfinger check-c"]);
        tmux.keys(&["Tab"]);
        tmux.reads("wharfinger check-config");
    }
}

#[test]
fn a_script_is_where_the_packages_put_it() {
    let build = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/deb/build.sh")).unwrap();
    for name in ["bash", "zsh", "fish"] {
        assert!(build.contains(&format!("completions {name} >")), "{name}");
    }
}
