//! A PostgreSQL server of a test program's own, with a database for each test.
//!
//! It runs as a user without privileges in a temporary directory, listens on a unix socket there and on the loopback
//! address, and sorts text as people do and not by its bytes: what relied on the order of bytes fails here.
//!
//! Invariant: it ends with the process that started it, however that ends, and then its directory is gone.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::geteuid;

use crate::host::{output, run, until};
use crate::idp::free_port;

/// How long the server may take to start, or to stop.
const START: Duration = Duration::from_secs(60);
/// Whoever runs it when the tests are root's: PostgreSQL refuses to.
const USERS: [&str; 2] = ["postgres", "nobody"];
/// The lock that every transaction of the control plane takes that writes.
const WRITER: i64 = 0x626d_6900_0001;
/// Where Debian has the programs.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// Keeps the server while somebody has the other end of its standard input: `stop` leaves the files, the end removes
/// them.
const KEEPER: &str = r#"
bin=$1 data=$2; shift 2
"$bin/postgres" -D "$data/files" "$@" >>"$data/log" 2>&1 </dev/null &
server=$!
if read -r word && [ "$word" = stop ]; then kill -INT $server; wait $server; exit 0; fi
kill -QUIT $server; wait $server; rm -rf "$data"
"#;

/// What happens to the files when a write is to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: quick, and a crash of the machine would lose it.
    None,
    /// They are flushed to the medium.
    Full,
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    directory: PathBuf,
    port: u16,
    user: (u32, u32),
    durability: Durability,
    keeper: Option<Child>,
    databases: AtomicU32,
}

impl Postgres {
    /// The server of this test program, started when it is first asked for.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Durability::None))
    }

    /// Starts a server.
    #[must_use]
    pub fn start(durability: Durability) -> Self {
        let user = user();
        let directory = directory(user);
        let files = directory.join("files");
        let initdb = Path::new(PROGRAMS).join("initdb");
        let made = as_user(&initdb, user)
            .args(["--no-sync", "--auth=trust", "--username=bmi", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--locale-provider=icu", "--icu-locale=en-US", "-D"])
            .arg(&files)
            .current_dir(&directory)
            .stdin(Stdio::null())
            .output();
        let made = made.unwrap_or_else(|error| panic!("cannot run {}: {error}", initdb.display()));
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port().port();
        let mut server =
            Self { directory, port, user, durability, keeper: None, databases: AtomicU32::new(0) };
        server.resume();
        server
    }

    /// Starts it again after [`Self::stop`].
    pub fn resume(&mut self) {
        let mut keeper = as_user(Path::new("sh"), self.user);
        keeper.args(["-c", KEEPER, "keeper", PROGRAMS]).arg(&self.directory);
        let port = self.port.to_string();
        let socket = self.directory.display().to_string();
        for (name, value) in [
            ("port", port.as_str()),
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", &socket),
            ("max_connections", "300"),
            ("shared_buffers", "32MB"),
        ] {
            keeper.arg("-c").arg(format!("{name}={value}"));
        }
        if self.durability == Durability::None {
            keeper.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
        }
        let keeper = keeper.current_dir(&self.directory).stdin(Stdio::piped()).process_group(0).spawn();
        self.keeper = Some(keeper.unwrap());
        until("PostgreSQL answers", START, || {
            let answer = output(format!("{PROGRAMS}/pg_isready"), &["-q", "-h", &socket, "-p", &port]);
            answer.status.success().then_some(())
        });
    }

    /// Stops it as an administrator does (`pg_ctl stop -m fast`): who is connected is thrown out.
    pub fn stop(&mut self) {
        let mut keeper = self.keeper.take().unwrap();
        keeper.stdin.take().unwrap().write_all(b"stop\n").unwrap();
        assert!(keeper.wait().unwrap().success());
    }

    /// Makes a database; gives its URL.
    pub fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let (port, socket) = (self.port.to_string(), self.directory.display().to_string());
        run(format!("{PROGRAMS}/createdb"), &["-h", &socket, "-p", &port, "-U", "bmi", &name]);
        format!("postgres://bmi@127.0.0.1:{port}/{name}")
    }

    /// Runs SQL in a database; gives what `psql` prints: a line for each row.
    #[must_use]
    pub fn sql(url: &str, statements: &str) -> String {
        let options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statements];
        run(format!("{PROGRAMS}/psql"), &options)
    }

    /// Empties a database.
    pub fn empty(url: &str) {
        let _ = Self::sql(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    }

    /// A program that takes the lock of the control plane's writers, says `held`, and keeps it for so many seconds.
    pub(crate) fn writer(url: &str, seconds: u32) -> Command {
        let mut psql = Command::new(format!("{PROGRAMS}/psql"));
        let hold = format!("SELECT 'held' FROM pg_advisory_lock({WRITER})");
        let sleep = format!("SELECT pg_sleep({seconds})");
        psql.args(["-X", "-q", "-A", "-t", "-d", url, "-c", &hold, "-c", &sleep]);
        psql
    }

    /// Everything that a database holds, as SQL.
    #[must_use]
    pub fn dump(url: &str) -> String {
        run(format!("{PROGRAMS}/pg_dump"), &["--inserts", "-d", url])
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            keeper.wait().ok();
        } else {
            fs::remove_dir_all(&self.directory).ok();
        }
    }
}

/// A database of one test, in either.
#[derive(Debug)]
pub struct TestDatabase {
    /// What a configuration says.
    pub url: String,
    _directory: Option<tempfile::TempDir>,
}

impl TestDatabase {
    /// A file.
    #[must_use]
    pub fn sqlite() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self { url: directory.path().join("bmi.sqlite").display().to_string(), _directory: Some(directory) }
    }

    /// One of the program's server.
    #[must_use]
    pub fn postgres() -> Self {
        Self { url: Postgres::shared().database(), _directory: None }
    }
}

/// Makes two tests of each function that takes a [`TestDatabase`]: `sqlite::NAME` and `postgres::NAME`.
#[macro_export]
macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $test() {
                super::$test($crate::TestDatabase::sqlite()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $test() {
                super::$test($crate::TestDatabase::postgres()).await;
            })+
        }
    };
}

fn as_user(program: &Path, (uid, gid): (u32, u32)) -> Command {
    let mut command = Command::new(program);
    if geteuid().is_root() {
        command.uid(uid).gid(gid);
    }
    command
}

/// The user and group that run the server.
fn user() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let found = USERS.iter().find_map(|name| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    found.expect("a user without privileges")
}

/// A directory of the server's user. (The path of a socket has at most 107 bytes.)
fn directory(user: (u32, u32)) -> PathBuf {
    let root = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
    let made = tempfile::Builder::new().prefix("bmi-postgres-").tempdir_in(root).unwrap().keep();
    fs::set_permissions(&made, Permissions::from_mode(0o755)).unwrap();
    if geteuid().is_root() {
        std::os::unix::fs::chown(&made, Some(user.0), Some(user.1)).unwrap();
    }
    made
}
