//! `config`: showing, checking and explaining a node's configuration.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use sluicebox_node::config::{Config, FILE, Loaded, Origin, Setting, Sources};

use crate::args::ConfigCommand;
use crate::args::node::{ConfigArgs, Configuration, Overrides};
use crate::failure::Failure;
use crate::screen::Screen;

/// Columns a comment of the reference may take.
const COMMENT_CHARS_MAX: usize = 96;

/// `config`
pub(crate) fn run(screen: Screen, command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Show(args) => {
            let loaded = load(&args)?;
            screen.result(&as_json(&loaded.settings), &shown(&loaded.settings))
        }
        ConfigCommand::Check(args) => {
            let loaded = load(&args)?;
            let set = loaded.settings.iter().filter(|s| s.origin != Origin::Default).count();
            let text = format!("the configuration is right; {set} fields differ from the defaults");
            screen.result(&json!({ "valid": true, "set": set }), &text)
        }
        ConfigCommand::Reference => {
            let loaded = Config::load(&Sources::default())?;
            screen.result(&reference_json(&loaded.settings), &reference(&loaded.settings))
        }
    }
}

fn load(args: &ConfigArgs) -> Result<Loaded, Failure> {
    Ok(Config::load(&sources(&args.configuration, &args.overrides)?)?)
}

/// File, environment and flags.
pub(crate) fn sources(
    configuration: &Configuration,
    overrides: &Overrides,
) -> Result<Sources, Failure> {
    let gathered = Sources::gather(configuration.config.as_deref(), Path::new(FILE));
    let mut sources = gathered.map_err(sluicebox_node::config::ConfigError::from)?;
    if let Some(data_dir) = &configuration.data_dir {
        sources.flag("--data-dir", "node.data-dir", data_dir.display());
    }
    if let Some(listen) = overrides.listen {
        sources.flag("--listen", "http.listen", listen);
    }
    if let Some(certificate) = &overrides.tls_certificate {
        sources.flag("--tls-certificate", "tls.certificate", certificate.display());
    }
    if let Some(key) = &overrides.tls_key {
        sources.flag("--tls-key", "tls.key", key.display());
    }
    if let Some(node) = &overrides.node {
        sources.flag("--node", "cluster.node", node);
    }
    if let Some(nodes) = &overrides.nodes {
        sources.flag("--nodes", "cluster.nodes", nodes);
    }
    if let Some(workers) = overrides.workers {
        sources.flag("--workers", "node.workers", workers);
    }
    if overrides.dev {
        sources.flag("--dev", "node.dev", true);
    }
    Ok(sources)
}

/// As a configuration file; where a value came from is said behind it.
fn shown(settings: &[Setting]) -> String {
    let mut text = String::new();
    let assignment = |setting: &Setting| format!("{} = {}", parts(setting).1, setting.value);
    let width = settings.iter().map(|s| assignment(s).chars().count()).max().unwrap_or(0).min(48);
    for_sections(&mut text, settings, |text, setting| {
        writeln!(text, "{:<width$}  # {}", assignment(setting), setting.origin)
    });
    text
}

/// As a configuration file with every field switched off by a comment sign, its meaning above.
fn reference(settings: &[Setting]) -> String {
    let mut text = String::from(
        "# Configuration of a sluicebox node. Every field with its default; take the sign before\n\
         # a field away to set it. The environment can say the same: SLUICEBOX__HTTP__LISTEN.\n",
    );
    for_sections(&mut text, settings, |text, setting| {
        writeln!(text)?;
        for line in wrapped(&format!("{} It is {}.", setting.help, setting.allowed)) {
            writeln!(text, "# {line}")?;
        }
        writeln!(text, "#{} = {}", parts(setting).1, default_text(setting))
    });
    text
}

/// Defaults that follow from the machine are said in words, so that the reference is the same
/// everywhere.
fn default_text(setting: &Setting) -> String {
    match setting.field.as_str() {
        "node.data-dir" => "\"…\"  # the user's data directory, then sluicebox".to_owned(),
        "node.tenants-file" => "\"…\"  # tenants.toml in node.data-dir".to_owned(),
        "node.workers" => "…  # one for each core".to_owned(),
        "engine.memory-bytes-total" | "cluster.memory-bytes" => {
            "\"…\"  # half of the machine's memory".to_owned()
        }
        _ => setting.value.clone(),
    }
}

/// Writes settings with a heading before each new section.
fn for_sections(
    text: &mut String,
    settings: &[Setting],
    mut each: impl FnMut(&mut String, &Setting) -> std::fmt::Result,
) {
    let mut current = "";
    for setting in settings {
        let (section, _) = parts(setting);
        if section != current {
            current = section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        each(text, setting).expect("a String takes whatever is written");
    }
}

fn parts(setting: &Setting) -> (&str, &str) {
    setting.field.split_once('.').unwrap_or(("", &setting.field))
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > COMMENT_CHARS_MAX {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn as_json(settings: &[Setting]) -> Value {
    let one = |s: &Setting| json!({ "value": s.value, "origin": s.origin.to_string() });
    settings.iter().map(|s| (s.field.clone(), one(s))).collect::<serde_json::Map<_, _>>().into()
}

fn reference_json(settings: &[Setting]) -> Value {
    let one =
        |s: &Setting| json!({ "help": s.help, "allowed": s.allowed, "default": default_text(s) });
    settings.iter().map(|s| (s.field.clone(), one(s))).collect::<serde_json::Map<_, _>>().into()
}
