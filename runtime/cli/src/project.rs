//! Stages in their folders: `new`, `build`, and what `test`, `up` and `dev` share with them.
//!
//! What a language is and how it is built is not known here but in `sluicebox-toolchain`. Builds
//! block, so they are done beside the loop of this thread. What compilers say goes to standard
//! error by itself.

mod events;
mod local;
mod shown;
pub(crate) mod trial;
pub(crate) mod up;
mod watch;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sluicebox_core::ids::Name;
use sluicebox_toolchain::project::{Built, files_called};
use sluicebox_toolchain::{Error, Progress, Project, Tools, template};

use crate::args::project::{BuildArgs, Installing, NewArgs};
use crate::deploy::Manifest;
use crate::failure::{Cause, Failure};
use crate::render::grouped;
use crate::screen::Screen;

/// What a pipeline's file is called.
pub(crate) const MANIFEST: &str = "pipeline.toml";

/// Folders below the one that is searched for pipelines.
const DEPTH_MAX: usize = 8;

/// `new`
pub(crate) fn new(screen: Screen, args: NewArgs) -> Result<(), Failure> {
    let language = sluicebox_toolchain::language(&args.lang).map_err(told)?;
    let folder = args.dir.unwrap_or_else(|| PathBuf::from(args.name.as_str()));
    let files = template::write(&folder, args.name.as_str(), language).map_err(told)?;
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let shown = folder.display().to_string();
    screen.result(
        &json!({ "created": shown, "name": args.name.as_str(), "language": language.name(),
                 "files": files }),
        &format!("created {shown}, a stage in {}: {}", language.title(), files.join(", ")),
    )?;
    let missing = Tools::of_user().map(|tools| language.missing(&tools)).unwrap_or_default();
    for missing in missing {
        screen.note(&format!("{} needs {}: {}", language.title(), missing.what, missing.install));
    }
    screen.hint(&format!("next: `sluicebox dev {shown}`, `sluicebox test {shown}`"));
    Ok(())
}

/// `build`
pub(crate) async fn build(screen: Screen, args: BuildArgs) -> Result<(), Failure> {
    let mut projects = Vec::new();
    for dir in &args.dirs {
        projects.extend(stages_below(dir)?);
    }
    if projects.is_empty() {
        let what = format!("there is no stage in {}", shown_list(&args.dirs));
        return Err(Failure::new(Cause::NotFound, what)
            .fix("a stage is a folder with stage.toml; `sluicebox new` makes one"));
    }
    let mut results = Vec::new();
    for project in projects {
        let (project, built) = build_one(screen, project, args.installing).await?;
        if !screen.json() {
            screen.line(&built_text(&project, &built))?;
        }
        results.push(json!({
            "name": project.name,
            "component": project.component.display().to_string(),
            "bytes": built.bytes,
            "changed": built.changed,
            "seconds": built.time.as_secs_f64(),
        }));
    }
    if screen.json() { screen.document(&Value::Array(results)) } else { Ok(()) }
}

/// The stages of a folder and below it.
pub(crate) fn stages_below(folder: &Path) -> Result<Vec<Project>, Failure> {
    if !folder.is_dir() {
        let what = format!("{} is no folder", folder.display());
        return Err(Failure::new(Cause::Local, what).fix("name the folder of a stage"));
    }
    Project::all_below(folder).map_err(told)
}

/// Builds a stage beside the loop of this thread, fetching its tools first if that is allowed.
pub(crate) async fn build_one(
    screen: Screen,
    project: Project,
    installing: Installing,
) -> Result<(Project, Built), Failure> {
    let building = tokio::task::spawn_blocking(move || {
        let tools = Tools::of_user()?;
        let mut progress = Progress::new(|line| screen.note(&format!("{}: {line}", project.name)));
        if installing.install {
            project.language.fetch(&tools, &mut progress)?;
        }
        let built = project.build(&tools, &mut progress)?;
        drop(progress);
        Ok((project, built))
    });
    match building.await {
        Ok(built) => built.map_err(told),
        Err(error) => Err(Failure::new(Cause::Internal, format!("the build broke off: {error}"))),
    }
}

/// One line about a component.
pub(crate) fn built_text(project: &Project, built: &Built) -> String {
    let done = if built.changed { "built" } else { "unchanged:" };
    let here = std::env::current_dir().unwrap_or_default();
    let file = project.component.strip_prefix(here).unwrap_or(&project.component);
    let (file, bytes) = (file.display(), grouped(built.bytes));
    let seconds = built.time.as_secs_f64();
    format!("{done} {}: {file} ({bytes} bytes, {seconds:.1} s)", project.name)
}

/// A pipeline and where it was found.
pub(crate) struct Found {
    /// The folder of its manifest.
    pub(crate) folder: PathBuf,
    pub(crate) manifest: Manifest,
}

/// The pipelines of a folder and below it.
pub(crate) fn pipelines_below(folder: &Path) -> Result<Vec<Found>, Failure> {
    let mut files = Vec::new();
    files_called(MANIFEST, folder, DEPTH_MAX, &mut files).map_err(told)?;
    let found = files.into_iter().map(|file| {
        let folder = file.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Found { folder, manifest: Manifest::read(&file)? })
    });
    found.collect()
}

/// The file of each component of a pipeline that one of these stages is.
pub(crate) fn components_of<'a>(
    manifest: &Manifest,
    projects: &'a [Project],
) -> Vec<(Name, &'a Path)> {
    let names = manifest.components().into_iter();
    let files = names.filter_map(|name| {
        let project = projects.iter().find(|project| project.name == name.as_str())?;
        Some((name, project.component.as_path()))
    });
    files.collect()
}

/// A failure from an error of the toolchain.
pub(crate) fn told(error: Error) -> Failure {
    let cause = match &error {
        Error::NoLanguage { .. } => Cause::Usage,
        Error::Project { .. } | Error::Sources { .. } | Error::Tool { .. } => Cause::Invalid,
        Error::Exists { .. } => Cause::Conflict,
        Error::Missing { .. } | Error::File { .. } => Cause::Local,
    };
    let fix = error.fix();
    Failure::new(cause, error.to_string()).code(error.code()).fix(fix)
}

fn shown_list(dirs: &[PathBuf]) -> String {
    let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    dirs.join(", ")
}
