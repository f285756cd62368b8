//! Compiles the stored formats. They live beside the API's protos so that one `buf` run checks both.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    let files = [
        "shockabsorber/storage/v1/value.proto",
        "shockabsorber/storage/v1/event.proto",
        "shockabsorber/storage/v1/dead_letter.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={root}/{file}");
    }
    let descriptors = protox::compile(files, [root])?;
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
