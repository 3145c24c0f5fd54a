//! Tiny eBPF programs, written instruction by instruction: what the lab's wires and switches do with packets, where the
//! machine's kernel has no device for it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cleanup::BPFFS;
use super::host::Host;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;

/// A kind of program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs for every frame at the driver.
    Xdp,
    /// Runs in a TC filter.
    Classifier,
}

/// One instruction, as the kernel reads it (`struct bpf_insn`, little endian).
pub(crate) type Instruction = u64;

/// `rDST = VALUE`.
pub(crate) const fn set(dst: u8, value: u32) -> Instruction {
    0xb7 | (dst as u64) << 8 | (value as u64) << 32
}

/// `rDST = rSRC`.
pub(crate) const fn copy(dst: u8, src: u8) -> Instruction {
    0xbf | (dst as u64) << 8 | (src as u64) << 12
}

/// Calls a helper by its number (`enum bpf_func_id`).
pub(crate) const fn call(helper: u32) -> Instruction {
    0x85 | (helper as u64) << 32
}

/// Ends with the action in r0.
pub(crate) const EXIT: Instruction = 0x95;

/// Loads a program and has it pinned while `attach` runs, which gets the path: ip and tc take programs from there.
pub(crate) fn with_pinned(
    host: &Host,
    kind: Kind,
    instructions: &[Instruction],
    attach: impl FnOnce(&str) -> Result<()>,
) -> Result<()> {
    let pin = PathBuf::from(format!("{BPFFS}/{}-program", host.namespace()));
    if let Some(record) = host.record() {
        record.add_pins(&pin)?;
    }
    let program = load(kind, instructions).context("load a program of the lab")?;
    pin_at(&program, &pin).with_context(|| format!("pin {}", pin.display()))?;
    let attached = attach(&pin.display().to_string());
    fs::remove_file(&pin).with_context(|| format!("remove {}", pin.display()))?;
    attached
}

fn load(kind: Kind, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    /// The head of `union bpf_attr` for this command; the kernel takes the rest as zero.
    #[repr(C)]
    struct Load {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log: [u32; 4],
        kern_version: u32,
        prog_flags: u32,
    }
    let (prog_type, prog_flags) = match kind {
        // Packets that lie in several pieces are welcome.
        Kind::Xdp => (6, 1 << 5),
        Kind::Classifier => (3, 0),
    };
    let attributes = Load {
        prog_type,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 4],
        kern_version: 0,
        prog_flags,
    };
    let program = bpf(BPF_PROG_LOAD, &attributes)?;
    // SAFETY: it was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

fn pin_at(program: &OwnedFd, path: &Path) -> Result<()> {
    #[repr(C)]
    struct Pin {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf(BPF_OBJ_PIN, &Pin { path: path.as_ptr() as u64, fd: program.as_raw_fd().cast_unsigned(), flags: 0 })?;
    Ok(())
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are valid for reads of their size, and what they point to lives during the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}
