//! What drivers of devices need of the file system: their own code, what tells them of the machine,
//! and the devices.
//!
//! - Files of the system are those every user of a machine may read, by the folders in which
//!   systems keep drivers. Descriptions of Vulkan's drivers and layers name libraries that may be
//!   anywhere: their folders come along. So do folders that variables of the environment name.
//! - No folder is granted that the directory of the caller's own data is in: then the one file.
//! - Of `/dev/dri` only the nodes that compute: who opens one of the others may get the displays.
//!
//! Leaves to the caller: `/proc/self`, which has to be kept open, and a place to write.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// What all that may read: libraries, descriptions, and what the system says of itself.
const SYSTEM: [&str; 32] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/run/opengl-driver",
    "/opt/amdgpu",
    "/opt/amdgpu-pro",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/vulkan",
    "/etc/xdg/vulkan",
    "/etc/glvnd",
    "/etc/drirc",
    "/etc/nvidia",
    "/etc/localtime",
    "/proc/cpuinfo",
    "/proc/devices",
    "/proc/driver",
    "/proc/meminfo",
    "/proc/modules",
    "/proc/version",
    "/proc/sys/vm",
    "/sys/bus",
    "/sys/class",
    "/sys/dev",
    "/sys/devices",
    "/sys/kernel/mm/transparent_hugepage",
    "/sys/module",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
];

/// Where folders of descriptions of drivers and layers are, and where they are below `HOME`.
const VULKAN_HOMES: [&str; 4] =
    ["/etc/vulkan", "/etc/xdg/vulkan", "/usr/share/vulkan", "/usr/local/share/vulkan"];
const VULKAN_OWN: [&str; 2] = [".local/share/vulkan", ".config/vulkan"];
const VULKAN_KINDS: [&str; 3] = ["icd.d", "explicit_layer.d", "implicit_layer.d"];

/// Variables that name such descriptions, or folders of them, divided by colons.
const DESCRIPTIONS: [&str; 7] = [
    "VK_ICD_FILENAMES",
    "VK_DRIVER_FILES",
    "VK_ADD_DRIVER_FILES",
    "VK_LAYER_PATH",
    "VK_ADD_LAYER_PATH",
    "VK_IMPLICIT_LAYER_PATH",
    "VK_ADD_IMPLICIT_LAYER_PATH",
];

/// Variables that name folders of libraries.
const LIBRARIES: [&str; 2] = ["LD_LIBRARY_PATH", "LIBGL_DRIVERS_PATH"];

/// How the names of devices begin that compute: those of Linux's own interface are in a folder.
const DEVICES: [&str; 7] = ["nvidia", "nvhost-", "nvmap", "nvgpu", "kfd", "dxg", "kgsl-"];
const RENDER_FOLDER: &str = "/dev/dri";
const RENDER: &str = "renderD";

/// Bytes of a description at most.
const DESCRIPTION_BYTES_MAX: u64 = 256 << 10;

/// What drivers need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// For [`Bounds::read`](crate::Bounds::read).
    pub read: Vec<PathBuf>,
    /// For [`Bounds::list`](crate::Bounds::list).
    pub list: Vec<PathBuf>,
    /// For [`Bounds::devices`](crate::Bounds::devices).
    pub devices: Vec<PathBuf>,
}

impl Needs {
    /// Looks what there is: `variable` is what the environment says, `data` where nothing is to be
    /// read that is not granted by name.
    #[must_use]
    pub fn find(variable: impl Fn(&str) -> Option<OsString>, data: &Path) -> Self {
        let mut found = Found { data: fs::canonicalize(data).ok(), read: BTreeSet::new() };
        SYSTEM.iter().for_each(|path| found.add(Path::new(path)));
        let listed = |names: &[&str]| -> Vec<PathBuf> {
            let values = names.iter().filter_map(|name| variable(name));
            values.flat_map(|value| std::env::split_paths(&value).collect::<Vec<_>>()).collect()
        };
        for folder in listed(&LIBRARIES) {
            found.add(&folder);
        }
        let home = variable("HOME").map(PathBuf::from);
        let own = home.iter().flat_map(|home| VULKAN_OWN.map(|own| home.join(own)));
        let kinds = VULKAN_HOMES.iter().map(PathBuf::from).chain(own).flat_map(|folder| {
            found.add(&folder);
            VULKAN_KINDS.map(|kind| folder.join(kind))
        });
        for path in kinds.collect::<Vec<_>>().into_iter().chain(listed(&DESCRIPTIONS)) {
            found.describe(&path);
        }
        if let Some(home) = home {
            found.add(&home.join(".drirc"));
        }
        Self {
            read: found.read.into_iter().collect(),
            list: vec![RENDER_FOLDER.into()],
            devices: devices(),
        }
    }
}

