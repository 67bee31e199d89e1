//! What the fuzz targets in `tests/fuzz` call. Each takes any bytes, and panics where something does not hold.

use std::collections::BTreeSet;

use crate::{
    config::{Config, Plan},
    journal,
};

/// What is wrong with a configuration is said; what is read is the same each time, names every process once, and is no other
/// than itself.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let config = match Config::parse(text) {
        Err(told) => return assert!(!told.is_empty()),
        Ok(config) => config,
    };
    let aliases: BTreeSet<_> = config.processes.iter().map(|process| &process.alias).collect();
    assert_eq!(aliases.len(), config.processes.len());
    for process in &config.processes {
        assert!(process.after.iter().all(|before| *before != process.alias && aliases.contains(before)));
    }
    let again = Config::parse(text).expect("it was read before");
    assert_eq!(Plan::new(&config, &again), Plan::default());
    if let Err(error) = config.validate() {
        assert!(!error.to_string().is_empty());
    }
}

/// A journal on a disk that tears and damages.
pub fn journal(data: &[u8]) {
    journal::fuzzing::journal(data);
}
