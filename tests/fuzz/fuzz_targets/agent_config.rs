//! The agent's configuration.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    belay_agent::fuzzing::config(data);
});
