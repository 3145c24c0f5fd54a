//! The kernel settings that the packet path depends on.
//!
//! Owns setting `ip_forward`, without which the kernel's routing lookup gives no next hop, and the warnings about
//! settings that are the operator's business. Documented in `Documentation/networking/ip-sysctl.rst`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::error::{Error, Result};

/// Turns forwarding on and looks at the settings of the interfaces; tells what it changed and what may hurt.
///
/// # Errors
///
/// `ip_forward` can neither be read nor written.
pub fn prepare(interfaces: &[&str]) -> Result<Vec<String>> {
    prepare_below(Path::new("/proc/sys"), interfaces)
}

fn prepare_below(root: &Path, interfaces: &[&str]) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let forward = root.join("net/ipv4/ip_forward");
    let read = fs::read_to_string(&forward).map_err(Error::io(format!("read {}", forward.display())))?;
    // Writing it, even the value it has, would set the forwarding of every interface.
    if read.trim() == "0" {
        fs::write(&forward, "1").map_err(Error::io(format!("write {}", forward.display())))?;
        notes.push("set net.ipv4.ip_forward = 1".to_owned());
    }
    let value = |path: PathBuf| fs::read_to_string(root.join(path)).ok()?.trim().parse::<u32>().ok();
    let conf = |interface: &str, name: &str| value(Path::new("net/ipv4/conf").join(interface).join(name));
    for interface in interfaces {
        if conf(interface, "forwarding") == Some(0) {
            notes.push(format!(
                "net.ipv4.conf.{interface}.forwarding is 0: the kernel gives no next hop to packets from there, they \
                 are dropped as no_route; set it to 1"
            ));
        }
        // The kernel takes the larger of the two.
        let filter = conf("all", "rp_filter").max(conf(interface, "rp_filter"));
        if filter == Some(1) {
            notes.push(format!(
                "net.ipv4.conf.{interface}.rp_filter is strict: translated packets do not pass it, but what is left \
                 to the kernel (ICMP, TTL expired) is dropped if its way back is another interface"
            ));
        }
    }
    if value("net/core/bpf_jit_enable".into()) == Some(0) {
        notes.push("net.core.bpf_jit_enable is 0: the packet path is interpreted, several times slower".to_owned());
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(root: &Path, name: &str, value: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value).unwrap();
    }

    #[test]
    fn forwarding_is_turned_on_once_and_reported() {
        let root = tempfile::tempdir().unwrap();
        set(root.path(), "net/ipv4/ip_forward", "0\n");
        let notes = prepare_below(root.path(), &["eth0"]).unwrap();
        assert_eq!(notes, ["set net.ipv4.ip_forward = 1"]);
        assert_eq!(prepare_below(root.path(), &["eth0"]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn settings_that_hurt_are_named_with_their_interface() {
        let root = tempfile::tempdir().unwrap();
        set(root.path(), "net/ipv4/ip_forward", "1\n");
        set(root.path(), "net/ipv4/conf/all/rp_filter", "0\n");
        set(root.path(), "net/ipv4/conf/eth0/rp_filter", "1\n");
        set(root.path(), "net/ipv4/conf/eth1/rp_filter", "2\n");
        set(root.path(), "net/ipv4/conf/eth1/forwarding", "0\n");
        set(root.path(), "net/core/bpf_jit_enable", "0\n");
        let notes = prepare_below(root.path(), &["eth0", "eth1"]).unwrap();
        let named = |text: &str| notes.iter().any(|note| note.starts_with(text));
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(named("net.ipv4.conf.eth0.rp_filter is strict"), "{notes:?}");
        assert!(named("net.ipv4.conf.eth1.forwarding is 0") && named("net.core.bpf_jit_enable is 0"), "{notes:?}");
    }
}
