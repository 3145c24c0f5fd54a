//! The eBPF object in the binary: a director needs no other file than lb-agent to start its packet path.
//! build.rs says where the object is; `cargo xtask build-ebpf` makes it.

#[cfg(not(lb_ebpf_object))]
compile_error!(
    "the eBPF object target/bpf/lb.o is missing: run `cargo xtask build-ebpf` first, or `cargo xtask build` for all"
);

/// The ELF object of the packet path, aligned as the loader wants it.
#[cfg(lb_ebpf_object)]
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_EBPF_OBJECT")); // missing? cargo xtask build-ebpf

/// Lets the rest of the program be checked while the object is missing, so that the error above stands alone.
#[cfg(not(lb_ebpf_object))]
pub(crate) static OBJECT: &[u8] = &[];