/// Devices that compute.
fn devices() -> Vec<PathBuf> {
    let beginning = |folder: &str, begins: &[&str]| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let meant = entries.filter(|entry| {
            let name = entry.file_name();
            begins.iter().any(|begin| name.to_string_lossy().starts_with(begin))
        });
        meant.map(|entry| entry.path()).collect()
    };
    [beginning(RENDER_FOLDER, &[RENDER]), beginning("/dev", &DEVICES)].concat()
}

/// What may be read, as it is found.
struct Found {
    data: Option<PathBuf>,
    read: BTreeSet<PathBuf>,
}

impl Found {
    /// A file, or a folder that the data is not in.
    fn add(&mut self, path: &Path) {
        // What is not there needs no right; what is named from where the process happens to be
        // cannot be meant.
        let Ok(real) = fs::canonicalize(path) else { return };
        let has_data = self.data.as_ref().is_some_and(|data| data.starts_with(&real));
        if path.is_absolute() && !has_data {
            self.read.insert(real);
        }
    }

    /// A description, or a folder of them, with the libraries they name.
    fn describe(&mut self, path: &Path) {
        self.add(path);
        if let Ok(entries) = fs::read_dir(path) {
            let files = entries.flatten().map(|entry| entry.path());
            for file in files.filter(|file| file.extension().is_some_and(|it| it == "json")) {
                self.add(&file);
                self.libraries_of(&file);
            }
        } else {
            self.libraries_of(path);
        }
    }

    fn libraries_of(&mut self, description: &Path) {
        let is_small = fs::metadata(description).is_ok_and(|it| it.len() <= DESCRIPTION_BYTES_MAX);
        let Some(text) = is_small.then(|| fs::read_to_string(description).ok()).flatten() else {
            return;
        };
        let folder = description.parent().unwrap_or(description);
        for library in libraries_in(&text).filter(|library| library.contains('/')) {
            let library = folder.join(library);
            self.add(&library);
            // What it is linked with is often beside it, and what it is a link to elsewhere.
            for path in [Some(library.clone()), fs::canonicalize(&library).ok()] {
                path.iter().filter_map(|path| path.parent()).for_each(|folder| self.add(folder));
            }
        }
    }
}

/// The libraries that a description names. What it says else is for the loader to understand.
fn libraries_in(description: &str) -> impl Iterator<Item = String> {
    description.split("\"library_path\"").skip(1).filter_map(|behind| {
        let value = behind.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        Some(value.split('"').next()?.replace("\\/", "/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_out_of_descriptions() {
        let found = |text: &str| libraries_in(text).collect::<Vec<_>>();
        let usual = r#"{ "ICD": { "api_version": "1.3", "library_path" : "/opt\/x/lib.so" } }"#;
        assert_eq!(found(usual), ["/opt/x/lib.so"]);
        let two = r#"{"layers":[{"library_path":"a.so"},{"library_path":"./b.so"}]}"#;
        assert_eq!(found(two), ["a.so", "./b.so"]);
        for none in ["", "{}", r#"{"library_path": 3}"#, r#"{"library_path""#] {
            assert!(found(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn what_variables_name_is_granted_but_not_what_the_data_is_in() {
        let base = tempfile::tempdir().unwrap();
        let at = |path: &str| base.path().join(path);
        for folder in ["data/gpu", "driver/lib", "libraries"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("driver/lib/a.so"), "").unwrap();
        fs::write(at("driver/icd.json"), r#"{"ICD":{"library_path":"lib/a.so"}}"#).unwrap();
        fs::write(at("b.so"), "").unwrap();
        fs::write(at("b.json"), r#"{"ICD":{"library_path":"./b.so"}}"#).unwrap();
        let needs = Needs::find(
            |name| match name {
                "VK_DRIVER_FILES" => {
                    std::env::join_paths([at("driver/icd.json"), at("b.json")]).ok()
                }
                "LD_LIBRARY_PATH" => {
                    let empty = PathBuf::new();
                    std::env::join_paths([at("libraries"), empty, at(""), "/".into()]).ok()
                }
                _ => None,
            },
            &at("data/gpu"),
        );
        let real = fs::canonicalize(base.path()).unwrap();
        let has = |path: &str| needs.read.contains(&real.join(path));
        assert!(has("driver/lib") && has("driver/lib/a.so") && has("driver/icd.json"));
        assert!(has("libraries") && has("b.so") && has("b.json"));
        let over: Vec<_> =
            needs.read.iter().filter(|path| real.join("data/gpu").starts_with(path)).collect();
        assert!(over.is_empty(), "{over:?}");
        assert!(needs.read.contains(&PathBuf::from("/usr")), "{needs:?}");
    }
}
