//! Sends glommio's setup of io_uring instances to `io/src/ring_setup.rs`, which says why.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = std::env::var("CARGO_CFG_TARGET_OS");
    if target.is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup");
    }
}
