//! Tells the lb-agent binary where the eBPF object is, or that it is missing.
//!
//! The object is built by `cargo xtask build-ebpf`, never from here: a build script that runs cargo again hides its
//! errors and its toolchain. The library builds without the object, so that xtask, which links it, can make one.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(lb_ebpf_object)");
    println!("cargo::rerun-if-changed=build.rs");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let object = manifest.join("../target/bpf/lb.o");
    if object.is_file() {
        // Its content is followed by the binary that includes it. Following it from here too would build the library,
        // and all that links it, anew with each change of the packet path.
        println!("cargo::rustc-cfg=lb_ebpf_object");
        println!("cargo::rustc-env=LB_EBPF_OBJECT={}", object.display());
    } else {
        // A file that is absent makes cargo ask again with each build, until it is there.
        println!("cargo::rerun-if-changed={}", object.display());
    }
}
