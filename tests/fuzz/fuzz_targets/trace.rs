//! The trace that a request comes with.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    belay_proto::fuzzing::trace(data);
    belay_gateway::fuzzing::trace(data);
});
