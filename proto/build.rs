//! Compiles the wire contract with a compiler in pure Rust, so that no `protoc` is needed, and hands the same
//! descriptors to the generated code and to reflection.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 19] = [
    "belay/v1/place.proto",
    "belay/v1/reference.proto",
    "belay/v1/host.proto",
    "belay/v1/order.proto",
    "belay/v1/host_agent.proto",
    "belay/v1/agent_process.proto",
    "belay/v1/task.proto",
    "belay/v1/batch.proto",
    "belay/v1/enrolment.proto",
    "belay/v1/user.proto",
    "belay/v1/access_key.proto",
    "belay/v1/audit.proto",
    "belay/v1/diagnosis.proto",
    "belay/v1/trust.proto",
    "belay/agent/v1/agent.proto",
    "belay/agent/v1/control.proto",
    "belay/agent/v1/introduction.proto",
    "belay/fleet/v1/fleet.proto",
    "belay/fleet/v1/join.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=belay");
    println!("cargo:rerun-if-changed=google");

    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Options such as `google.api.http` survive only in the bytes, not in the typed set that feeds the generator.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let contract = compiler.file_descriptor_set();
    let mut rpcs = String::from("&[\n");
    for file in contract.file.iter() {
        for service in &file.service {
            for method in &service.method {
                rpcs += &format!("    \"/{}.{}/{}\",\n", file.package(), service.name(), method.name());
            }
        }
    }
    fs::write(out.join("rpcs.rs"), rpcs + "]\n")?;

    tonic_prost_build::configure().compile_fds(contract)?;
    Ok(())
}
