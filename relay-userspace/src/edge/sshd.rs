//! Who is connected to this machine over SSH: the peers of the connections that sshd and dropbear
//! hold, as /proc shows them. utmp does not know sessions without a terminal, nor any in a
//! container.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use relay_core::prefix::canonical_ip;

/// A connection that an SSH daemon serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SshSession {
    pub peer: IpAddr,
    /// The port on this side.
    pub port: u16,
    /// Somebody is known to have logged in. Without, it may be anybody who has only connected:
    /// no reason to spare him a ban, but one to ask whether a denial by hand is meant.
    pub logged_in: bool,
}

/// The names of the daemons' programs, and of those that serve one connection.
const NAMES: [&str; 3] = ["sshd", "sshd-session", "dropbear"];
/// What is looked at, at most: processes, those of them that are daemons, files of one of these,
/// sessions, and bytes of one table of connections.
const PROCESSES_MAX: usize = 65_536;
const DAEMONS_MAX: usize = 1_024;
const FILES_MAX: usize = 1_024;
const SESSIONS_MAX: usize = 1_024;
const TABLE_BYTES_MAX: u64 = 16 << 20;
/// Bans may come a thousand a minute; so long the answer holds.
const CACHED: Duration = Duration::from_secs(3);

/// Reads the sessions, and remembers them for a few seconds.
pub fn reader() -> impl Fn() -> Vec<SshSession> + Send {
    let cache: Mutex<Option<(Instant, Vec<SshSession>)>> = Mutex::new(None);
    move || {
        // What is in there is whole at every moment.
        let mut cache = cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*cache {
            Some((read, sessions)) if read.elapsed() < CACHED => sessions.clone(),
            _ => {
                let sessions = sessions(Path::new("/proc"));
                *cache = Some((Instant::now(), sessions.clone()));
                sessions
            }
        }
    }
}

/// The sessions that a /proc shows; none where it shows nothing.
pub fn sessions(proc: &Path) -> Vec<SshSession> {
    let mut sessions = BTreeMap::new();
    for daemon in daemons(proc) {
        let sockets = sockets(&daemon.path);
        if sockets.is_empty() {
            continue;
        }
        for table in ["net/tcp", "net/tcp6"] {
            for (peer, port) in established(&daemon.path.join(table), &sockets) {
                if sessions.len() < SESSIONS_MAX {
                    *sessions.entry((peer, port)).or_insert(false) |= daemon.logged_in;
                }
            }
        }
    }
    let session = |((peer, port), logged_in)| SshSession { peer, port, logged_in };
    sessions.into_iter().map(session).collect()
}

struct Daemon {
    path: PathBuf,
    logged_in: bool,
}

/// The processes that may serve a connection on which somebody is, or may be, logged in.
fn daemons(proc: &Path) -> Vec<Daemon> {
    let mut parents = BTreeSet::new();
    let mut named = Vec::new();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten().take(PROCESSES_MAX) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end at any moment; then it serves nobody.
        let Ok(stat) = fs::read(entry.path().join("stat")) else { continue };
        let Some((name, parent)) = name_and_parent(&String::from_utf8_lossy(&stat)) else {
            continue;
        };
        parents.insert(parent);
        if NAMES.contains(&name.as_str()) && named.len() < DAEMONS_MAX {
            named.push((pid, entry.path()));
        }
    }
    let daemons = named.into_iter().filter_map(|(pid, path)| {
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let logged_in = match title(&line) {
            Some(title) if is_before_login(title) => return None,
            Some(_) => true,
            // dropbear says nothing; it starts a shell for whoever has logged in.
            None => parents.contains(&pid),
        };
        Some(Daemon { path, logged_in })
    });
    daemons.collect()
}

/// Of /proc/PID/stat: the name in parentheses, which may have parentheses of its own, the state,
/// and the parent's number.
fn name_and_parent(stat: &str) -> Option<(String, u32)> {
    let (front, rest) = stat.rsplit_once(") ")?;
    let (_, name) = front.split_once('(')?;
    let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
    Some((name.to_owned(), parent))
}

/// What sshd shows in `ps` of the connection that it serves: `sshd: alice@pts/0`.
fn title(command_line: &[u8]) -> Option<&str> {
    let line = command_line.split(|&byte| byte == 0).next()?;
    let (program, title) = std::str::from_utf8(line).ok()?.split_once(": ")?;
    program.starts_with("sshd").then_some(title.trim_end())
}

/// `alice [priv]`, `alice [net]`, `[accepted]`. Once somebody is logged in, a process of another
/// title holds the same connection.
fn is_before_login(title: &str) -> bool {
    title.ends_with(']') || title.starts_with("/")
}

/// The numbers of the sockets that a process holds.
fn sockets(process: &Path) -> BTreeSet<u64> {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().take(FILES_MAX);
    let number =
        |target: &OsStr| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    files.filter_map(|file| number(fs::read_link(file.path()).ok()?.as_os_str())).collect()
}

/// Peer and own port of the established connections among these sockets, by a table in the form of
/// /proc/net/tcp.
fn established(table: &Path, sockets: &BTreeSet<u64>) -> Vec<(IpAddr, u16)> {
    let Ok(file) = fs::File::open(table) else { return Vec::new() };
    let lines = BufReader::new(file.take(TABLE_BYTES_MAX)).lines().map_while(Result::ok);
    lines.filter_map(|line| connection(&line, sockets)).collect()
}

