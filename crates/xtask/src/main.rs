//! Development commands of Sigillo: `cargo xtask demo|test|bench|drill`.

fn main() {}
