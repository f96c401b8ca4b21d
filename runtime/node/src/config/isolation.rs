//! Tenants in processes of their own: how many, and what each may use.

use std::path::{Component, PathBuf};
use std::time::Duration;

use sluicebox_confine::cgroup::Wanted;

use super::reader::{Raw, Reader};
use super::shape::{Bytes, Count, Period, Shape, Switch, Wrong, wrong};
use super::{GIB, HOUR, MIB, MILLISECOND, MINUTE, SECOND, TIB};

section! {
    /// Tenants in processes of their own, and what holds for each such process.
    IsolationConfig in "isolation" {
        /// Whether tenants have processes of their own, unless the tenants file says otherwise.
        processes: bool = Switch { default: false };
        /// Processes of tenants at once; a tenant that would be one more waits until one ends.
        processes_max: u16 = Count { default: 64, least: 1, most: 10_000 };
        /// How long a process with nothing to do goes on before it ends.
        idle_time_max: Duration =
            Period { default: MINUTE, least: 100 * MILLISECOND, most: 24 * HOUR };
        /// Longest time until a process is ready; also how long a request waits for it.
        start_time_max: Duration = Period { default: 30 * SECOND, least: SECOND, most: HOUR };
        /// Component instances that may exist at once in one process; fewer start sooner.
        instances: u32 = Count { default: 1_000, least: 1, most: 30_000 };
        /// Memory a process may use, its guests' included; in a control group, all it starts as
        /// well.
        memory_bytes_max: usize = Bytes { default: 4 * GIB, least: 256 * MIB, most: 64 * TIB };
        /// Processor time of a process, in percent of one processor; 0: as much as is free.
        cpu_percent_max: u32 = Count { default: 0, least: 0, most: 100_000 };
        /// Threads of a process and of what it starts.
        tasks_max: u32 = Count { default: 4_096, least: 64, most: 4_000_000 };
        /// Control group below which each process has one, which the last two limits need.
        cgroup: GroupPlace = MaybeGroup;
    }
}

/// Where control groups of processes are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupPlace {
    /// Below the node's own group, if that can be done.
    Auto,
    /// Nowhere.
    Off,
    /// Below this one, named from the root of the tree of groups; or no process is started.
    Named(PathBuf),
}

impl GroupPlace {
    /// The same as what is looked for; `None` for nothing.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        match self {
            Self::Auto => Some(Wanted::Own),
            Self::Off => None,
            Self::Named(group) => Some(Wanted::Named(group.clone())),
        }
    }
}

/// The shape of [`GroupPlace`].
struct MaybeGroup;

impl Shape for MaybeGroup {
    type Value = GroupPlace;

    fn default(&self) -> GroupPlace {
        GroupPlace::Auto
    }

    fn read(&self, raw: &Raw) -> Result<GroupPlace, Wrong> {
        let (Raw::Text(text) | Raw::Word(text)) = raw else { return Err(wrong(self, raw)) };
        let path = PathBuf::from(text);
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        match text.as_str() {
            "auto" => Ok(GroupPlace::Auto),
            "off" => Ok(GroupPlace::Off),
            _ if text.contains(char::is_control) => Err(wrong(self, raw)),
            _ if path.is_absolute() && path.components().all(is_plain) => {
                Ok(GroupPlace::Named(path))
            }
            _ => Err(wrong(self, raw)),
        }
    }

    fn write(&self, value: &GroupPlace) -> String {
        let text = match value {
            GroupPlace::Auto => "auto".into(),
            GroupPlace::Off => "off".into(),
            GroupPlace::Named(path) => path.to_string_lossy(),
        };
        toml::Value::String(text.into_owned()).to_string()
    }

    fn allowed(&self) -> String {
        "\"auto\", for the node's own; \"off\"; or a group as in /proc/self/cgroup, such as \
         \"/system.slice/sluicebox.service\""
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_named_from_the_root_or_by_a_word() {
        let read = |text: &str| MaybeGroup.read(&Raw::Text(text.to_owned()));
        assert_eq!(read("auto"), Ok(GroupPlace::Auto));
        assert_eq!(read("off"), Ok(GroupPlace::Off));
        let named = GroupPlace::Named(PathBuf::from("/a.slice/b c"));
        assert_eq!(read("/a.slice/b c"), Ok(named.clone()));
        assert_eq!(MaybeGroup.write(&named), "\"/a.slice/b c\"");
        for text in ["", "on", "a/b", "/a/../b", "/a\n", "/\0"] {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert!(MaybeGroup.read(&Raw::Boolean(false)).is_err());
    }
}
