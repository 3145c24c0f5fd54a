//! The initialised MariaDB data directory that every server starts from: made once per MariaDB version with
//! mariadb-install-db, kept in target/lab, copied per server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User};

/// Raised when the options below change what is on disk.
const FORMAT: u32 = 1;

/// Size of the InnoDB log, fixed at creation.
pub(crate) const INNODB_LOG_SIZE: &str = "--innodb-log-file-size=64M";

/// An initialised data directory, and whom MariaDB runs as.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    path: PathBuf,
    pub(crate) user: Option<(Uid, Gid)>,
}

impl Template {
    /// Copies the data directory to `target`, owner included.
    pub(crate) fn copy_to(&self, target: &Path) -> Result<()> {
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&self.path).arg(target))
    }
}

/// Finds the template for the installed MariaDB, or makes it.
pub(crate) fn ensure() -> Result<Template> {
    let user = User::from_name("mysql").context("look up user mysql")?.map(|user| (user.uid, user.gid));
    let cache = target_directory().join("lab");
    let path = cache.join(format!("mariadb-{}-{FORMAT}", version()?));
    if !path.exists() {
        fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        make(&path, user.is_some())?;
    }
    Ok(Template { path, user })
}

/// Initialises in a directory that the mysql user can reach, then moves the result into the cache in one step.
fn make(path: &Path, as_mysql: bool) -> Result<()> {
    let work = tempfile::Builder::new().prefix("lb-lab-mariadb-").tempdir().context("create a temporary directory")?;
    // mktemp-like directories are private to root.
    fs::set_permissions(work.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .with_context(|| format!("open {} to MariaDB", work.path().display()))?;
    let data = work.path().join("data");
    run(Command::new("mariadb-install-db")
        .arg("--no-defaults")
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--user={}", if as_mysql { "mysql" } else { "root" }))
        .args(["--skip-name-resolve", "--skip-test-db", "--auth-root-authentication-method=normal"])
        .args([INNODB_LOG_SIZE, "--innodb-use-native-aio=0", "--loose-feedback=OFF"]))?;

    // The cache may be on another file system: copy beside the goal, then rename.
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&data).arg(&draft))?;
    match fs::rename(&draft, path) {
        // Another lab made it at the same time.
        Err(_) if path.exists() => fs::remove_dir_all(&draft).with_context(|| format!("remove {}", draft.display())),
        renamed => renamed.with_context(|| format!("create {}", path.display())),
    }
}

/// The version word of `mariadbd --version`, for example `10.11.19-MariaDB-0+deb12u1`.
fn version() -> Result<String> {
    let output = Command::new("mariadbd")
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .context("run mariadbd: install Debian's mariadb-server-core")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_ascii_whitespace().skip_while(|word| *word != "Ver").nth(1);
    version.map(str::to_owned).with_context(|| format!("no version in `{}`", text.trim()))
}

/// Cargo's target directory: the one above the running program, else the workspace's.
pub(crate) fn target_directory() -> PathBuf {
    let running = std::env::current_exe().ok();
    let marked = running.iter().flat_map(|path| path.ancestors()).find(|path| path.join("CACHEDIR.TAG").exists());
    marked.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), Path::to_owned)
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&text).trim_end());
    }
    Ok(())
}
