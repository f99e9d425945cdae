//! One target under libFuzzer. Started by `cargo fuzz-decoders run`, which gives it the coverage flags and says which
//! target in the environment variable `GRACCHUS_FUZZ_TARGET`.
//!
//! Never: part of a plain build (it needs the feature `libfuzzer`).
#![no_main]

use std::sync::LazyLock;

use gracchus_fuzz::Target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("GRACCHUS_FUZZ_TARGET").expect("GRACCHUS_FUZZ_TARGET names the target");
    Target::named(&name).unwrap_or_else(|| panic!("there is no target {name}"))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _accepted = TARGET.check(input);
});
