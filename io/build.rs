//! Links `io/src/ring_setup.rs` in place of liburing's ring setup; the reason stands there.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = std::env::var("CARGO_CFG_TARGET_OS");
    if target.is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup");
    }
}
