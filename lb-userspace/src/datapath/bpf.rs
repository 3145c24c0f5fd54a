//! The few commands of bpf(2) that the loader library does not offer: batches, and links by file descriptor.
//!
//! Owns every unsafe line of the datapath. Lengths are checked against what the kernel says about the map, so the
//! functions here are safe to call with any slice. Layouts: `include/uapi/linux/bpf.h`, `union bpf_attr`.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const MAP_UPDATE_BATCH: libc::c_int = 26;
const MAP_DELETE_BATCH: libc::c_int = 27;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

/// `BPF_XDP` of `enum bpf_attach_type`.
pub(super) const ATTACH_XDP: u32 = 37;
/// `BPF_TCX_INGRESS` of `enum bpf_attach_type`.
pub(super) const ATTACH_TCX_INGRESS: u32 = 46;
/// `BPF_LINK_TYPE_XDP`.
pub(super) const LINK_TYPE_XDP: u32 = 6;
/// `BPF_LINK_TYPE_TCX`.
pub(super) const LINK_TYPE_TCX: u32 = 11;
/// `XDP_FLAGS_SKB_MODE`: run by the stack, in any driver.
pub(super) const XDP_SKB: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`: run by the driver.
pub(super) const XDP_DRV: u32 = 1 << 2;

/// One command.
///
/// # Safety
///
/// `attr` is a prefix of `union bpf_attr` as `command` reads it, its pointers are valid for what the kernel reads and
/// writes through them, and file descriptors in it are open.
unsafe fn call<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: upheld by the caller; the kernel reads at most the given size and takes the rest as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A command that answers with a new file descriptor.
///
/// # Safety
///
/// As for [`call`], and `command` is one that returns a file descriptor.
unsafe fn call_fd<T>(command: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: upheld by the caller.
    let fd = unsafe { call(command, attr)? };
    // SAFETY: the kernel just made this descriptor (close-on-exec) for us; it fits an int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn path_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_nul| io::ErrorKind::InvalidInput.into())
}

#[repr(C)]
struct ObjAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens what is pinned at `path`: a map or a link.
pub(super) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = path_string(path)?;
    let mut attr = ObjAttr { path: path.as_ptr().expose_provenance() as u64, fd: 0, flags: 0 };
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    unsafe { call_fd(OBJ_GET, &mut attr) }
}

/// Pins a map or a link at `path`.
pub(super) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_string(path)?;
    let mut attr = ObjAttr { path: path.as_ptr().expose_provenance() as u64, fd: raw(fd), flags: 0 };
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    unsafe { call(OBJ_PIN, &mut attr).map(drop) }
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// The first 128 bytes of what the kernel says about an object, as words; the rest is zero.
fn info(fd: BorrowedFd<'_>) -> io::Result<[u32; 32]> {
    let mut words = [0_u32; 32];
    let len = size_of_val(&words) as u32;
    let mut attr = InfoAttr { fd: raw(fd), len, info: words.as_mut_ptr().expose_provenance() as u64 };
    // SAFETY: the kernel writes at most `len` bytes to `words`.
    unsafe { call(OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok(words)
}

/// What a link connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub(super) link_type: u32,
    pub(super) id: u32,
    pub(super) program: u32,
    /// 0 once the interface is gone.
    pub(super) ifindex: u32,
}

/// Asks what a link connects. `ifindex` holds for XDP and TCX links only.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let words = info(link)?;
    // type, id, prog_id, padding; both members of the union begin with the ifindex.
    Ok(LinkInfo { link_type: words[0], id: words[1], program: words[2], ifindex: words[4] })
}

/// The id of a loaded program.
pub(super) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    // type, id
    info(program).map(|words| words[1])
}

#[repr(C)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

/// A program by its id.
pub(super) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    unsafe { call_fd(PROG_GET_FD_BY_ID, &mut IdAttr { id, next: 0, flags: 0 }) }
}

#[repr(C)]
struct LinkCreateAttr {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to an interface; it stays until the last descriptor and pin of the link are gone.
pub(super) fn link_create(program: BorrowedFd<'_>, ifindex: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr { program: raw(program), ifindex, attach_type, flags };
    // SAFETY: no pointers.
    unsafe { call_fd(LINK_CREATE, &mut attr) }
}

#[repr(C)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Replaces the program of a link atomically: no packet sees neither.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr { link: raw(link), program: raw(program), flags: 0, old_program: 0 };
    // SAFETY: no pointers.
    unsafe { call(LINK_UPDATE, &mut attr).map(drop) }
}

/// Takes the program off the interface at once, whoever else holds the link.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe { call(LINK_DETACH, &mut [raw(link)]).map(drop) }
}

#[repr(C)]
struct QueryAttr {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    pad: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// The ids of the links at the TCX ingress of an interface of this network namespace.
pub(super) fn tcx_links(ifindex: u32) -> io::Result<Vec<u32>> {
    let (mut programs, mut links) = ([0_u32; 64], [0_u32; 64]);
    let mut attr = QueryAttr {
        ifindex,
        attach_type: ATTACH_TCX_INGRESS,
        query_flags: 0,
        attach_flags: 0,
        programs: programs.as_mut_ptr().expose_provenance() as u64,
        count: programs.len() as u32,
        pad: 0,
        program_flags: 0,
        links: links.as_mut_ptr().expose_provenance() as u64,
        link_flags: 0,
        revision: 0,
    };
    // SAFETY: both arrays hold `count` ids, which is all that the kernel writes.
    unsafe { call(PROG_QUERY, &mut attr)? };
    Ok(links.into_iter().take(attr.count as usize).filter(|id| *id != 0).collect())
}

/// `enum bpf_map_type`, as far as the object uses it.
pub(super) mod map_type {
    pub(crate) const HASH: u32 = 1;
    pub(crate) const ARRAY: u32 = 2;
    pub(crate) const PERCPU_ARRAY: u32 = 6;
    pub(crate) const LRU_HASH: u32 = 9;
    pub(crate) const RINGBUF: u32 = 27;
}

/// What the kernel says about a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapInfo {
    pub(super) map_type: u32,
    pub(super) id: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) name: String,
}

/// An open map, together with the sizes that the kernel will read and write.
#[derive(Debug)]
pub(super) struct Map {
    fd: OwnedFd,
    info: MapInfo,
    /// Bytes of one key.
    key: usize,
    /// Bytes of one value as a system call moves it: all CPUs of a per-CPU value.
    value: usize,
}

#[repr(C)]
struct ElemAttr {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

/// One answer to [`Map::lookup_batch`].
pub(super) struct Batch {
    /// Number of entries read.
    pub(super) count: usize,
    /// Where to go on; `None`: this was the end.
    pub(super) next: Option<u32>,
}

impl Map {
    /// Opens the map pinned at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::from_fd(obj_get(path)?)
    }

    fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let words = info(fd.as_fd())?;
        let mut name = Vec::with_capacity(16);
        name.extend(words[6..10].iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0));
        let info = MapInfo {
            map_type: words[0],
            id: words[1],
            key_size: words[2],
            value_size: words[3],
            max_entries: words[4],
            name: String::from_utf8_lossy(&name).into_owned(),
        };
        let value = match info.map_type {
            map_type::PERCPU_ARRAY => {
                let cpus = aya::util::nr_cpus().map_err(|(_file, error)| error)?;
                (info.value_size as usize).next_multiple_of(8) * cpus
            }
            _ => info.value_size as usize,
        };
        Ok(Self { fd, key: info.key_size as usize, value, info })
    }

    /// What the kernel says about the map.
    pub(super) const fn info(&self) -> &MapInfo {
        &self.info
    }

    /// Bytes of one value as it is read: all CPUs of a per-CPU value.
    pub(super) const fn value_bytes(&self) -> usize {
        self.value
    }

    fn check(&self, keys: usize, values: Option<usize>, count: usize) -> io::Result<()> {
        let fits = keys == self.key * count && values.is_none_or(|values| values == self.value * count);
        if fits && u32::try_from(count).is_ok() { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    fn elem(&self, key: &[u8], value: u64) -> ElemAttr {
        ElemAttr { map: raw(self.fd.as_fd()), pad: 0, key: key.as_ptr().expose_provenance() as u64, value, flags: 0 }
    }

    /// Reads one entry into `value`; `false`: there is none.
    pub(super) fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(key.len(), Some(value.len()), 1)?;
        let mut attr = self.elem(key, value.as_mut_ptr().expose_provenance() as u64);
        // SAFETY: both slices have the map's sizes.
        absent(unsafe { call(MAP_LOOKUP_ELEM, &mut attr) })
    }

    /// Writes one entry, new or not.
    pub(super) fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key.len(), Some(value.len()), 1)?;
        let mut attr = self.elem(key, value.as_ptr().expose_provenance() as u64);
        // SAFETY: both slices have the map's sizes; the kernel only reads them.
        unsafe { call(MAP_UPDATE_ELEM, &mut attr).map(drop) }
    }

    /// Removes one entry; `false`: there was none.
    pub(super) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key.len(), None, 1)?;
        // SAFETY: the key has the map's size.
        absent(unsafe { call(MAP_DELETE_ELEM, &mut self.elem(key, 0)) })
    }

    fn batch(&self, keys: u64, values: u64, count: usize) -> BatchAttr {
        let map = raw(self.fd.as_fd());
        BatchAttr { in_batch: 0, out_batch: 0, keys, values, count: count as u32, map, elem_flags: 0, flags: 0 }
    }

    /// Reads up to `count` entries from where `from` says; `ENOSPC`: one bucket alone is larger than `count`.
    ///
    /// Only for the map types of this object: their positions are 4 bytes (a bucket, or an index).
    pub(super) fn lookup_batch(
        &self,
        from: Option<u32>,
        keys: &mut [u8],
        values: &mut [u8],
        count: usize,
    ) -> io::Result<Batch> {
        self.check(keys.len(), Some(values.len()), count)?;
        let (position, mut next) = (from.unwrap_or(0), 0_u32);
        let mut attr =
            self.batch(keys.as_mut_ptr().expose_provenance() as u64, values.as_mut_ptr().addr() as u64, count);
        attr.in_batch = if from.is_some() { std::ptr::from_ref(&position).expose_provenance() as u64 } else { 0 };
        attr.out_batch = std::ptr::from_mut(&mut next).expose_provenance() as u64;
        // SAFETY: the slices hold `count` keys and values of the map's sizes, the positions are 4 bytes.
        let result = unsafe { call(MAP_LOOKUP_BATCH, &mut attr) };
        let more = absent(result)?;
        Ok(Batch { count: attr.count as usize, next: more.then_some(next) })
    }

    /// Writes `count` entries; stops at the first that fails. Answers how many were written, and why it stopped.
    pub(super) fn update_batch(&self, keys: &[u8], values: &[u8], count: usize) -> (usize, io::Result<()>) {
        if let Err(error) = self.check(keys.len(), Some(values.len()), count) {
            return (0, Err(error));
        }
        let mut attr = self.batch(keys.as_ptr().expose_provenance() as u64, values.as_ptr().addr() as u64, count);
        // SAFETY: the slices hold `count` keys and values of the map's sizes; the kernel only reads them.
        let result = unsafe { call(MAP_UPDATE_BATCH, &mut attr) };
        (done(attr.count as usize, count, &result), result.map(drop))
    }

    /// Removes `count` entries; stops at the first that fails. Answers how many were removed, and why it stopped.
    pub(super) fn delete_batch(&self, keys: &[u8], count: usize) -> (usize, io::Result<()>) {
        if let Err(error) = self.check(keys.len(), None, count) {
            return (0, Err(error));
        }
        let mut attr = self.batch(keys.as_ptr().expose_provenance() as u64, 0, count);
        // SAFETY: the slice holds `count` keys of the map's size; the kernel only reads it.
        let result = unsafe { call(MAP_DELETE_BATCH, &mut attr) };
        (done(attr.count as usize, count, &result), result.map(drop))
    }
}

/// How many elements a batch has done: a refused command leaves the count as it was.
fn done(count: usize, asked: usize, result: &io::Result<libc::c_long>) -> usize {
    if result.is_err() && count >= asked { 0 } else { count }
}

/// `ENOENT` is an answer, not an error.
fn absent(result: io::Result<libc::c_long>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