fn connection(line: &str, sockets: &BTreeSet<u64>) -> Option<(IpAddr, u16)> {
    const ESTABLISHED: &str = "01";
    let mut words = line.split_whitespace();
    let (own, peer, state) = (words.nth(1)?, words.next()?, words.next()?);
    let inode: u64 = words.nth(5)?.parse().ok()?;
    if state != ESTABLISHED || !sockets.contains(&inode) {
        return None;
    }
    let port = u16::from_str_radix(own.split_once(':')?.1, 16).ok()?;
    Some((address(peer.split_once(':')?.0)?, port))
}

/// An address as the kernel prints it there: words of four bytes, each in the machine's order.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (at, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            Some(canonical_ip(Ipv6Addr::from(octets).into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A /proc with one process.
    struct Proc(tempfile::TempDir);

    impl Proc {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn process(&self, pid: u32, parent: u32, name: &str, line: &str, inode: u64) -> PathBuf {
            let path = self.0.path().join(pid.to_string());
            fs::create_dir_all(path.join("fd")).unwrap();
            fs::create_dir_all(path.join("net")).unwrap();
            fs::write(path.join("stat"), format!("{pid} ({name}) S {parent} 1 1 0 -1")).unwrap();
            fs::write(path.join("cmdline"), line).unwrap();
            symlink("/dev/null", path.join("fd/0")).unwrap();
            symlink(format!("socket:[{inode}]"), path.join("fd/4")).unwrap();
            path
        }
    }

    fn row(own: &str, peer: &str, state: &str, inode: u64) -> String {
        format!(
            "   0: {own} {peer} {state} 00000000:00000000 02:000A 00000000 0 0 {inode} 2 0 20\n"
        )
    }

    fn hex(bytes: &[u8]) -> String {
        let word = |word: &[u8]| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap()));
        bytes.chunks_exact(4).map(word).collect()
    }

    fn peers(proc: &Proc) -> Vec<(String, u16, bool)> {
        let told = |it: SshSession| (it.peer.to_string(), it.port, it.logged_in);
        sessions(proc.0.path()).into_iter().map(told).collect()
    }

    #[test]
    fn peers_of_sshd_are_found_v4_v6_and_mapped() {
        let proc = Proc::new();
        let path = proc.process(77, 1, "sshd", "sshd: alice@pts/0\0", 4711);
        let (own, v4) = (format!("{}:0016", hex(&[10, 0, 0, 1])), [192, 0, 2, 7]);
        let mut table = "  sl  local_address rem_address   st\n".to_owned();
        table += &row(&own, &format!("{}:A001", hex(&v4)), "01", 4711);
        // Listening, another's, and one that has been closed.
        table += &row(&own, &format!("{}:0000", hex(&[0; 4])), "0A", 4711);
        table += &row(&own, &format!("{}:A001", hex(&[192, 0, 2, 8])), "01", 4712);
        table += &row(&own, &format!("{}:A001", hex(&[192, 0, 2, 9])), "06", 4711);
        fs::write(path.join("net/tcp"), table).unwrap();
        let v6: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let mapped: Ipv6Addr = "::ffff:198.51.100.7".parse().unwrap();
        let own = format!("{}:08AE", hex(&[0; 16]));
        let of = |peer: Ipv6Addr| row(&own, &format!("{}:A002", hex(&peer.octets())), "01", 4711);
        fs::write(path.join("net/tcp6"), format!("head\n{}{}", of(v6), of(mapped))).unwrap();
        assert_eq!(
            peers(&proc),
            [
                ("192.0.2.7".into(), 22, true),
                ("198.51.100.7".into(), 2222, true),
                ("2001:db8::7".into(), 2222, true),
            ]
        );
    }

    #[test]
    fn who_has_not_logged_in_is_told_from_who_has() {
        let table = |inode| {
            row(
                &format!("{}:0016", hex(&[0; 4])),
                &format!("{}:1", hex(&[192, 0, 2, 7])),
                "01",
                inode,
            )
        };
        for (name, line, child, told) in [
            ("sshd", "sshd: unknown [priv]\0", true, None),
            ("sshd", "sshd: alice [net]\0", false, None),
            ("sshd-session", "sshd-session: [accepted]\0", false, None),
            ("sshd-session", "sshd-session: alice@notty\0\0", false, Some(true)),
            ("sshd", "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups\0", true, None),
            ("dropbear", "/usr/sbin/dropbear\0-F\0", false, Some(false)),
            ("dropbear", "/usr/sbin/dropbear\0-F\0", true, Some(true)),
            ("bash", "sshd: alice@pts/0\0", true, None),
        ] {
            let proc = Proc::new();
            let path = proc.process(77, 1, name, line, 5);
            fs::write(path.join("net/tcp"), table(5)).unwrap();
            if child {
                proc.process(78, 77, "sh (x) y", "sh\0", 6);
            }
            let found: Vec<bool> = peers(&proc).into_iter().map(|(_, _, it)| it).collect();
            assert_eq!(found, Vec::from_iter(told), "{line:?}");
        }
    }

    #[test]
    fn without_a_proc_nothing_is_said() {
        assert_eq!(sessions(Path::new("/nonexistent")), []);
    }
}
