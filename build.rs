//! Compiles the API with protox, so that no protoc is needed, and writes the descriptor set for reflection.

use prost::Message;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(
        ["wharfinger/v1/types.proto", "wharfinger/v1/lease.proto", "wharfinger/v1/admin.proto"],
        ["proto"],
    )?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("wharfinger.v1.binpb"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_server(std::env::var_os("CARGO_FEATURE_SERVER").is_some())
        .build_transport(true)
        // `src/pb.rs` prints it without its values.
        .skip_debug(["wharfinger.v1.Credentials"])
        .compile_fds(files)?;
    Ok(())
}
