//! What bodies of REST requests say.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    belay_gateway::fuzzing::bodies(data);
});
