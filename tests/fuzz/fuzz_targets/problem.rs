//! What a gRPC status says.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    belay_proto::fuzzing::problem(data);
});
