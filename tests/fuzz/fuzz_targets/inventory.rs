//! What agents say to the server.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    belay_server::fuzzing::inventory(data);
});
