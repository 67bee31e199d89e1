//! What paths, queries and headers of REST requests say.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    belay_gateway::fuzzing::path_and_query(data);
});
