//! The operator's page in a real browser: a farm with a host that dies, verbs with their previews, strangers, no script, and a look
//! at each screen with axe-core.
//!
//! `BLESS=1` copies the pictures to `docs/page/`.

use crate::browser::{Browser, Programs, programs};
use crate::farm::{Farm, Settings};
use crate::sshd::{Sshd, skip};
use crate::support::{Server, free_port, repository};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use wharfinger::pb;
use wharfinger::pb::{LeaseState, ResourceState};
use wharfinger_testkit::{Need, need};

const HOSTILE: &str = "\"><script>document.title='owned'</script>\u{202e}gnp.exe";
/// Maximum time from the entry of the trail to the open tab, in milliseconds, on a machine with other work on it. Alone it is a
/// third of a second.
const SHOWN: f64 = 5_000.0;

/// A farm of two hosts with its page.
fn farm() -> (Farm, String) {
    let hosts = vec![Sshd::start(), Sshd::start()];
    let port = free_port();
    let server = Server::prepared("w.db");
    repository(&server.folder.path().join("origin"));
    let work = tempfile::tempdir().unwrap();
    let settings = Settings { copies: "max = 2", hosts: "[pool.doubt]\nover = \"6s\"", ..Settings::default() };
    let pools = crate::farm::pools(&hosts, &settings, work.path(), &[]);
    server.configure(&format!("[page]\nlisten = \"127.0.0.1:{port}\""), &pools);
    let farm = Farm::over(server, hosts, settings, work);
    farm.server.wait_for_state("hosts", "READY", 2);
    (farm, format!("http://127.0.0.1:{port}"))
}

fn machine_of(farm: &Farm, lease: &pb::Lease) -> pb::Resource {
    let copy = farm.resource(&lease.resource_id);
    farm.resource(&copy.parent_id)
}

