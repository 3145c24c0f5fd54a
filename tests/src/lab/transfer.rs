//! One big result set and one big load, compared by SHA-256 with what was computed on the other side. The data does
//! not repeat, so a segment lost, doubled, swapped or altered on the way changes the digest.

use std::fmt::Write as _;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql::prelude::Queryable;
use mysql::{Conn, LocalInfileHandler, Row};
use serde::Serialize;
use sha2::{Digest, Sha256, Sha512};

use super::addr;
use super::client::{Client, login, peer};
use super::wait::now;
use crate::chance::Chance;

const MIB: u64 = 1 << 20;
/// A downloaded row: this many SHA-512 in hex.
const HASHES_PER_ROW: u64 = 8;
const DOWNLOAD_ROW: u64 = HASHES_PER_ROW * 128;
/// An uploaded row.
const UPLOAD_ROW: u64 = 64 << 10;

/// A transfer that arrived intact; one that did not is an error.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Transfer {
    /// Server at the other end.
    pub backend: Ipv4Addr,
    /// Bytes of data, without the protocol's.
    pub bytes: u64,
    /// SHA-256, hex. Download: of the data. Upload: of the rows' own SHA-256 in hex, one after the other.
    pub sha256: String,
    /// Time of the transfer, with the generation of the data by the sender.
    pub elapsed: Duration,
}

impl Client {
    /// Reads one result set of `mib` MiB through the service and checks it against the same data made here.
    ///
    /// # Errors
    /// When the session fails, or size or digest differ.
    pub fn download(&self, mib: u64) -> Result<Transfer> {
        self.download_from(addr::SERVICE, mib)
    }

    /// As [`Client::download`], from any address.
    ///
    /// # Errors
    /// As there.
    pub fn download_from(&self, server: SocketAddrV4, mib: u64) -> Result<Transfer> {
        self.host().enter(|| download(&mut login(server)?, mib)).with_context(|| format!("download {mib} MiB"))
    }

    /// Loads `mib` MiB through the service with LOAD DATA LOCAL INFILE and has the server check them.
    ///
    /// # Errors
    /// When the session fails, or count, size or digest differ.
    pub fn upload(&self, mib: u64) -> Result<Transfer> {
        self.upload_to(addr::SERVICE, mib)
    }

    /// As [`Client::upload`], to any address.
    ///
    /// # Errors
    /// As there.
    pub fn upload_to(&self, server: SocketAddrV4, mib: u64) -> Result<Transfer> {
        self.host().enter(|| upload(&mut login(server)?, mib)).with_context(|| format!("upload {mib} MiB"))
    }
}

fn download(session: &mut Conn, mib: u64) -> Result<Transfer> {
    let backend = peer(session)?.backend;
    let rows = mib * MIB / DOWNLOAD_ROW;
    let seed = seed();
    let columns: Vec<_> =
        (0..HASHES_PER_ROW).map(|part| format!("SHA2(CONCAT('{seed}:', seq, ':{part}'), 512)")).collect();
    let query = format!("SELECT CONCAT({}) FROM seq_1_to_{rows} ORDER BY seq", columns.join(", "));

    let started = now();
    let mut received = Sha256::new();
    let mut bytes = 0;
    for row in session.query_iter(query)? {
        let row: Row = row?;
        let data: &[u8] = match row.as_ref(0) {
            Some(mysql::Value::Bytes(data)) => data,
            other => bail!("expected bytes, got {other:?}"),
        };
        received.update(data);
        bytes += data.len() as u64;
    }
    let elapsed = started.elapsed();

    let sha256 = hex(&received.finalize());
    let expected = expected_download(seed, rows);
    if bytes != mib * MIB || sha256 != expected {
        bail!("{backend} sent {bytes} bytes with SHA-256 {sha256}, expected {} with {expected}", mib * MIB);
    }
    Ok(Transfer { backend, bytes, sha256, elapsed })
}

/// The digest of the result set, from its definition alone.
fn expected_download(seed: u64, rows: u64) -> String {
    let mut digest = Sha256::new();
    for row in 1..=rows {
        for part in 0..HASHES_PER_ROW {
            digest.update(hex(&Sha512::digest(format!("{seed}:{row}:{part}"))));
        }
    }
    hex(&digest.finalize())
}

fn upload(session: &mut Conn, mib: u64) -> Result<Transfer> {
    let backend = peer(session)?.backend;
    let rows = mib * MIB / UPLOAD_ROW;
    let seed = seed();
    let mut expected = Sha256::new();
    let mut noise = Chance::new(seed);
    let mut row = vec![0; UPLOAD_ROW as usize];
    for _ in 0..rows {
        fill(&mut row, &mut noise);
        expected.update(hex(&Sha256::digest(&row)));
    }
    let expected = hex(&expected.finalize());

    // No transaction log: what is tested is the way there.
    let table = format!("upload_{seed}");
    session.query_drop(format!("CREATE TABLE {table} (n INT UNSIGNED, data LONGBLOB) ENGINE=MyISAM"))?;
    session.set_local_infile_handler(Some(LocalInfileHandler::new(move |_, stream| {
        let mut noise = Chance::new(seed);
        let mut row = vec![0; UPLOAD_ROW as usize];
        for number in 0..rows {
            fill(&mut row, &mut noise);
            write!(stream, "{number}\t")?;
            stream.write_all(&row)?;
            stream.write_all(b"\n")?;
        }
        Ok(())
    })));
    let started = now();
    session.query_drop(format!("LOAD DATA LOCAL INFILE 'generated' INTO TABLE {table} CHARACTER SET binary"))?;
    let elapsed = started.elapsed();

    session.query_drop("SET SESSION group_concat_max_len = 4294967295")?;
    let arrived: Option<(u64, Option<u64>, Option<String>)> = session.query_first(format!(
        "SELECT COUNT(*), CAST(SUM(LENGTH(data)) AS UNSIGNED), \
         SHA2(GROUP_CONCAT(SHA2(data, 256) ORDER BY n SEPARATOR ''), 256) FROM {table}"
    ))?;
    session.query_drop(format!("DROP TABLE {table}"))?;
    let wanted = (rows, Some(mib * MIB), Some(expected.clone()));
    if arrived.as_ref() != Some(&wanted) {
        bail!("{backend} holds (rows, bytes, digest) {arrived:?}, expected {wanted:?}");
    }
    Ok(Transfer { backend, bytes: mib * MIB, sha256: expected, elapsed })
}

/// Printable noise without tab, newline or backslash: six bits a character.
fn fill(row: &mut [u8], noise: &mut Chance) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in row.chunks_mut(8) {
        let mut bits = noise.draw();
        for byte in chunk {
            *byte = ALPHABET[(bits & 63) as usize];
            bits >>= 6;
        }
    }
}

/// Differs from transfer to transfer, so that neither cache nor leftover can pass for the data.
fn seed() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    u64::from(std::process::id()) * 1_000_000 + COUNT.fetch_add(1, Ordering::Relaxed)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
