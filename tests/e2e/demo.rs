//! The demonstration of the README, with the program of this build.

use crate::support::text;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Cargo builds into the folder that its user has chosen, and the script finds the program there.
#[test]
fn the_demo_runs_with_another_target_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (bin, built, origin) = (folder.path().join("bin"), folder.path().join("built"), folder.path().join("origin"));
    for made in [&bin, &origin] {
        std::fs::create_dir(made).unwrap();
    }
    // Cargo that has built already.
    let cargo = bin.join("cargo");
    let script = "#!/bin/sh\nset -e\n[ \"$1\" = build ] || exec \"$REAL_CARGO\" \"$@\"\n\
                  mkdir -p \"$CARGO_TARGET_DIR/demo\"\nln -sf \"$BUILT\" \"$CARGO_TARGET_DIR/demo/wharfinger\"\n";
    std::fs::write(&cargo, script).unwrap();
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();
    let made = Command::new("sh")
        .args(["-ec", "git init -q -b main; echo a >a; git add a; git -c user.name=t -c user.email=t@t commit -qm a"])
        .current_dir(&origin)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));

    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("demo.sh"))
        .arg(&origin)
        .env("PATH", path)
        .env("REAL_CARGO", env!("CARGO"))
        .env("BUILT", env!("CARGO_BIN_EXE_wharfinger"))
        .env("CARGO_TARGET_DIR", &built)
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    for words in ["saboteur | removed .git", "built on token", "the build succeeded without a hand"] {
        assert!(told.contains(words), "{words}: {told}");
    }
}
