//! What is signed of a request, made by the gateway and read by the server.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(signed) = belay_gateway::fuzzing::signature(data)
        && let Some(read) = belay_server::fuzzing::statement(&signed.text)
    {
        assert_eq!(read, (signed.method, signed.path));
    }
    belay_server::fuzzing::statement(data);
    if let Ok(text) = std::str::from_utf8(data) {
        belay_server::fuzzing::authorization(text.trim_ascii_end());
    }
});
