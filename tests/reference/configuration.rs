//! `docs/reference/configuration.md`, from the settings as the node declares them, and the
//! variables of the environment that are no settings.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use sluicebox_node::config::{Config, SECTIONS, Setting, Sources};
use sluicebox_tests::{node, root};

use super::{MADE, cell, code};

/// Variables that set no field of the configuration, those of one sense with a comma between; a
/// test finds those that are missing.
const VARIABLES: [(&str, &str); 25] = [
    ("SLUICEBOX_CONFIG", "The configuration file, as `--config` names it."),
    ("SLUICEBOX_URL", "Where the node listens, as `--url` names it."),
    ("SLUICEBOX_TENANT", "On whose behalf, as `--tenant` names it."),
    ("SLUICEBOX_TOKEN", "The tenant's token; unlike `--token` other users do not see it."),
    ("SLUICEBOX_CA_CERT", "Certificates that vouch for the node's, as `--ca-cert` names them."),
    ("SLUICEBOX_LOG", "Which lines are logged: `info`, or `sluicebox_node=debug,warn`."),
    ("SLUICEBOX_TOOLS", "Folder of the tools that `--install` fetches."),
    ("SLUICEBOX_REGISTRY_AUTH", "As whom a registry is asked: `USER:PASSWORD@HOST`."),
    ("NO_COLOR", "If it is not empty, nothing is coloured."),
    (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT",
        "Where traces go; the second gets `/v1/traces` behind it. Neither: there are none.",
    ),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL", "`http/protobuf` alone."),
    (
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS, OTEL_EXPORTER_OTLP_HEADERS",
        "What a collector is told with each request.",
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT",
        "Milliseconds of a request, at most; 10000.",
    ),
    ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION, OTEL_EXPORTER_OTLP_COMPRESSION", "`gzip` or `none`."),
    (
        "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE, OTEL_EXPORTER_OTLP_CERTIFICATE",
        "File of certificates that vouch for the collector's, instead of the system's.",
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE, OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        "Refused: the node shows a collector no certificate.",
    ),
    ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY, OTEL_EXPORTER_OTLP_CLIENT_KEY", "Refused, as above."),
    ("OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES", "What the node says of itself in traces."),
    (
        "OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG",
        "Which traces are kept; `parentbased_traceidratio` with 0.01.",
    ),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "Spans that wait to be sent; 2048."),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "Spans of one request to the collector; 512."),
    (
        "OTEL_BSP_SCHEDULE_DELAY, OTEL_BSP_EXPORT_TIMEOUT",
        "Milliseconds that a span waits for others to go with, and that a batch is sent again; \
         5000 and 30000.",
    ),
    ("OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER", "`true`, or `none`: there are no traces."),
    (
        "DOCKER_CONFIG",
        "Folder of the `config.json` with credentials of registries, instead of `~/.docker`.",
    ),
    (
        "SSL_CERT_FILE",
        "Certificates that the command trusts instead of the system's, where none are named \
         for the node.",
    ),
];

/// What any program may look at, and how names of variables begin that are of few.
const OF_ALL: [&str; 2] = ["HOME", "RUSTC"];
const BEGINNINGS: [&str; 2] = ["SLUICEBOX_", "OTEL_"];

/// The page.
pub(super) fn page() -> String {
    let loaded = Config::load(&Sources::default()).expect("the defaults keep every rule");
    let defaults = defaults();
    let mut out = format!(
        "# Configuration reference\n\n{MADE}\n\nEvery setting of a node. The file (`--config`, \
         else `sluicebox.toml` where the node starts) has them as TOML, a table for each heading; \
         the environment has a variable for each and goes before the file, and flags go before \
         both. `sluicebox config reference` writes a file with all of them, `sluicebox config \
         show` what holds and why ([operating](../guide/operate.md#configuration)). All mistakes \
         are told at once; with one, nothing starts (`config.invalid`, exit code 78).\n"
    );
    let mut section = None;
    for setting in &loaded.settings {
        let here = setting.field.split_once('.').map_or("", |(section, _)| section);
        if section != Some(here) {
            section = Some(here);
            heading(&mut out, here);
        }
        row(&mut out, setting, &defaults);
    }
    out.push_str("\n## Other variables of the environment\n\n| variable | says |\n|---|---|\n");
    for (names, about) in VARIABLES {
        let names: Vec<String> = names.split(", ").map(code).collect();
        writeln!(out, "| {} | {about} |", names.join(", ")).expect("to a text");
    }
    out
}

