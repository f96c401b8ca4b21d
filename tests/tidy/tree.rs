//! The files of the repository, as a clone has them.
//!
//! Folders that builds write to, and hidden ones of tools, are left out; so are files that are not
//! text. Paths are relative to the root and use `/`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Folders that hold nothing of ours.
const FOREIGN_FOLDERS: [&str; 6] =
    ["target", "__pycache__", "node_modules", "artifacts", "coverage", "shared"];

/// Hidden files and folders that are ours.
const OWN_HIDDEN: [&str; 7] =
    [".cargo", ".ci", ".config", ".clippy.toml", ".rustfmt.toml", ".deny.toml", ".gitignore"];

/// A text file.
#[derive(Debug)]
pub(crate) struct File {
    /// From the root of the repository.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

impl File {
    /// A file that exists only in a test of a check.
    pub(crate) fn sample(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// True if the whole file is test code.
    pub(crate) fn is_test(&self) -> bool {
        let path = &self.path;
        path.starts_with("tests/")
            || path.contains("/tests/")
            || path.ends_with("/tests.rs")
            || path.contains("/benches/")
    }

    /// The text before the tests at its end; empty if all of it is test code.
    pub(crate) fn code(&self) -> &str {
        if self.is_test() {
            return "";
        }
        let inline = self.text.find("\n#[cfg(test)]\nmod tests {");
        inline.map_or(&self.text, |end| &self.text[..=end])
    }
}

/// All files.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

impl Tree {
    /// The repository these tests belong to, read once.
    pub(crate) fn of_repository() -> &'static Self {
        static TREE: OnceLock<Tree> = OnceLock::new();
        TREE.get_or_init(|| {
            let root = root();
            let mut files = Vec::new();
            collect(&root, &root, &mut files);
            files.sort_by(|a, b| a.path.cmp(&b.path));
            assert!(files.len() > 100, "the repository was not found at {}", root.display());
            Self { files }
        })
    }

    /// The Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.ending(".rs")
    }

    /// The files whose names end so.
    pub(crate) fn ending(&self, end: &str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |file| file.path.ends_with(end))
    }

    /// The text of a file; empty if there is none.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.files.iter().find(|file| file.path == path).map_or("", |file| &file.text)
    }

    /// True if there is such a file or folder.
    pub(crate) fn has(&self, path: &str) -> bool {
        let inside = format!("{path}/");
        self.files.iter().any(|file| file.path == path || file.path.starts_with(&inside))
    }
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests is a folder of the repository").to_path_buf()
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the repository can be read") {
        let path = entry.expect("an entry of a folder can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let hidden = name.starts_with('.') && !OWN_HIDDEN.contains(&name);
        if hidden || FOREIGN_FOLDERS.contains(&name) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let path = path.strip_prefix(root).expect("found below the root");
            let path = path.to_string_lossy().replace('\\', "/");
            files.push(File { path, text });
        }
    }
}
