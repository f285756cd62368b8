//! Generates client and server code from the API's protos, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "shockabsorber/v1/value.proto",
        "shockabsorber/v1/record_service.proto",
        "shockabsorber/v1/table_service.proto",
        "shockabsorber/v1/operator_service.proto",
        "shockabsorber/v1/watch_service.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rerun-if-changed=google/rpc/status.proto");
    let descriptors = protox::compile(files, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("shockabsorber.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds(descriptors)?;
    Ok(())
}