#[test]
fn an_open_tab_shows_a_dead_host_and_three_clicks_lead_to_the_cause() {
    let Some(programs) = need(Need::Chromium, programs()) else { return };
    if skip("page::an_open_tab_shows_a_dead_host_and_three_clicks_lead_to_the_cause") {
        return;
    }
    let (mut farm, page) = farm();
    let lease = farm.ask("copies", HOSTILE, true);
    let lease = farm.active(&lease.id).lease;
    let host = machine_of(&farm, &lease);
    let browser = Browser::start(&programs, &[]);
    browser.look(1280, "light");
    browser.go(&page);
    browser.reads("Nothing needs you.");
    // Nothing but the page itself says when the tab has shown it.
    browser.script(
        "window.shown = null; window.loads = 1;
         const look = () => { if (window.shown === null && document.getElementById('main').innerText.includes('SUSPECT')) window.shown = Date.now(); };
         new MutationObserver(look).observe(document.getElementById('main'), { subtree: true, childList: true, characterData: true });",
    );
    let revision = farm.revision();
    farm.host(&host.item.clone()).kill_hard();
    let shown = browser.wait("the tab to show the host in doubt", || browser.script("return window.shown").as_f64());
    let entry = farm.server.wait("the entry of the doubt", || {
        farm.events(revision).into_iter().find(|event| event.kind == "resource.suspect")
    });
    let at = entry.at.unwrap();
    let written = at.seconds as f64 * 1000.0 + f64::from(at.nanos) / 1e6;
    println!("PAGE | from the entry of the trail to the open tab: {:.0} ms", shown - written);
    assert!(shown - written < SHOWN, "{} ms", shown - written);
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")] {
        picture(&browser, "now", width, scheme);
    }
    browser.look(1280, "light");
    // Without a reload: it breaks, and a root cause has a line.
    let broken = format!("section[aria-labelledby=broken] a[href='/leases/{}']", lease.id);
    browser.wait("the broken lease", || {
        browser.script(&format!("return document.querySelector(\"{broken}\") !== null")).as_bool()?.then_some(())
    });
    assert_eq!(browser.script("return window.loads").as_i64(), Some(1), "the tab was not loaded again");
    assert_ne!(browser.script("return document.title"), "owned");
    // The first click leads to the lease, with its causes and what came in its stead; the second to the host, and its life.
    browser.click(&broken);
    browser.reads("Because");
    let text = browser.text();
    assert!(text.contains("CONNECTION_LOST") && text.contains("PARENT_GONE"), "{text}");
    assert!(text.contains("In its stead") && text.contains("\\u{202e}gnp.exe"), "{text}");
    picture(&browser, "lease", 1280, "light");
    let root = farm.get(&lease.id).causes.last().unwrap().subject.clone();
    assert_eq!(root, host.id, "the root is the host");
    browser.click(&format!("ol.causes a[href='/resources/{root}']"));
    browser.reads("Life");
    browser.wait("the lanes", || browser.text().contains("resource.suspect").then_some(()));
    picture(&browser, "resource", 1280, "dark");
    // The tab shows that the server was killed, and comes back by itself.
    browser.go(&page);
    browser.reads("Attention");
    farm.server.kill();
    browser.reads("Not live: no word from the server");
    farm.server.run();
    browser.wait("the tab to be live again", || (!browser.text().contains("Not live")).then_some(()));
    // The driver's own log of a server that is away is no complaint of the page.
    let bad: Vec<String> = browser.complaints().into_iter().filter(|line| !line.contains("ERR_")).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn verbs_have_a_preview_and_strangers_none_and_each_screen_is_for_everyone() {
    let Some(programs) = need(Need::Chromium, programs()) else { return };
    if skip("page::verbs_have_a_preview_and_strangers_none_and_each_screen_is_for_everyone") {
        return;
    }
    let (mut farm, page) = farm();
    let lease = farm.ask("copies", HOSTILE, false);
    let lease = farm.active(&lease.id).lease;
    let host = machine_of(&farm, &lease);
    let waits = pb::LeaseRequest {
        holder: "https://ci.example.org/job/1".into(),
        selector: Some(pb::Selector { pool: "hosts".into(), ..pb::Selector::default() }),
        count: 2,
        ..pb::LeaseRequest::default()
    };
    let waits = farm.runtime.block_on(farm.client.lease(waits)).unwrap().lease.unwrap();
    let browser = Browser::start(&programs, &["evil.test"]);
    strangers(&farm, &browser, &page, &host);
    with_a_preview(&farm, &browser, &page, &host, &lease);
    without_a_script(&farm, &browser, &page, &host);
    several_at_once(&farm, &browser, &page);
    look_at_each(&browser, &programs, &page, &[&host.id, &lease.id, &waits.id]);
    // A browser has six connections to a server, for all tabs. The tenth tab is there all the same.
    for _ in 0..9 {
        browser.tab();
        browser.go(&page);
        browser.reads("Broken in the last hour");
    }
    // An open stream does not hold a stop up.
    browser.wait("a sign of life", || {
        browser.script("return document.body.dataset.revision !== '0'").as_bool()?.then_some(())
    });
    assert!(farm.server.stop().success());
}

