//! An XDP program that passes everything, on the switch's ports of a director that runs native XDP.
//!
//! A veth whose own program answers a packet (XDP_TX) wakes the far end only if that runs an XDP program, too
//! (`veth_xdp_flush` in `drivers/net/veth.c`); GRO there is enough for redirected packets, but not for those.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cleanup::BPFFS;
use super::director::Director;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const PROG_TYPE_XDP: u32 = 6;
/// Packets that lie in several pieces are welcome.
const HAS_FRAGS: u32 = 1 << 5;
/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

impl Director {
    /// Lets the switch take what XDP programs of this director answer by themselves.
    ///
    /// # Errors
    /// When the kernel refuses the program, or ip cannot attach it.
    pub(crate) fn make_switch_pass(&self) -> Result<()> {
        let host = self.host();
        // It is pinned only until ip has attached it.
        let pin = PathBuf::from(format!("{BPFFS}/{}-pass", host.namespace()));
        if let Some(record) = host.record() {
            record.add_pins(&pin)?;
        }
        let program = load().context("load a program that passes everything")?;
        pin_at(&program, &pin).with_context(|| format!("pin {}", pin.display()))?;
        let attached = self.ports().try_for_each(|port| {
            let path = pin.display().to_string();
            self.switch().check(&["ip", "-force", "link", "set", "dev", &port, "xdpdrv", "pinned", &path]).map(drop)
        });
        fs::remove_file(&pin).with_context(|| format!("remove {}", pin.display()))?;
        attached
    }
}

fn load() -> io::Result<OwnedFd> {
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
    let attributes = Load {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: PASS.len() as u32,
        insns: PASS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 4],
        kern_version: 0,
        prog_flags: HAS_FRAGS,
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
