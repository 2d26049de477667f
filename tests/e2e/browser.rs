//! Debian's Chromium, driven by WebDriver over loopback. One browser a value; it ends with it.

use crate::support::{PATIENCE, free_port};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The programs, and the file of axe-core.
pub(crate) struct Programs {
    chromium: PathBuf,
    driver: PathBuf,
    pub(crate) axe: String,
}

/// The programs that `./test.sh` has installed.
pub(crate) fn programs() -> Option<Programs> {
    let (chromium, driver) = (PathBuf::from("/usr/bin/chromium"), PathBuf::from("/usr/bin/chromedriver"));
    let axe = std::fs::read_to_string(std::env::var_os("WHARFINGER_AXE")?).ok()?;
    (chromium.exists() && driver.exists()).then_some(Programs { chromium, driver, axe })
}

/// A browser with one tab.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // The browser ends with its session.
            let _ = request(self.port, "DELETE", &format!("/session/{}", self.session), None);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// One request to the driver.
fn request(port: u16, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = Vec::new();
    let mut part = [0; 65_536];
    // The driver may keep the connection open, so that the length counts.
    loop {
        let read = stream.read(&mut part).ok()?;
        answer.extend_from_slice(&part[..read]);
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let length = head.and_then(|end| {
            let text = String::from_utf8_lossy(&answer[..end]).to_lowercase();
            text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok())
        });
        if let (Some(end), Some(length)) = (head, length)
            && answer.len() >= end + 4 + length
        {
            return serde_json::from_slice(&answer[end + 4..end + 4 + length]).ok();
        }
        if read == 0 {
            return None;
        }
    }
}

impl Browser {
    /// Starts one. Names resolve to nothing, but those of `names`, which are this machine: no request leaves it.
    pub(crate) fn start(programs: &Programs, names: &[&str]) -> Self {
        let (profile, port) = (tempfile::tempdir().unwrap(), free_port());
        let driver = Command::new(&programs.driver)
            .arg(format!("--port={port}"))
            .arg("--allowed-ips=127.0.0.1")
            .env("HOME", profile.path())
            .env("TMPDIR", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut browser = Self { driver, port, session: String::new(), _profile: profile };
        let begun = Instant::now();
        while request(port, "GET", "/status", None).is_none_or(|status| status["value"]["ready"] != true) {
            assert!(begun.elapsed() < PATIENCE, "chromedriver does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        let mapped: String = names.iter().map(|name| format!("MAP {name} 127.0.0.1, ")).collect();
        let args = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            format!("--user-data-dir={}", browser._profile.path().join("profile").display()),
            format!("--host-resolver-rules={mapped}MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE 127.0.0.2"),
        ]);
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": programs.chromium, "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": 30_000, "pageLoad": 30_000 },
        } } });
        let answer = request(port, "POST", "/session", Some(&wanted)).expect("an answer of chromedriver");
        browser.session = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        browser
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let answer = request(self.port, method, &format!("/session/{}{path}", self.session), body)
            .ok_or_else(|| format!("no answer to {path}"))?;
        match answer["value"]["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", answer["value"]["message"].as_str().unwrap_or_default())),
            None => Ok(answer["value"].clone()),
        }
    }

    /// Opens an address, and waits until it is there.
    pub(crate) fn go(&self, url: &str) {
        self.ask("POST", "/url", Some(&json!({ "url": url }))).unwrap();
    }

    /// Runs a script, and returns what it returns.
    pub(crate) fn script(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", Some(&json!({ "script": script, "args": [] }))).unwrap()
    }

    /// Runs a script that calls its last argument with its result.
    pub(crate) fn script_async(&self, script: &str) -> Value {
        self.ask("POST", "/execute/async", Some(&json!({ "script": script, "args": [] }))).unwrap()
    }

    /// Sends a command of the browser's own protocol.
    pub(crate) fn command(&self, command: &str, parameters: &Value) -> Value {
        self.ask("POST", "/goog/cdp/execute", Some(&json!({ "cmd": command, "params": parameters }))).unwrap()
    }

    /// Opens another tab, and goes on in it.
    pub(crate) fn tab(&self) {
        let opened = self.ask("POST", "/window/new", Some(&json!({ "type": "tab" }))).unwrap();
        self.ask("POST", "/window", Some(&json!({ "handle": opened["handle"] }))).unwrap();
    }

    fn find(&self, css: &str) -> Option<String> {
        let found = self.ask("POST", "/element", Some(&json!({ "using": "css selector", "value": css }))).ok()?;
        found.as_object()?.values().next()?.as_str().map(str::to_owned)
    }

    /// Clicks on the first element of this selector, once it is there.
    pub(crate) fn click(&self, css: &str) {
        self.wait(&format!("{css} to be clicked"), || {
            let element = self.find(css)?;
            self.ask("POST", &format!("/element/{element}/click"), Some(&json!({}))).ok()
        });
    }

    /// Types into a field.
    pub(crate) fn fill(&self, css: &str, text: &str) {
        let element = self.find(css).unwrap_or_else(|| panic!("no {css} in {}", self.text()));
        self.ask("POST", &format!("/element/{element}/value"), Some(&json!({ "text": text }))).unwrap();
    }

    /// The text that a person reads.
    pub(crate) fn text(&self) -> String {
        self.script("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// The address.
    pub(crate) fn url(&self) -> String {
        self.ask("GET", "/url", None).unwrap().as_str().unwrap_or_default().to_owned()
    }

    /// Waits until `condition` gives something.
    pub(crate) fn wait<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = condition() {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {what} at {}:\n{}", self.url(), self.text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the page has this text.
    pub(crate) fn reads(&self, text: &str) {
        self.wait(&format!("{text:?}"), || self.text().contains(text).then_some(()));
    }

    /// Messages of the console since the last time, from warnings on.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.ask("POST", "/se/log", Some(&json!({ "type": "browser" }))).unwrap();
        let entries = log.as_array().cloned().unwrap_or_default();
        let bad = |entry: &&Value| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING"));
        entries.iter().filter(bad).map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The size of the window, and the colours that the system prefers.
    pub(crate) fn look(&self, width: u32, scheme: &str) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.command("Emulation.setDeviceMetricsOverride", &size);
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", &features);
    }

    /// Writes a picture of the screen.
    pub(crate) fn picture(&self, file: &Path) {
        let shot = self.command("Page.captureScreenshot", &json!({ "format": "png" }));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, decoded(shot["data"].as_str().unwrap())).unwrap();
    }

    /// The findings of axe-core on the page.
    pub(crate) fn findings(&self, programs: &Programs) -> Vec<String> {
        self.script(&programs.axe);
        let found = self.script_async(
            "const done = arguments[arguments.length - 1];
             axe.run(document, { resultTypes: ['violations'] }).then((r) => done(r.violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html + ' ' + n.failureSummary).join(' | ')}`)), (e) => done([String(e)]));",
        );
        found.as_array().unwrap().iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// The bytes of a text in base64.
fn decoded(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}
