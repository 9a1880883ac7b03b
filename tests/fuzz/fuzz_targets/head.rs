#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sigillo_fuzz::points::head(bytes));
