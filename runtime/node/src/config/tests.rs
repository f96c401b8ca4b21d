//! The configuration as a whole: defaults, what is refused, what belongs together.

use super::*;

fn load(text: &str) -> Result<Loaded, ConfigError> {
    let file = Some((PathBuf::from("sluicebox.toml"), text.to_owned()));
    Config::load(&Sources { file, ..Sources::default() })
}

#[test]
fn the_defaults_keep_every_rule() {
    let config = Config::default();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:7411");
    assert!(!config.node.dev);
    assert_eq!(config.node.tenants_file, config.node.data_dir.join("tenants.toml"));
}

#[test]
fn the_quotas_are_those_of_a_tenant_unless_configured() {
    assert_eq!(Config::default().quota.allowance(), Allowance::DEFAULT);
    let config = load("[quota]\npipelines = 3\nmemory-bytes = \"1MiB\"\n").unwrap().config;
    assert_eq!(config.quota.allowance().pipelines, 3);
    assert_eq!(config.quota.allowance().memory_bytes, 1 << 20);
}

#[test]
fn every_mistake_is_reported_at_once_with_field_and_range() {
    let error = load(
        "version = 2\n[http]\nlisten = \"localhost\"\nbody-bytes-max = 5\n\
         [limits]\ninbox-byte = \"1MiB\"\n[node]\nworkers = 0\n",
    )
    .unwrap_err();
    let text = error.to_string();
    assert_eq!(error.problems.len(), 5, "{text}");
    for part in [
        "version: 2 is not allowed; it must be 1 (sluicebox.toml:1)",
        "http.listen: \"localhost\" is not allowed; it must be an IP address and a port",
        "from \"4KiB\" to \"1GiB\" (sluicebox.toml:4)",
        "limits.inbox-byte: there is no such field; did you mean `limits.inbox-bytes`?",
        "node.workers: 0 is not allowed; it must be a whole number from 1 to 1024",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    assert_eq!((error.kind(), error.code()), (Kind::Invalid, "config.invalid"));
}

#[test]
fn development_mode_is_refused_on_an_open_address() {
    for address in ["0.0.0.0:80", "[::]:80", "192.0.2.7:80"] {
        let text = format!("[node]\ndev = true\n[http]\nlisten = \"{address}\"\n");
        let error = load(&text).unwrap_err().to_string();
        assert!(error.contains("no tokens") && error.contains("http.listen"), "{error}");
    }
    for address in ["127.0.0.9:80", "[::1]:80"] {
        let text = format!("[node]\ndev = true\n[http]\nlisten = \"{address}\"\n");
        assert!(load(&text).is_ok(), "{address}");
    }
}

#[test]
fn a_certificate_and_its_key_come_together() {
    for (text, field) in [("certificate = \"c\"", "tls.key"), ("key = \"k\"", "tls.certificate")] {
        let error = load(&format!("[tls]\n{text}\n")).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
    assert!(load("[tls]\ncertificate = \"c\"\nkey = \"k\"\n").is_ok());
    assert_eq!(load("[tls]\ncertificate = \"\"\n").unwrap().config.tls.certificate, None);
}

#[test]
fn fields_that_contradict_each_other_are_refused() {
    let error = load("[limits]\ningest-bytes = \"1MiB\"\n").unwrap_err().to_string();
    assert!(error.contains("limits.ingest-bytes") && error.contains("http.body-bytes-max"));
}

#[test]
fn every_setting_is_shown_in_the_form_the_file_takes() {
    let loaded = Config::load(&Sources::default()).unwrap();
    let mut text = String::new();
    let mut section = "";
    for setting in &loaded.settings {
        assert!(!setting.help.is_empty(), "{} has no help", setting.field);
        assert_eq!(setting.origin, Origin::Default);
        let (table, field) = setting.field.split_once('.').unwrap_or(("", &setting.field));
        if table != section {
            text.push_str(&format!("[{table}]\n"));
            section = table;
        }
        text.push_str(&format!("{field} = {}\n", setting.value));
    }
    assert_eq!(load(&text).unwrap().config, loaded.config);
}

#[test]
fn the_environment_and_flags_name_their_own_mistakes() {
    let mut sources = Sources::default();
    sources.environment.push(("SLUICEBOX__HTTP__LISTEN".to_owned(), "here".to_owned()));
    sources.flag("--workers", "node.workers", "many");
    let text = Config::load(&sources).unwrap_err().to_string();
    assert!(text.contains("(SLUICEBOX__HTTP__LISTEN)"), "{text}");
    assert!(text.contains("(--workers)"), "{text}");
}
