use super::*;

fn shown(token: &AuthToken) -> String {
    token.0.to_str().unwrap().to_owned()
}

/// A token without a signature that expires after this number of seconds.
fn token(seconds: u64) -> String {
    let at = wall().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds;
    format!("eyJh.{}.x", URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{at}}}")))
}

#[tokio::test]
async fn a_file_is_read_again_when_it_is_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let credentials = Credentials::file(&path);
    let missing = credentials.token().await.unwrap_err();
    assert!(missing.to_string().contains("cannot be read"), "{missing}");
    std::fs::write(&path, "one\n").unwrap();
    let one = credentials.token().await.unwrap();
    assert_eq!(shown(&one), "Bearer one");
    assert_eq!(credentials.token().await.unwrap(), one);
    assert_eq!(credentials.other_than(&one).await, None, "it is the same file");
    let next = folder.path().join("next");
    std::fs::write(&next, "two").unwrap();
    std::fs::rename(&next, &path).unwrap();
    assert_eq!(shown(&credentials.token().await.unwrap()), "Bearer two");
    assert_eq!(shown(&credentials.other_than(&one).await.unwrap()), "Bearer two");
    assert!(!format!("{credentials:?}").contains("two"));

    std::fs::remove_file(&path).unwrap();
    assert!(credentials.token().await.is_err(), "a token that was taken away is not sent");
    let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(status.success());
    for (path, says) in [(path.as_path(), "no regular file"), (folder.path(), "no regular file")] {
        let error = Credentials::file(path).token().await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    for text in ["", "two words", "tok\u{fc}n", &"x".repeat(20_000)] {
        std::fs::write(&next, text).unwrap();
        assert!(Credentials::file(&next).token().await.is_err(), "{text:?}");
    }
}

#[tokio::test]
async fn a_command_is_asked_once_for_the_most_of_a_token_s_time() {
    let folder = tempfile::tempdir().unwrap();
    let (count, answer) = (folder.path().join("count"), folder.path().join("answer"));
    let script = format!("echo x >> {}; cat {}", count.display(), answer.display());
    let credentials = Credentials::command(["sh", "-c", &script].map(String::from).into());
    let asked = || std::fs::read_to_string(&count).unwrap_or_default().lines().count();
    std::fs::write(&answer, token(3600)).unwrap();
    let first = credentials.token().await.unwrap();
    assert_eq!(credentials.clone().token().await.unwrap(), first);
    assert_eq!(asked(), 1);
    // A server refused it: the command is asked, and has no other.
    assert_eq!(credentials.other_than(&first).await, None);
    assert_eq!(asked(), 2);
    std::fs::write(&answer, token(0)).unwrap();
    assert!(credentials.other_than(&first).await.is_some());
    credentials.token().await.unwrap();
    assert_eq!(asked(), 4, "a token that has expired is not kept");
}

#[tokio::test]
async fn a_command_has_no_shell_and_its_faults_are_reported() {
    let command = |argv: &[&str]| Credentials::command(argv.iter().map(ToString::to_string).collect());
    assert_eq!(shown(&command(&["echo", "$HOME"]).token().await.unwrap()), "Bearer $HOME");
    for (argv, says) in [
        (&[][..], "cannot be started"),
        (&["/nowhere/program"], "cannot be started"),
        (&["false"], "failed: exit status: 1"),
        (&["true"], "printed no token"),
        (&["echo", "two", "words"], "printed no token"),
        (&["head", "-c", "20000", "/dev/zero"], "printed no token"),
    ] {
        let error = command(argv).token().await.unwrap_err();
        assert!(error.to_string().contains(says), "{argv:?}: {error}");
    }
}

#[test]
fn a_token_is_used_for_four_fifths_of_its_time() {
    let left = |text: &str| match until(text) {
        Holds::Until(at) => at - Instant::now(),
        Holds::File(_) => panic!("it is not a file"),
    };
    let about = |text: &str, seconds: u64| {
        let left = left(text);
        assert!(
            left <= Duration::from_secs(seconds) && left + Duration::from_secs(3) >= Duration::from_secs(seconds),
            "{left:?}"
        );
    };
    about(&token(300), 240);
    about(&format!("{}\n", token(300)), 240);
    about(&token(0), 0);
    for other in ["wfk_x", "eyJh.e30.x", "a.b.c", ""] {
        about(other, 300);
    }
    assert_eq!(escaped("https://w.example.org/a b&c"), "https%3A%2F%2Fw.example.org%2Fa%20b%26c");
}

#[tokio::test]
async fn github_is_asked_by_https_alone() {
    for url in ["http://127.0.0.1:1/token", "file:///etc/passwd", "", "x"] {
        let error = Credentials::github(url, "secret", "https://w", None).token().await.unwrap_err();
        assert!(error.to_string().contains("ACTIONS_ID_TOKEN_REQUEST_URL"), "{url}: {error}");
        assert!(!error.to_string().contains("secret"));
    }
}
