//! Duties of every [`Shell`].

use super::{alive, dead, sh, until};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use wharfinger_adapter::{Command, Exit, OutputSink, Shell, ShellError, Stream, quote};

/// All of them, one after the other. `dir` is an empty directory on the host that the shell may write to.
pub async fn all(shell: Arc<dyn Shell>, dir: &str) {
    exit_codes_and_signals(&*shell).await;
    streams_are_kept_apart(&*shell).await;
    arguments_arrive_as_they_are(&*shell).await;
    directory_is_honoured(&*shell, dir).await;
    missing_directory_is_not_started(&*shell, dir).await;
    unknown_program_is_not_started(&*shell).await;
    environment_is_set(&*shell).await;
    input_is_fed_and_closed(&*shell).await;
    absent_input_is_empty(&*shell).await;
    timeout_kills_the_process_group(&*shell, dir).await;
    drop_kills_the_process_group(&*shell, dir).await;
    background_children_do_not_hold_the_end_up(&*shell, dir).await;
    much_output_streams_through(&*shell).await;
    collected_output_keeps_its_end(&*shell).await;
    slow_reader_slows_the_command_and_nobody_else(&*shell, dir).await;
    reader_that_goes_away_does_not_hang(&*shell).await;
    commands_run_side_by_side(&*shell).await;
    files_go_there_and_back(&*shell, dir).await;
    file_errors_are_said(&*shell, dir).await;
}

/// Exit codes and signals arrive as they are.
pub async fn exit_codes_and_signals(shell: &dyn Shell) {
    for code in [0, 1, 42, 126, 127, 255] {
        let output = shell.run(Command::sh(format!("exit {code}"))).await.expect("sh runs");
        assert_eq!(output.exit, Exit::Code(code));
    }
    for signal in ["TERM", "KILL"] {
        let output = shell.run(Command::sh(format!("kill -s {signal} $$"))).await.expect("sh runs");
        assert_eq!(output.exit, Exit::Signal(signal.to_string()));
    }
}

/// Standard output and standard error do not mix, and hold any byte.
pub async fn streams_are_kept_apart(shell: &dyn Shell) {
    let output = shell.run(Command::sh(r"printf 'out\000\377\n'; printf 'err\001\n' >&2")).await.expect("sh runs");
    assert_eq!(output.stdout, b"out\x00\xff\n");
    assert_eq!(output.stderr, b"err\x01\n");
    assert_eq!(output.exit, Exit::Code(0));
}

/// No argument is split, expanded or taken for an option.
pub async fn arguments_arrive_as_they_are(shell: &dyn Shell) {
    let hard = [
        "",
        " ",
        "a b",
        "it's",
        "\"q\"",
        "$HOME",
        "$(id)",
        "`id`",
        "--",
        "-n",
        "*",
        "~",
        "\\",
        "\\n",
        "\\c",
        "%s",
        "!history",
        "line\nbreak\n",
        "tab\there",
        "#",
        "a;b&c|d>e<f",
        "ünïcödé ✓",
        "{a,b}",
        "'",
        "\\'",
    ];
    let mut argv = vec!["/bin/sh", "-c", r#"for a in "$@"; do printf '%s\0' "$a"; done"#, "sh"];
    argv.extend(hard);
    let output = shell.run(Command::new(argv)).await.expect("sh runs");
    let got: Vec<_> = output.stdout.split(|b| *b == 0).map(|b| String::from_utf8_lossy(b).into_owned()).collect();
    assert_eq!(got[..got.len() - 1], hard, "stderr: {}", output.complaint());
}

/// The command runs in its directory, whatever the directory's name is.
pub async fn directory_is_honoured(shell: &dyn Shell, dir: &str) {
    let odd = format!("{dir}/it's a $dir\n-n");
    sh(shell, &format!("mkdir -p -- {}", quote(&odd))).await;
    let output = shell.run(Command::sh("pwd; echo x").cwd(&odd)).await.expect("sh runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{odd}\nx\n"));
    let output = shell.run(Command::sh("pwd; cd; pwd")).await.expect("sh runs");
    let text = output.text();
    let mut lines = text.lines();
    assert_eq!(lines.next(), lines.next(), "without a directory, the home directory it is");
}