#[test]
fn the_queue_says_who_waits_in_which_order_and_until_when() {
    let Some(programs) = need(Need::Chromium, programs()) else { return };
    if skip("page::the_queue_says_who_waits_in_which_order_and_until_when") {
        return;
    }
    let (farm, page) = farm();
    let ask = |n: u32, holder: &str| {
        let request = pb::LeaseRequest {
            holder: holder.into(),
            work: format!("nightly-{n}"),
            selector: Some(pb::Selector { pool: "hosts".into(), ..pb::Selector::default() }),
            ttl: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
            expected_duration: Some(prost_types::Duration { seconds: 300 * i64::from(n), nanos: 0 }),
            priority: i32::from(n == 4),
            ..pb::LeaseRequest::default()
        };
        farm.runtime.block_on(farm.client.lease(request)).unwrap().lease.unwrap()
    };
    let held: Vec<pb::Lease> = (1..=2).map(|n| ask(n, &format!("https://ci.example.org/job/{n}"))).collect();
    held.iter().for_each(|lease| drop(farm.active(&lease.id)));
    let line = [ask(3, HOSTILE), ask(4, "urgent"), ask(5, "https://ci.example.org/job/5")];
    let browser = Browser::start(&programs, &[]);
    browser.look(1280, "light");
    browser.go(&format!("{page}/queue?pool=hosts"));
    browser.reads("pool hosts: 3 requests");
    let rows = "return [...document.querySelectorAll('tbody tr')].map((row) => row.id.replace('row-', '')).join(' ')";
    let served = [&line[1].id, &line[0].id, &line[2].id].map(String::as_str).join(" ");
    assert_eq!(browser.script(rows), served, "the priority goes first");
    let text = browser.text();
    assert!(text.contains("BUSY") && text.contains("\\u{202e}gnp.exe") && text.contains("nightly-5"), "{text}");
    assert_eq!(browser.script("return document.querySelectorAll('td span[title] time').length"), 4, "{text}");
    assert!(
        text.contains("not known: too little is known of how long the leases there take"),
        "nothing is known of the leases between: {text}"
    );
    for (width, scheme) in [(1280, "light"), (360, "dark")] {
        picture(&browser, "queue", width, scheme);
        let wide = browser.script("return document.documentElement.scrollWidth").as_u64().unwrap();
        assert!(wide <= u64::from(width), "{wide} wide at {width}");
        assert_eq!(browser.findings(&programs), Vec::<String>::new());
    }
    assert_ne!(browser.script("return document.title"), "owned");
    browser.look(1280, "light");
    // By a link, and without a script by the form.
    browser.click(&format!("#row-{} a[href='/leases/{}']", line[1].id, line[1].id));
    browser.reads("Likely start: ");
    browser.reads("2 slots, by the times that their holders expect");
    browser.command("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    browser.go(&format!("{page}/queue"));
    browser.fill("#filter", "copies");
    browser.click("form.filter button");
    browser.wait("the filter", || browser.url().ends_with("/queue?pool=copies").then_some(()));
    assert!(browser.text().contains("No request waits."), "{}", browser.text());
    browser.command("Emulation.setScriptExecutionDisabled", &json!({ "value": false }));
    // An open tab shows that the line moves on.
    browser.go(&format!("{page}/queue?pool=hosts"));
    browser.reads("pool hosts: 3 requests");
    farm.release(&line[1].id, pb::Outcome::Ok);
    browser.reads("pool hosts: 2 requests");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // The command line says the same.
    let said = |args: &[&str]| {
        let output = farm.server.cli(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = said(&["queue", "--pool", "hosts"]);
    let at = |id: &str| table.find(id).unwrap_or_else(|| panic!("no {id} in {table}"));
    assert!(at(&line[0].id) < at(&line[2].id) && table.contains(" min"), "{table}");
    let listed = farm.server.json(&["queue"]);
    assert_eq!(listed["requests"][0]["lease"]["id"], line[0].id, "{listed}");
    assert_eq!(listed["requests"][0]["likely_start"]["basis"], "2 slots, by the times that their holders expect");
    assert_eq!((&listed["classes"][0]["wants"], &listed["classes"][0]["requests"]), (&json!("pool hosts"), &json!(2)));
    for verb in ["explain", "why"] {
        let text = said(&[verb, &line[0].id]);
        assert!(text.contains("likely start: in ") && text.contains("2 slots"), "{verb}: {text}");
    }
}

/// A page of another address posts a form, frames and fetches; a name that leads here reads. All of it is refused, and the trail has none.
fn strangers(farm: &Farm, browser: &Browser, page: &str, host: &pb::Resource) {
    let act = format!("{page}/resources/{}/act/cordon", host.id);
    let html = format!(
        "<!DOCTYPE html><title>evil</title><iframe id=frame src='{page}/'></iframe>
         <form id=form method=post action='{act}'><input name=reason value=evil><input name=once value=1></form>"
    );
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n";
            let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{html}", html.len());
        }
    });
    let before = farm.revision();
    browser.go(&format!("http://{address}/"));
    let read = browser.script_async(&format!(
        "const done = arguments[arguments.length - 1];
         fetch('{page}/pools', {{ credentials: 'include' }}).then((r) => r.text()).then((t) => done('read ' + t.length), (e) => done('refused'));"
    ));
    assert_eq!(read, "refused");
    let posted = browser.script_async(&format!(
        "const done = arguments[arguments.length - 1];
         fetch('{act}', {{ method: 'POST', mode: 'no-cors', body: new URLSearchParams({{ reason: 'evil' }}) }}).then((r) => done(r.type), (e) => done('refused'));"
    ));
    assert!(posted == "opaque" || posted == "refused", "{posted}");
    browser.script("document.getElementById('form').submit()");
    browser.reads("This request comes from another site");
    // A name of an attacker that leads to this machine.
    browser.go(&page.replace("127.0.0.1", "evil.test"));
    browser.reads("host name that the page does not go by");
    let bad =
        farm.events(before).into_iter().find(|event| event.kind.contains("cordon") || event.detail.contains("evil"));
    assert_eq!(bad, None);
    assert!(!farm.resource(&host.id).cordoned);
    browser.complaints();
}

