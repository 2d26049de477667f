//! The page "from loopback to a farm", command by command.

use crate::support::{PATIENCE, free_port, text};
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::Instant;

/// The blocks of a language in the page, without their indentation.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let rest = |part: &str| part.split_once("```").map(|(block, _)| block.replace("\n   ", "\n")).unwrap_or_default();
    page.split(&fence).skip(1).map(rest).collect()
}

/// Ends its process when it is dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs commands of the page in a folder, with the program of this build.
fn run(folder: &Path, commands: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_wharfinger")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    Command::new("bash").args(["-ec", commands]).env("PATH", path).current_dir(folder).output().unwrap()
}

#[test]
fn the_page_from_loopback_to_a_farm_works_as_it_is_written() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/first-farm.md");
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let page = std::fs::read_to_string(page).unwrap().replace("7411", &port.to_string());
    let hosts = folder.path().join("hosts");
    let page = page.replace("/tmp/wharfinger-hosts", hosts.to_str().unwrap()).replace("0.0.0.0", "127.0.0.1");
    let (shell, configuration) = (blocks(&page, "sh"), blocks(&page, "toml"));
    let ([pki, serve, operator, agent, cut], [configuration]) = (&shell[..], &configuration[..]) else {
        panic!("five blocks of commands and a configuration: {shell:?}");
    };
    let good = |commands: &str| {
        let output = run(folder.path(), commands);
        assert!(output.status.success(), "{commands}\n{}", text(&output));
        text(&output)
    };
    good(pki);
    std::fs::write(folder.path().join("wharfinger.toml"), configuration).unwrap();
    let (check, serve) = serve.split_once('\n').unwrap();
    good(check);
    let words: Vec<&str> = serve.trim().trim_end_matches('&').split_whitespace().collect();
    let mut server = Command::new(env!("CARGO_BIN_EXE_wharfinger"));
    let server = Serving(server.args(&words[1..]).current_dir(folder.path()).spawn().unwrap());

    let begun = Instant::now();
    while !run(folder.path(), operator).status.success() {
        assert!(begun.elapsed() < PATIENCE, "{}", text(&run(folder.path(), operator)));
    }
    let who = good(operator);
    assert!(who.contains("x509:spiffe://farm.example.org/ops") && who.contains("hosts"), "{who}");
    let (exports, _) = operator.split_once("wharfinger whoami").unwrap();
    assert!(good(&format!("{exports}{agent}")).contains("built"));
    let nameless = run(
        folder.path(),
        &format!("{exports}unset WHARFINGER_CERTIFICATE WHARFINGER_CERTIFICATE_KEY\nwharfinger pools"),
    );
    assert_eq!(nameless.status.code(), Some(76), "{}", text(&nameless));

    let cut = cut.replace("%1", &server.0.id().to_string());
    let (cut, after) = cut.split_at(cut.rfind("WHARFINGER_CERTIFICATE=").unwrap());
    good(&format!("{exports}{cut}"));
    let begun = Instant::now();
    loop {
        let output = run(folder.path(), &format!("{exports}{after}"));
        if output.status.code() == Some(76) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", text(&output));
    }
    good(operator);
}
