//! The code in `client/src/pb` is what `proto/` says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use prost::Message;
use std::path::Path;

const REMEDY: &str = "WHARFINGER_REGENERATE=1 cargo test --workspace --test generated";

/// The generated code and the descriptors.
fn generate() -> (Vec<u8>, Vec<u8>) {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let names = ["types", "lease", "admin", "trust"].map(|name| format!("wharfinger/v1/{name}.proto"));
    let files = protox::compile(names, [proto]).unwrap();
    let descriptors = files.encode_to_vec();
    let folder = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(folder.path())
        .emit_rerun_if_changed(false)
        .server_mod_attribute(".", "#[cfg(any(feature = \"server\", test))]")
        // `src/pb.rs` prints it without its values.
        .skip_debug(["wharfinger.v1.Credentials"])
        .compile_fds(files)
        .unwrap();
    (std::fs::read(folder.path().join("wharfinger.v1.rs")).unwrap(), descriptors)
}

#[test]
fn the_generated_code_is_that_of_the_api() {
    let (code, descriptors) = generate();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/pb");
    for (name, fresh) in [("generated.rs", code), ("descriptors.binpb", descriptors)] {
        let path = folder.join(name);
        if std::env::var_os("WHARFINGER_REGENERATE").is_some() {
            std::fs::write(&path, &fresh).unwrap();
        }
        let stored = std::fs::read(&path).unwrap_or_default();
        assert!(stored == fresh, "{} is older than proto/; mend it: {REMEDY}", path.display());
    }
}
