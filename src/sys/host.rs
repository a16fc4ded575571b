//! Facts about this machine.

use std::io;
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};

use super::dir::Dir;
use super::file;

/// The host name as `gethostname(2)` gives it; bytes that are not UTF-8 are replaced.
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Takes the umask out of the hands of whoever started this process: what it makes has the modes that
/// it names, of which none lets everybody write.
pub fn set_umask() {
    rustix::process::umask(rustix::fs::Mode::WOTH);
}

/// The user that this process runs as.
pub fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether a user could do whatever this process does: root, and the one that it runs as.
pub fn is_trusted(user: u32) -> bool {
    user == 0 || user == own_user()
}

/// The users of this machine that are not in a directory service.
const USERS: &str = "/etc/passwd";
/// Far more than any machine has of them.
const USERS_BYTES: usize = 16 << 20;

/// The id of a user of `/etc/passwd`. Nobody else is known: only the C library's `getpwnam(3)` asks
/// directory services.
pub fn user_id(name: &str) -> io::Result<Option<u32>> {
    let users = file::read_small(Path::new(USERS), USERS_BYTES)?;
    Ok(find_user(&users, name))
}

/// The id of a group of `/etc/group`, as [`user_id`].
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    let groups = file::read_small(Path::new("/etc/group"), USERS_BYTES)?;
    Ok(find_user(&groups, name))
}

/// The third field of the line whose first one is the name, as passwd(5) and group(5) have
/// them.
fn find_user(users: &[u8], name: &str) -> Option<u32> {
    let mut users = users.split(|byte| *byte == b'\n');
    users.find_map(|user| {
        let mut fields = user.split(|byte| *byte == b':');
        let is_theirs = fields.next() == Some(name.as_bytes());
        let uid = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        is_theirs.then_some(uid)
    })
}

/// Whether the kernel lets users make hard links only to files that they may read and write
/// (`fs.protected_hardlinks`); `None` when it does not say.
pub fn protects_hardlinks() -> Option<bool> {
    let setting = Path::new("/proc/sys/fs/protected_hardlinks");
    let setting = file::read_small(setting, 16).ok()?;
    Some(setting.trim_ascii() != b"0")
}

/// How many descriptors this process may have open (`RLIMIT_NOFILE`).
pub fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// Takes as many descriptors as this process may have: the soft limit is usually 1024, for the sake
/// of `select(2)`, which nothing here uses. What cannot be raised stays as it is.
pub fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // Fewer is no reason not to start.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Leaves the processors to whoever else wants them: a tenth of a busy one's time is left for this
/// process. Not less, since a snapshot that is held for long makes a busy database grow.
pub fn give_way() {
    // As fast as before is no reason not to go on.
    let _ = rustix::process::nice(10);
}

/// Whether this process may set and lift the append-only flag of files: `CAP_LINUX_IMMUTABLE`.
pub fn may_flag_append_only() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|has| has.effective.contains(CapabilitySet::LINUX_IMMUTABLE))
}

/// `N` random bytes from the kernel.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// Where a machine's id is kept, by whom it is made first.
const MACHINE_ID_FILES: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
/// Name in a client's datadir of the id of a machine that has none, as the original keeps it.
const OWN_MACHINE_ID: &str = ".machine-id";
/// Longer than any id that such a file holds.
const MACHINE_ID_BYTES: usize = 128;

/// The machine's id: the system's, or for a machine without one that which `datadir` keeps.
/// `None` when there is neither.
pub fn machine_id(datadir: &Path) -> io::Result<Option<String>> {
    match system_id()? {
        Some(id) => Ok(Some(id)),
        None => read_id(&datadir.join(OWN_MACHINE_ID)),
    }
}

/// [`machine_id`], made at random and kept in `datadir` (created with mode 0700 when missing) for
/// a machine without one.
pub fn machine_id_or_new(datadir: &Path) -> io::Result<String> {
    match system_id()? {
        Some(id) => Ok(id),
        None => own_id_or_new(datadir),
    }
}

fn system_id() -> io::Result<Option<String>> {
    for path in MACHINE_ID_FILES {
        if let Some(id) = read_id(Path::new(path))? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn read_id(path: &Path) -> io::Result<Option<String>> {
    let bytes = match file::read_small(path, MACHINE_ID_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let id = String::from_utf8_lossy(&bytes).trim().to_owned();
    // systemd has an empty file, or this word, before the first boot.
    let known = !id.is_empty() && id != "uninitialized";
    Ok(known.then_some(id))
}

fn own_id_or_new(datadir: &Path) -> io::Result<String> {
    let own = datadir.join(OWN_MACHINE_ID);
    if let Some(id) = read_id(&own)? {
        return Ok(id);
    }
    let directory = Dir::create(datadir, 0o700)?;
    let id = format!("{:032x}", u128::from_be_bytes(random_bytes()?));
    let temporary = format!(".tmp.machine-id.{id}");
    let made = directory.create_file(temporary.as_bytes(), 0o644)?;
    file::append_all(&made, format!("{id}\n").as_bytes())?;
    file::sync_all(&made)?;
    match directory.rename_noreplace(temporary.as_bytes(), OWN_MACHINE_ID.as_bytes()) {
        Ok(()) => directory.sync_root()?,
        // Another process was quicker: its id counts.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            directory.unlink(temporary.as_bytes())?;
        }
        Err(error) => return Err(error),
    }
    read_id(&own)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_names() {
        let users = b"root:x:0:0::/root:/bin/sh\nlog:x\n:x:7:7::/:\nlogs:x:12:1::/:\n+::::::\n";
        assert_eq!(find_user(users, "logs"), Some(12));
        assert_eq!(find_user(users, "root"), Some(0));
        for unknown in ["log", "roo", "x", "+"] {
            assert_eq!(find_user(users, unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_machine_without_an_id_keeps_the_one_it_was_given() {
        let home = tempfile::tempdir().unwrap();
        let datadir = home.path().join("client");
        let id = own_id_or_new(&datadir).unwrap();
        assert_eq!(id.len(), 32);
        assert_eq!(own_id_or_new(&datadir).unwrap(), id);
        std::fs::write(datadir.join(OWN_MACHINE_ID), "the-originals\n").unwrap();
        assert_eq!(own_id_or_new(&datadir).unwrap(), "the-originals");
        let names = Dir::open(&datadir).unwrap().list(b"").unwrap();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn an_id_of_before_the_first_boot_is_none() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("machine-id");
        for text in ["", "\n", "uninitialized\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_id(&path).unwrap(), None, "{text:?}");
        }
    }
}
