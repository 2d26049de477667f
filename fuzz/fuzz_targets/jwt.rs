#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharfinger_jwt::fuzz::jwt(data));
