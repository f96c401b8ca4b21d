//! A new project, from the templates in the program.
//!
//! `templates/common` and `templates/<language>` become one folder, the language's files before the
//! common ones. In texts `{{name}}` is replaced by the stage's name, `{{language}}` by the
//! language's, `{{title}}` by what people call it. A name that would mean something to the tools of
//! this repository is written otherwise there: `gitignore` becomes `.gitignore`, and a last `.in`
//! is left out. Nothing that is there is written over.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::at;
use crate::{Error, Language, Project, Result, sdk};

/// Writes a new project and gives its files, from its folder.
///
/// # Errors
/// There is something at that place already, or it cannot be written.
pub fn write(folder: &Path, name: &str, language: &dyn Language) -> Result<Vec<PathBuf>> {
    let is_there = fs::symlink_metadata(folder).is_ok();
    let is_empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if is_there && !is_empty() {
        return Err(Error::Exists { path: folder.to_path_buf() });
    }
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for from in ["templates/common".to_owned(), format!("templates/{}", language.name())] {
        for (path, bytes) in sdk::files_in(&from) {
            files.insert(place(path), filled(bytes, name, language));
        }
    }
    fs::create_dir_all(folder).map_err(at("make", folder))?;
    for (path, bytes) in &files {
        sdk::write(&folder.join(path), bytes)?;
    }
    // So that an editor finds what the sources import.
    Project::read(folder)?.unpack()?;
    Ok(files.into_keys().collect())
}

/// Where a file of a template goes.
fn place(path: &str) -> PathBuf {
    let path = path.strip_suffix(".in").unwrap_or(path);
    let path = Path::new(path);
    if path.file_name().is_some_and(|name| name == "gitignore") {
        return path.with_file_name(".gitignore");
    }
    path.to_path_buf()
}

fn filled(bytes: &[u8], name: &str, language: &dyn Language) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(bytes) else { return bytes.to_vec() };
    let text = text.replace("{{name}}", name).replace("{{language}}", language.name());
    text.replace("{{title}}", language.title()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LANGUAGES;

    #[test]
    fn every_language_has_a_template_that_is_a_project() {
        for language in LANGUAGES {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path().join("my-stage");
            let files = write(&folder, "my-stage", *language).unwrap();
            for file in ["stage.toml", "pipeline.toml", "events.ndjson", "outputs.ndjson"] {
                assert!(files.contains(&file.into()), "{}: {files:?}", language.name());
            }
            let project = Project::read(&folder).unwrap();
            assert_eq!(
                (project.name.as_str(), project.language.name()),
                ("my-stage", language.name())
            );
            assert!(language.detects(&folder), "{}", language.name());
            for file in files {
                let text = fs::read_to_string(folder.join(&file)).unwrap();
                assert!(!text.contains("{{"), "{}: {}", language.name(), file.display());
            }
        }
    }

    #[test]
    fn every_file_of_a_template_is_in_the_program() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-sdk/templates");
        let copy = tempfile::tempdir().unwrap();
        let count = std::cell::Cell::new(0);
        let counted = |file: &Path| {
            let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
            let found = sdk::files_in("templates").find(|(embedded, _)| *embedded == path);
            let (_, bytes) = found.unwrap_or_else(|| panic!("{path} is left out"));
            assert_eq!(bytes, fs::read(file).unwrap(), "{path}");
            count.set(count.get() + 1);
            false
        };
        crate::sources::copy_tree(&root, copy.path(), &counted).unwrap();
        assert_eq!(count.get(), sdk::files_in("templates").count());
        assert!(count.get() > LANGUAGES.len());
    }

    #[test]
    fn nothing_that_is_there_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "").unwrap();
        let error = write(folder.path(), "x", LANGUAGES[0]).unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
