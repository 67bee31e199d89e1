//! The agent's journal, on a disk that tears and damages.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    belay_agent::fuzzing::journal(data);
});