fn with_a_preview(farm: &Farm, browser: &Browser, page: &str, host: &pb::Resource, lease: &pb::Lease) {
    browser.look(1280, "light");
    browser.go(&format!("{page}/resources/{}", host.id));
    browser.click(&format!("ul.verbs a[href$='/{}/act/drain']", host.id));
    browser.reads("With a deadline it would break 1 lease of 1 holder; 1 copy goes with it");
    let text = browser.text();
    assert!(text.contains(&lease.id) && text.contains("<script>"), "{text}");
    picture(browser, "drain", 1280, "light");
    // Without a reason the browser itself does not send it.
    browser.click("form.act button");
    assert_eq!(farm.resource(&host.id).state(), ResourceState::Ready);
    browser.fill("#reason", "new kernel");
    browser.click("form.act button");
    browser.reads("Done: drain");
    browser.reads("DRAINING");
    let after = farm.resource(&host.id);
    assert_eq!(after.state(), ResourceState::Draining);
    assert_eq!(farm.get(&lease.id).state(), LeaseState::Active, "the lease runs on");
    let by_call = |event: &pb::Event| event.caller.as_ref().is_some_and(|caller| caller.method == "Drain");
    let told = farm.events(0).into_iter().find(by_call).expect("an entry of the call");
    assert!(told.detail.contains("new kernel") && told.actor.contains("local"), "{told:?}");
    browser.click(&format!("ul.verbs a[href$='/{}/act/undrain']", host.id));
    browser.click("form.act button");
    browser.reads("Done: undrain");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn without_a_script(farm: &Farm, browser: &Browser, page: &str, host: &pb::Resource) {
    browser.command("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    browser.go(page);
    assert!(browser.text().contains("Pools"), "{}", browser.text());
    browser.click("nav.side a[href='/resources']");
    browser.wait("the list", || browser.url().ends_with("/resources").then_some(()));
    browser.click(&format!("a[href='/resources/{}']", host.id));
    browser.click(&format!("ul.verbs a[href$='/{}/act/cordon']", host.id));
    browser.fill("#reason", "by hand");
    browser.click("form.act button");
    browser.reads("Done: cordon");
    assert_eq!(farm.resource(&host.id).cordon_reason, "by hand");
    assert!(!browser.script("return document.querySelector('time[data-ago]') !== null").as_bool().unwrap());
    browser.command("Emulation.setScriptExecutionDisabled", &json!({ "value": false }));
}

fn hosts_of(farm: &Farm) -> Vec<pb::Resource> {
    let request = pb::ListResourcesRequest { pools: vec!["hosts".into()], ..pb::ListResourcesRequest::default() };
    let mut admin = farm.client.admin();
    farm.runtime.block_on(admin.list_resources(request)).unwrap().into_inner().resources
}

/// Boxes that are selected stay selected while the farm changes, and the verb is carried out on each of them.
fn several_at_once(farm: &Farm, browser: &Browser, page: &str) {
    browser.look(1280, "light");
    browser.go(&format!("{page}/resources?pool=hosts"));
    browser.wait("two boxes", || {
        (browser.script("return document.querySelectorAll('.bulk input[type=checkbox]').length") == 2).then_some(())
    });
    let boxes = "[...document.querySelectorAll('.bulk input[type=checkbox]')]";
    browser.script(&format!("{boxes}.forEach((box) => box.click()); document.activeElement?.blur()"));
    let before = browser.script("return document.body.dataset.revision");
    let done = farm.server.cli(&["cordon", "--pool", "hosts", "--reason", "a change for the tab"]);
    assert!(done.status.success(), "{done:?}");
    browser.wait("the change", || (browser.script("return document.body.dataset.revision") != before).then_some(()));
    assert!(farm.server.cli(&["uncordon", "--pool", "hosts"]).status.success());
    assert_eq!(browser.script(&format!("return {boxes}.filter((box) => box.checked).length")), 2);
    browser.script("document.querySelector('.bulk select').value = 'cordon'");
    browser.click(".bulk button:not([name])");
    browser.reads("Cordon 2 resources?");
    picture(browser, "several", 1280, "light");
    browser.fill("#reason", "a new switch");
    browser.click("form.act button");
    browser.reads("Cordon: 2 done");
    let hosts = hosts_of(farm);
    assert!(hosts.iter().all(|host| host.cordon_reason.starts_with("a new switch (batch ")), "{hosts:?}");
    let mut args = vec!["uncordon"];
    args.extend(hosts.iter().map(|host| &*host.id));
    args.push("hosts/nothing");
    let output = farm.server.cli(&args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("hosts/nothing: "), "{output:?}");
    assert!(hosts_of(farm).iter().all(|host| !host.cordoned), "a refusal ends none of the others: {said}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn look_at_each(browser: &Browser, programs: &Programs, page: &str, [host, lease, waits]: &[&str; 3]) {
    let screens = [
        "/".to_owned(),
        "/pools".into(),
        "/pools/hosts".into(),
        "/resources".into(),
        format!("/resources/{host}"),
        format!("/resources/{host}/act/recycle"),
        "/leases".into(),
        format!("/leases/{lease}"),
        format!("/leases/{waits}"),
        "/queue".into(),
        "/events".into(),
        "/map?by=zone".into(),
        "/spot-stats".into(),
        "/bulk?verb=recycle&all=1".into(),
        "/servers".into(),
        "/nothing".into(),
    ];
    let mut findings = Vec::new();
    for (width, scheme) in [(1280, "light"), (360, "dark")] {
        browser.look(width, scheme);
        for screen in &screens {
            browser.go(&format!("{page}{screen}"));
            let wide = browser.script("return document.documentElement.scrollWidth").as_u64().unwrap();
            assert!(wide <= u64::from(width), "{screen} is {wide} wide at {width}");
            for found in browser.findings(programs) {
                findings.push(format!("{screen} {scheme}: {found}"));
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    let complaints: Vec<String> = browser.complaints().into_iter().filter(|line| !line.contains("404")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// Takes a picture; `BLESS=1` puts it into the documents.
fn picture(browser: &Browser, name: &str, width: u32, scheme: &str) {
    browser.look(width, scheme);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = match std::env::var_os("BLESS") {
        Some(_) => root.join("docs/page"),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("page"),
    };
    browser.picture(&folder.join(format!("{name}-{scheme}-{width}.png")));
}
