//! What the kernel says of control groups: in which ones this process is, and where their trees
//! can be seen.
//!
//! Keeps true: a name leads to a directory below a mount of its own tree or nowhere; what is not
//! as the kernel writes it is passed over. Names may hold anything that others put there: a mount
//! is made by whoever may mount, and a group by whoever owns one.

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use super::Version;
use crate::Error;

/// Bytes of either file that are read; a machine of containers has thousands of mounts.
const BYTES_MAX: u64 = 16 << 20;

/// In which group this process is, in one tree.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Own {
    /// None in the tree of v2.
    controllers: Vec<String>,
    path: String,
}

/// A tree that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The group that is seen at the mount.
    root: PathBuf,
    point: PathBuf,
    /// Of v1: controllers and other words.
    words: Vec<String>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct System {
    own: Vec<Own>,
    mounts: Vec<Mount>,
    /// The number of this process.
    pub(super) process: u32,
}

impl System {
    pub(super) fn read() -> Result<Self, Error> {
        let read = |path: &str| {
            let mut bytes = Vec::new();
            let file = std::fs::File::open(path);
            file.and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes))
                .map_err(Error::group("read", Path::new(path)))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (own, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
        Ok(Self::parse(&own, &mounts, std::process::id()))
    }

    /// From the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
    pub(super) fn parse(own: &str, mounts: &str, process: u32) -> Self {
        let own = own.lines().filter_map(own_of).collect();
        let mounts = mounts.lines().filter_map(mount_of).collect();
        Self { own, mounts, process }
    }

    /// The group of this process in the tree of a controller; `None` for that of v2.
    pub(super) fn own(&self, controller: Option<&str>) -> Option<&str> {
        let is_of = |own: &&Own| match controller {
            None => own.controllers.is_empty(),
            Some(name) => own.controllers.iter().any(|known| known == name),
        };
        self.own.iter().find(is_of).map(|own| own.path.as_str())
    }

    /// Whether the tree of a controller, or of v2, is mounted.
    pub(super) fn is_mounted(&self, controller: Option<&str>) -> bool {
        self.mounts.iter().any(|mount| mount.is_of(controller))
    }

    /// Where a group of that tree can be seen. It need not exist.
    pub(super) fn directory(&self, controller: Option<&str>, group: &Path) -> Option<PathBuf> {
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        if !group.is_absolute() || !group.components().all(is_plain) {
            return None;
        }
        let mut mounts = self.mounts.iter().filter(|mount| mount.is_of(controller));
        mounts.find_map(|mount| {
            let below = group.strip_prefix(&mount.root).ok()?;
            // Joined to nothing a path would end with a slash.
            let is_root = below.as_os_str().is_empty();
            Some(if is_root { mount.point.clone() } else { mount.point.join(below) })
        })
    }
}

impl Mount {
    fn is_of(&self, controller: Option<&str>) -> bool {
        match controller {
            None => self.version == Version::V2,
            Some(name) => self.version == Version::V1 && self.words.iter().any(|word| word == name),
        }
    }
}

/// `4:memory:/a/b`, or `0::/a/b` of v2.
fn own_of(line: &str) -> Option<Own> {
    let mut parts = line.splitn(3, ':');
    let (number, names, path) = (parts.next()?, parts.next()?, parts.next()?);
    if !path.starts_with('/') || (names.is_empty() && number != "0") {
        return None;
    }
    let controllers = names.split(',').filter(|name| !name.is_empty());
    Some(Own { controllers: controllers.map(str::to_owned).collect(), path: path.to_owned() })
}

/// `35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory`
fn mount_of(line: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (plain(place.next()?)?, plain(place.next()?)?);
    let mut kind = kind.split(' ');
    let version = match kind.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let words = kind.nth(1)?.split(',').map(str::to_owned).collect();
    let (root, point) = (PathBuf::from(root), PathBuf::from(point));
    (root.is_absolute() && point.is_absolute()).then_some(Mount { version, root, point, words })
}

/// A field of mountinfo as it is: blanks and the like are written as three octal digits.
fn plain(field: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [byte, behind @ ..] = rest {
        rest = behind;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..3)?).ok()?;
        let is_octal = digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        bytes.push(u8::from_str_radix(digits, 8).ok().filter(|_| is_octal)?);
        rest = &rest[3..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory
36 31 0:32 / /mnt/all\\040of\\040it rw shared:1 master:2 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    fn system() -> System {
        let own = "9:name=systemd:/\n4:memory:/docker/abc/n\n1:cpu,cpuacct:/x:y\n0::/user.slice\n";
        System::parse(own, MOUNTS, 7)
    }

    fn at(controller: Option<&str>, group: &str) -> Option<String> {
        let found = system().directory(controller, Path::new(group));
        found.map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_groups_of_a_process_are_read() {
        let system = system();
        assert_eq!(system.own(Some("memory")), Some("/docker/abc/n"));
        assert_eq!(system.own(Some("cpuacct")), Some("/x:y"));
        assert_eq!(system.own(None), Some("/user.slice"));
        assert_eq!((system.own(Some("pids")), system.own(Some(""))), (None, None));
    }

    #[test]
    fn a_group_is_found_below_a_mount_that_shows_it() {
        assert_eq!(at(Some("cpu"), "/x").unwrap(), "/sys/fs/cgroup/cpu,cpuacct/x");
        assert_eq!(at(None, "/").unwrap(), "/sys/fs/cgroup/unified");
        // The first mount shows one group and what is in it.
        assert_eq!(at(Some("memory"), "/docker/abc/n").unwrap(), "/sys/fs/cgroup/memory/n");
        assert_eq!(at(Some("memory"), "/docker/abcd").unwrap(), "/mnt/all of it/docker/abcd");
        assert_eq!(at(Some("pids"), "/x"), None);
        assert!(system().is_mounted(None) && !system().is_mounted(Some("pids")));
    }

    #[test]
    fn no_name_leads_out_of_its_tree() {
        for name in ["/../../etc", "/a/../../b", "x", "", "/./x/.."] {
            assert_eq!(at(None, name), None, "{name}");
        }
    }

    #[test]
    fn what_is_no_line_of_the_kernel_s_is_passed_over() {
        let lines = [
            "",
            ":",
            "::",
            "0:",
            "0::",
            "0::x",
            "1::/x",
            "a:b",
            "\0",
            "- cgroup cgroup rw,memory",
            "1 2 3 / - cgroup2",
            "1 2 3 / /x rw - cgroup2 cgroup2",
            "1 2 3 a /x rw - cgroup2 c rw",
            "1 2 3 / x rw - cgroup2 cgroup2 rw",
            "1 2 3 / /\\04 rw - cgroup2 cgroup2 rw",
            "1 2 3 / /\\0é0 rw - cgroup2 c rw",
            "1 2 3 / /\\+10 rw - cgroup2 c rw",
            "1 2 3 / /\\777 rw - cgroup2 c rw",
            "1 2 3 / /\\377 rw - cgroup2 c rw",
            "1 2 3 / /x rw - cgroup3 c rw",
        ];
        let system = System::parse(&lines.join("\n"), &lines.join("\n"), 1);
        assert_eq!(system, System { own: Vec::new(), mounts: Vec::new(), process: 1 });
        // However much of a good text there is.
        for end in (0..MOUNTS.len()).filter(|end| MOUNTS.is_char_boundary(*end)) {
            let cut = System::parse(&MOUNTS[end..], &MOUNTS[..end], 1);
            assert!(cut.mounts.len() <= 6);
        }
    }
}