/// A directory that is not there is an error of its own, apart from what the command may answer.
pub async fn missing_directory_is_not_started(shell: &dyn Shell, dir: &str) {
    let result = shell.run(Command::sh("echo never").cwd(format!("{dir}/no-such-directory"))).await;
    assert!(matches!(result, Err(ShellError::NotStarted(_))), "{result:?}");
}

/// So is a program that is not there; a program that ends with 127 by itself is not.
pub async fn unknown_program_is_not_started(shell: &dyn Shell) {
    for program in ["no-such-program-8d1f", "/no/such/program"] {
        let result = shell.run(Command::new([program, "--version"])).await;
        assert!(matches!(result, Err(ShellError::NotStarted(_))), "{program}: {result:?}");
    }
    let result = shell.run(Command::default()).await;
    assert!(matches!(result, Err(ShellError::NotStarted(_))), "an empty command: {result:?}");
    let result = shell.run(Command::new(["echo", "nul\0byte"])).await;
    assert!(matches!(result, Err(ShellError::NotStarted(_))), "a NUL byte: {result:?}");
}

/// Variables arrive as they are; names that no shell could hold are refused.
pub async fn environment_is_set(shell: &dyn Shell) {
    let hard = "it's \"a\" $HOME `x` \\ \n line, ünï";
    let output = shell
        .run(Command::sh(r#"printf '%s|%s' "$ONE" "$TWO""#).env("ONE", hard).env("TWO", ""))
        .await
        .expect("sh runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{hard}|"));
    let result = shell.run(Command::sh("true").env("NOT A NAME", "x")).await;
    assert!(matches!(result, Err(ShellError::NotStarted(_))), "{result:?}");
}

/// Standard input arrives whole, and ends.
pub async fn input_is_fed_and_closed(shell: &dyn Shell) {
    let content: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let output = shell.run(Command::new(["wc", "-c"]).stdin(content.clone())).await.expect("wc runs");
    assert_eq!(output.text(), content.len().to_string());
    let small = content[..300_000].to_vec();
    let output = shell.run(Command::new(["cat"]).stdin(small.clone())).await.expect("cat runs");
    assert!(output.stdout == small, "cat changed its input");
    // A command that does not read its input must not hang, nor fail for it.
    let output = shell.run(Command::sh("exit 3").stdin(content)).await.expect("sh runs");
    assert_eq!(output.exit, Exit::Code(3));
}

/// Without input, a command that reads sees the end at once.
pub async fn absent_input_is_empty(shell: &dyn Shell) {
    let output = shell.run(Command::new(["cat"]).timeout(Duration::from_secs(20))).await.expect("cat runs");
    assert_eq!((output.exit, output.stdout), (Exit::Code(0), Vec::new()));
}

fn channel(room: usize) -> (OutputSink, mpsc::Receiver<(Stream, Bytes)>) {
    mpsc::channel(room)
}

/// Leaves three processes in the group: the command itself, a child that ignores SIGHUP, and a grandchild in the
/// background that ignores SIGTERM as well. Their ids are in `<dir>/<name>.{1,2,3}`.
fn family(dir: &str, name: &str) -> Command {
    let base = quote(&format!("{dir}/{name}"));
    Command::sh(format!(
        "rm -f {base}.*; echo $$ >{base}.1\n\
         nohup sh -c 'trap \"\" HUP; echo $$ >{base}.2; exec sleep 300' >/dev/null 2>&1 &\n\
         (sh -c 'trap \"\" HUP TERM; echo $$ >{base}.3; while :; do sleep 1; done' &) &\n\
         while ! [ -s {base}.2 ] || ! [ -s {base}.3 ]; do sleep 0.05; done\n\
         echo started\n\
         sleep 300"
    ))
}

async fn family_is_dead(shell: &dyn Shell, dir: &str, name: &str) {
    for member in 1..=3 {
        let file = quote(&format!("{dir}/{name}.{member}"));
        until(shell, &format!("{name}: process {member} of the group is killed"), &dead(&file)).await;
    }
}

/// The timeout ends everything that the command started, and what it printed is still there.
pub async fn timeout_kills_the_process_group(shell: &dyn Shell, dir: &str) {
    let begun = Instant::now();
    let output = shell.run(family(dir, "timeout").timeout(Duration::from_secs(3))).await.expect("sh runs");
    assert_eq!(output.exit, Exit::TimedOut);
    assert_eq!(output.text(), "started");
    assert!(begun.elapsed() >= Duration::from_secs(3), "timed out too early: {:?}", begun.elapsed());
    family_is_dead(shell, dir, "timeout").await;
}

/// Dropping the future ends everything that the command started.
pub async fn drop_kills_the_process_group(shell: &dyn Shell, dir: &str) {
    let (tx, mut rx) = channel(16);
    let running = shell.stream(family(dir, "drop"), tx);
    tokio::select! {
        ended = running => panic!("it ended by itself: {ended:?}"),
        chunk = rx.recv() => assert_eq!(chunk, Some((Stream::Stdout, Bytes::from_static(b"started\n")))),
    }
    family_is_dead(shell, dir, "drop").await;
}

/// A daemon that a command leaves behind with its output still open does not keep the command from ending, and lives.
pub async fn background_children_do_not_hold_the_end_up(shell: &dyn Shell, dir: &str) {
    let file = quote(&format!("{dir}/left-behind"));
    let begun = Instant::now();
    let output =
        shell.run(Command::sh(format!("sleep 60 & echo $! >{file}; echo done; exit 5"))).await.expect("sh runs");
    assert_eq!((output.text().as_str(), output.exit), ("done", Exit::Code(5)));
    assert!(begun.elapsed() < Duration::from_secs(30), "held up for {:?}", begun.elapsed());
    until(shell, "what a command left behind lives on", &alive(&file)).await;
    sh(shell, &format!("kill $(cat {file})")).await;
}

/// Five megabytes stream through, in order and whole.
pub async fn much_output_streams_through(shell: &dyn Shell) {
    let (tx, mut rx) = channel(4);
    let command = Command::sh("i=0; while [ $i -lt 50000 ]; do i=$((i+1)); printf '%0100d' $i; done; echo end >&2");
    let count = async {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some((stream, bytes)) = rx.recv().await {
            match stream {
                Stream::Stdout => out.extend_from_slice(&bytes),
                Stream::Stderr => err.extend_from_slice(&bytes),
            }
        }
        (out, err)
    };
    let (exit, (out, err)) = futures::future::join(shell.stream(command, tx), count).await;
    assert_eq!(exit, Ok(Exit::Code(0)));
    assert_eq!((out.len(), err.as_slice()), (5_000_000, b"end\n".as_slice()));
    for (number, piece) in out.chunks(100).enumerate() {
        let value: usize = std::str::from_utf8(piece).expect("digits").parse().expect("a number");
        assert_eq!(value, number + 1, "the output is out of order or has a hole");
    }
}

/// `run` keeps the last megabyte of each stream.
pub async fn collected_output_keeps_its_end(shell: &dyn Shell) {
    let output = shell.run(Command::sh("head -c 5000000 /dev/zero; echo the end")).await.expect("sh runs");
    assert_eq!(output.exit, Exit::Code(0));
    assert!(output.stdout.ends_with(b"the end\n"), "the end is lost");
    assert!((1 << 20..5_000_000).contains(&output.stdout.len()), "kept {} bytes", output.stdout.len());
}

/// A reader that reads nothing stops the command, not the memory; and other commands on the host do not wait for it.
pub async fn slow_reader_slows_the_command_and_nobody_else(shell: &dyn Shell, dir: &str) {
    const PIECES: usize = 640;
    let progress = quote(&format!("{dir}/progress"));
    let command = Command::sh(format!(
        "i=0; while [ $i -lt {PIECES} ]; do head -c 65536 /dev/zero; i=$((i+1)); echo $i >{progress}; done"
    ));
    let (tx, mut rx) = channel(1);
    let watch = async {
        let first = rx.recv().await.expect("it prints something");
        let mut total = first.1.len();
        // Wait until it stands still: the same figure ten times in a row.
        let (mut last, mut same) = (String::new(), 0);
        let begun = Instant::now();
        while same < 10 {
            assert!(begun.elapsed() < Duration::from_secs(60), "it never stands still");
            let line = format!("cat {progress} 2>/dev/null || echo 0");
            let now = timeout(Duration::from_secs(10), sh(shell, &line)).await;
            let now = now.expect("other commands wait for the slow reader");
            same = if now == last { same + 1 } else { 0 };
            last = now;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let stood_at: usize = last.parse().unwrap_or(PIECES);
        assert!(stood_at < PIECES, "40 MB went somewhere though nobody read them");
        while let Some((_, bytes)) = rx.recv().await {
            total += bytes.len();
        }
        total
    };
    let (exit, total) = futures::future::join(shell.stream(command, tx), watch).await;
    assert_eq!((exit, total), (Ok(Exit::Code(0)), PIECES * 65536));
}

/// A reader that is gone is no reason to hang: the command runs to its end, its output is thrown away.
pub async fn reader_that_goes_away_does_not_hang(shell: &dyn Shell) {
    let (tx, rx) = channel(1);
    drop(rx);
    let command = Command::sh("head -c 3000000 /dev/zero; exit 9").timeout(Duration::from_secs(60));
    assert_eq!(shell.stream(command, tx).await, Ok(Exit::Code(9)));
}

/// Several commands at once do not get into each other's way.
pub async fn commands_run_side_by_side(shell: &dyn Shell) {
    let runs = (0..12).map(|i| async move { sh(shell, &format!("sleep 0.2; echo {i}")).await });
    let got = futures::future::join_all(runs).await;
    assert_eq!(got, (0..12).map(|i| i.to_string()).collect::<Vec<_>>());
}

/// A file comes back as it was put, with its mode; a second `put` replaces it.
pub async fn files_go_there_and_back(shell: &dyn Shell, dir: &str) {
    let path = format!("{dir}/it's a file\n$x");
    let content: Bytes = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    for (content, mode) in [(content.clone(), 0o755), (Bytes::from_static(b"a\0b\r\n"), 0o600), (Bytes::new(), 0o644)] {
        shell.put(&path, content.clone(), mode).await.expect("put");
        assert_eq!(sh(shell, &format!("stat -c %a -- {}", quote(&path))).await, format!("{mode:o}"));
        assert!(shell.get(&path, content.len()).await.expect("get") == content, "the content changed");
    }
    let left = sh(shell, &format!("ls -A {} | wc -l", quote(&format!("{dir}/")))).await;
    shell.put(&path, content, 0o644).await.expect("put");
    let now = sh(shell, &format!("ls -A {} | wc -l", quote(&format!("{dir}/")))).await;
    assert_eq!(left, now, "put leaves files behind");
}

/// Files that cannot be read or written are errors, and so are those over the limit.
pub async fn file_errors_are_said(shell: &dyn Shell, dir: &str) {
    let path = format!("{dir}/limited");
    shell.put(&path, Bytes::from_static(b"0123456789"), 0o644).await.expect("put");
    assert_eq!(shell.get(&path, 10).await.expect("get").len(), 10);
    for (path, limit) in [(path.as_str(), 9), ("/no/such/file", 10), (dir, 10)] {
        let result = shell.get(path, limit).await;
        assert!(matches!(result, Err(ShellError::File(_))), "get {path} limit {limit}: {result:?}");
    }
    let result = shell.put("/no/such/directory/file", Bytes::from_static(b"x"), 0o644).await;
    assert!(matches!(result, Err(ShellError::File(_))), "{result:?}");
}