fn heading(out: &mut String, section: &str) {
    match SECTIONS.iter().find(|(name, _)| *name == section) {
        Some((name, about)) => write!(out, "\n## `[{name}]`\n\n{}\n\n", cell(about)),
        None if section.is_empty() => write!(out, "\n## The file\n\n"),
        None => panic!("{section} is not in SECTIONS of runtime/node/src/config/sections.rs"),
    }
    .expect("to a text");
    out.push_str("| setting | variable | default | may be | meaning |\n|---|---|---|---|---|\n");
}

fn row(out: &mut String, setting: &Setting, defaults: &Value) {
    let name = setting.field.split('.').next_back().unwrap_or_default();
    let default = default_of(setting, defaults);
    let variable = variable(&setting.field);
    let (allowed, help) = (cell(&setting.allowed), cell(&setting.help));
    writeln!(out, "| `{name}` | `{variable}` | {default} | {allowed} | {help} |")
        .expect("to a text");
}

/// The variable that sets a field.
fn variable(field: &str) -> String {
    format!("SLUICEBOX__{}", field.replace('.', "__").replace('-', "_")).to_uppercase()
}

/// What the command says of defaults: those that follow from the machine are words there.
fn defaults() -> Value {
    let output = node::run(&["config", "reference", "--output", "json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON was asked for")
}

/// A setting's default: as it would be written, or in the words of the command.
pub(super) fn default_of(setting: &Setting, defaults: &Value) -> String {
    let text = defaults[&setting.field]["default"].as_str().expect("each has a default");
    match text.split_once('#') {
        Some((_, words)) => cell(words),
        None => code(text),
    }
}

/// Every setting with a number, a size or a duration: path, default, range, meaning.
pub(super) fn bounds() -> Vec<[String; 4]> {
    let loaded = Config::load(&Sources::default()).expect("the defaults keep every rule");
    let defaults = defaults();
    let bounded = loaded.settings.iter().filter(|setting| {
        let range = setting.allowed.split_once(" from ");
        range.is_some_and(|(_, range)| range.contains(" to "))
    });
    bounded
        .map(|setting| {
            let range = setting.allowed.split_once(" from ").map_or("", |(_, range)| range);
            let range = range.replace('"', "");
            [
                code(&setting.field),
                default_of(setting, &defaults),
                cell(&range),
                cell(&setting.help),
            ]
        })
        .collect()
}

/// Names that begin with one of [`BEGINNINGS`], or are asked for on the spot, in the sources of the
/// command, the node and the toolchain.
pub(super) fn variables_in_the_source() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["runtime/cli/src", "runtime/node/src", "runtime/toolchain/src"] {
        gather(&root().join(folder), &mut found);
    }
    for known in ["SLUICEBOX_URL", "OTEL_SERVICE_NAME", "DOCKER_CONFIG"] {
        assert!(found.contains(known), "it finds nothing: {found:?}");
    }
    found.retain(|name| !OF_ALL.contains(&name.as_str()));
    found
}

fn gather(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            gather(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source is text");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            found.extend(names(code).map(str::to_owned));
        }
    }
}

/// `"SLUICEBOX_URL"`, with its marks, and no more in it; two lines in a row are of settings.
/// Whatever its name, `var("X")` asks for a variable.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let texts: Vec<&str> = text.split('"').collect();
    let ours = |text: &str| {
        let rest = BEGINNINGS.iter().find_map(|beginning| text.strip_prefix(beginning));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('_'))
    };
    let asked = |before: &str| before.ends_with("env::var(") || before.ends_with("env::var_os(");
    let is_name = move |(before, text): &(&str, &str)| {
        (ours(text) || asked(before))
            && !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    // What is between two texts is no name, so that a quotation mark too many does no harm.
    let pairs: Vec<(&str, &str)> = texts.windows(2).map(|two| (two[0], two[1])).collect();
    pairs.into_iter().filter(is_name).map(|(_, text)| text)
}

#[test]
fn names_of_variables_are_found_in_a_source() {
    let text = r#"env = "SLUICEBOX_URL", "SLUICEBOX__X", "the SLUICEBOX_Y", "SLUICEBOX_Z""#;
    assert_eq!(names(text).collect::<Vec<_>>(), ["SLUICEBOX_URL", "SLUICEBOX_Z"]);
    let text = r#"var("OTHER", "OTEL_", "OTEL_X", env::var_os("A_B"), std::env::var("C"), "D""#;
    assert_eq!(names(text).collect::<Vec<_>>(), ["OTEL_X", "A_B", "C"]);
    assert_eq!(variable("http.body-bytes-max"), "SLUICEBOX__HTTP__BODY_BYTES_MAX");
}
