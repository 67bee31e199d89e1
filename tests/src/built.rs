//! Binaries of this package for its examples.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The path of a binary of this package. Cargo builds those for tests and benchmarks, and not for examples.
pub fn built(name: &str) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--bin", name]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo runs").success(), "`{name}` is not built");
    let own = env::current_exe().expect("a path");
    let folder = own.parent().and_then(Path::parent).map(PathBuf::from).expect("the folder of the binaries");
    folder.join(name).display().to_string()
}
