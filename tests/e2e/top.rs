//! `wharfinger top` in a real terminal.

use crate::farm::{Farm, Settings};
use crate::sshd::{Sshd, skip};
use crate::support::text;
use crate::terminal::{Tmux, tmux};
use wharfinger_testkit::{Need, need};

#[test]
fn a_terminal_shows_a_dead_host_its_life_and_what_became_of_its_lease() {
    if skip("top::a_terminal_shows_a_dead_host_its_life_and_what_became_of_its_lease") {
        return;
    }
    let Some(()) = need(Need::Tmux, tmux()) else { return };
    let settings = Settings { copies: "max = 2", hosts: "[pool.doubt]\nover = \"6s\"", ..Settings::default() };
    let mut farm = Farm::start(vec![Sshd::start(), Sshd::start()], settings);
    farm.server.wait_for_state("hosts", "READY", 2);
    let lease = farm.ask("copies", "evil\u{202e}gnp.exe", true);
    let lease = farm.active(&lease.id).lease;
    let host = farm.resource(&farm.resource(&lease.resource_id).parent_id);
    let command = farm.server.command(&["top", "--every", "200ms"]);
    let mut line = vec!["env".to_owned()];
    let pair = |(key, value): (&std::ffi::OsStr, Option<&std::ffi::OsStr>)| {
        Some(format!("{}={}", key.to_str()?, value?.to_str()?))
    };
    line.extend(command.get_envs().filter_map(pair));
    line.push(command.get_program().to_str().unwrap().to_owned());
    line.extend(command.get_args().map(|arg| arg.to_str().unwrap().to_owned()));
    let tmux = Tmux::start(&line);
    let well = tmux.reads("Nothing needs you.");
    assert!(well.contains("copies") && well.contains("1 leased"), "{well}");
    tmux.keys(&["g", "l"]);
    let leases = tmux.reads("evil\\u{202e}gnp.exe");
    assert!(leases.contains("ACTIVE"), "{leases}");
    tmux.keys(&["g", "n"]);
    farm.host(&host.item.clone()).kill_hard();
    tmux.until("host in doubt or the broken lease", |screen| {
        screen.contains("SUSPECT") || screen.contains("Broken in the last hour: 1")
    });
    tmux.reads("Broken in the last hour: 1");
    // The life of the host that died, by its id.
    tmux.keys(&["/"]);
    tmux.keys(&["-l", &host.id]);
    tmux.keys(&["Enter"]);
    let life = tmux.reads("resource.suspect");
    assert!(life.lines().any(|line| line.starts_with("state") && line.contains('█') && line.contains('▲')), "{life}");
    // The lease that broke, by the row of its entry; and back.
    tmux.keys(&["/"]);
    tmux.keys(&["-l", &lease.id]);
    tmux.keys(&["Enter"]);
    let broken = tmux.reads("in its stead: lse_");
    assert!(broken.contains("BROKEN") && broken.contains("PARENT_GONE"), "{broken}");
    tmux.keys(&["Escape"]);
    tmux.reads("Resource ");
    // The screen reports a server that is away, and keeps the latest state.
    farm.server.kill();
    let away = tmux.reads("✕ as of ");
    assert!(away.contains("resource.suspect"), "{away}");
    farm.server.run();
    tmux.until("a new reading", |screen| !screen.contains("✕ as of "));
    tmux.keys(&["q"]);
    let status = tmux.status();
    assert_eq!(status, "0", "{}", tmux.screen());
    assert!(!tmux.screen().contains("Servers"), "the terminal is given back: {}", tmux.screen());
}

/// Without a terminal it says what to use.
#[test]
fn without_a_terminal_top_names_the_verbs_to_use() {
    let server = crate::support::Server::start("");
    let refused = server.cli(&["top"]);
    assert_eq!(refused.status.code(), Some(65), "{}", text(&refused));
    assert!(
        text(&refused).contains("needs a terminal") && text(&refused).contains("wharfinger pools"),
        "{}",
        text(&refused)
    );
}
