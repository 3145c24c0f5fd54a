//! The alternative that the benchmark compares with: keepalived, destination NAT by nftables and conntrackd, in the
//! careful form: connection tracking takes no packet in the middle of a connection for a new one, and only established
//! connections are replicated, with acknowledgements (FTFW), over a network of their own.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::addr;
use super::director::Director;
use super::segment::Segment;
use super::template::target_directory;
use super::vrrp::VrrpOptions;
use super::wait::wait_for;

const START_LIMIT: Duration = Duration::from_secs(10);
/// Where `cargo xtask` unpacks Debian's conntrackd; installing it would start it.
const UNPACKED: &str = "tools/debian/usr/sbin/conntrackd";

impl Director {
    /// Balances the classic service with nftables, round robin, and routes.
    ///
    /// # Errors
    /// When nft refuses the rules.
    pub fn start_nft(&self, backends: &[Ipv4Addr]) -> Result<()> {
        self.enable_forwarding()?;
        let map: Vec<_> =
            backends.iter().enumerate().map(|(number, backend)| format!("{number} : {backend}")).collect();
        let (vip, port, count) = (addr::VIP, addr::MYSQL_PORT, backends.len());
        let rules = format!(
            "table ip balance {{
            }}
            delete table ip balance
            table ip balance {{
                chain in {{
                    type nat hook prerouting priority dstnat;
                    ip daddr {vip} tcp dport {port} dnat to numgen inc mod {count} map {{ {} }}
                }}
                # Before routing: the VIP is the director's own, and its kernel would answer with a reset.
                chain careful {{
                    type filter hook prerouting priority filter;
                    ct state invalid drop
                }}
            }}",
            map.join(", ")
        );
        self.host().check_with_input(&["nft", "-f", "-"], &rules)?;
        // Known once the rules have brought connection tracking in.
        self.host().sysctl("netfilter/nf_conntrack_tcp_loose", "0")
    }

    /// Starts the whole alternative: rules, replication, election. The peer is the other director of the pair.
    ///
    /// # Errors
    /// When conntrackd is not there, or a part does not start.
    pub fn start_rival(&self, vrrp: &VrrpOptions, backends: &[Ipv4Addr]) -> Result<()> {
        self.start_nft(backends)?;
        let script = self.start_conntrackd()?;
        self.start_keepalived(vrrp, Some(&script))
    }

    /// Kills what of the alternative runs, and forgets every connection, like a machine that reboots.
    ///
    /// # Errors
    /// When a part cannot be ended.
    pub fn wipe_rival(&self) -> Result<()> {
        if self.runs_keepalived() {
            self.kill_keepalived()?;
        }
        if self.conntrackd.lock().unwrap_or_else(PoisonError::into_inner).take().is_none() {
            bail!("{}: no conntrackd runs", self.host().name());
        }
        self.drop_vips()?;
        self.host().check_with_input(&["nft", "-f", "-"], "table ip balance {\n}\ndelete table ip balance\n")?;
        // After the daemon is gone, so that its peer does not hear of it.
        self.host().enter(flush_connections)
    }

    /// Starts conntrackd; answers the script that moves its states when the role changes.
    fn start_conntrackd(&self) -> Result<PathBuf> {
        let program = conntrackd()?;
        let (own, peer) = (self.address(Segment::Sync), addr::director_sync(1 - self.index()));
        let own = own.context("a director alone has nobody to replicate to")?;
        let [config, log, lock, socket] = ["conf", "own.log", "lock", "sock"].map(|end| self.conntrackd_file(end));
        let text = format!(
            "Sync {{
    Mode FTFW {{
        StartupResync on
        DisableExternalCache off
    }}
    UDP {{
        IPv4_address {own}
        IPv4_Destination_Address {peer}
        Port 3780
        Interface sync0
        SndSocketBuffer 1249280
        RcvSocketBuffer 1249280
        Checksum on
    }}
    Options {{
        TCPWindowTracking off
    }}
}}
General {{
    Systemd off
    HashSize 32768
    HashLimit 131072
    LogFile {log}
    Syslog off
    LockFile {lock}
    UNIX {{
        Path {socket}
    }}
    NetlinkBufferSize 2097152
    NetlinkBufferSizeMaxGrowth 8388608
    Filter From Userspace {{
        Protocol Accept {{
            TCP
        }}
        State Accept {{
            ESTABLISHED for TCP
        }}
    }}
}}
"
        );
        fs::write(&config, text).with_context(|| format!("write {config}"))?;
        for stale in [&lock, &socket] {
            // Of a killed one.
            let _ = fs::remove_file(stale);
        }
        let mut command = Command::new(&program);
        command.args(["-C", &config]);
        let mut process = self.host().spawn("conntrackd", command)?;
        wait_for(&format!("{}: conntrackd's socket", self.host().name()), START_LIMIT, || {
            if let Some(status) = process.try_wait()? {
                bail!("conntrackd ended with {status}:\n{}", process.log_tail(20));
            }
            Ok(Path::new(&socket).exists().then_some(()))
        })?;
        *self.conntrackd.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        self.write_script(&format!("{} -C {config}", program.display()))
    }

    /// The order of conntrackd's own example: the Active commits what it has learnt, then tells everybody; a Backup asks
    /// for everything.
    fn write_script(&self, conntrackd: &str) -> Result<PathBuf> {
        let path = PathBuf::from(self.conntrackd_file("sh"));
        let text = format!(
            "#!/bin/sh\ncase \"$3\" in\n\
             MASTER) {conntrackd} -c; {conntrackd} -f; {conntrackd} -R; {conntrackd} -B ;;\n\
             BACKUP) {conntrackd} -t; {conntrackd} -n ;;\n\
             FAULT) {conntrackd} -t ;;\nesac\n"
        );
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, executable).with_context(|| format!("make {} executable", path.display()))?;
        Ok(path)
    }

    fn conntrackd_file(&self, end: &str) -> String {
        self.host().directory().join(format!("conntrackd.{end}")).display().to_string()
    }
}

/// Empties the connection tracking table of the calling thread's network: `IPCTNL_MSG_CT_DELETE` that names no connection
/// (linux/netfilter/nfnetlink_conntrack.h).
fn flush_connections() -> Result<()> {
    let kind = SockProtocol::NetlinkNetFilter;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, kind)
        .context("open a netfilter socket")?;
    let mut request = 20_u32.to_ne_bytes().to_vec();
    request.extend(((libc::NFNL_SUBSYS_CTNETLINK << 8 | 2) as u16).to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([libc::AF_INET as u8, 0, 0, 0]);
    send(socket.as_raw_fd(), &request, MsgFlags::empty()).context("ask for an empty connection table")?;
    let mut answer = [0; 64];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).context("hear of the connection table")?;
    let code = answer[..length].get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        code => bail!("the connection table was not emptied: {code:?}"),
    }
}

fn conntrackd() -> Result<PathBuf> {
    let unpacked = target_directory().join(UNPACKED);
    if unpacked.is_file() {
        return Ok(unpacked);
    }
    let installed = PathBuf::from("/usr/sbin/conntrackd");
    if !installed.is_file() {
        bail!("conntrackd is neither installed nor at {}: `cargo xtask setup` unpacks it there", unpacked.display());
    }
    Ok(installed)
}
