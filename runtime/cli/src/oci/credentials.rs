//! As whom a registry is asked, when it wants to know.
//!
//! A credential is of one registry and is read when that asks for one:
//! `SLUICEBOX_REGISTRY_AUTH=USER:PASSWORD@REGISTRY` first, then what `docker login` wrote. Programs
//! that keep credentials are not started: that would run whatever a file names.

use std::io::Read as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use serde_json::Value;

use crate::failure::{Cause, Failure};

/// `USER:PASSWORD@REGISTRY`.
const VARIABLE: &str = "SLUICEBOX_REGISTRY_AUTH";

/// Largest file of credentials.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where Docker's own registry is, and how credentials for it are filed.
pub(super) const DOCKER: &str = "docker.io";
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// What is known for one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    None,
    /// `Basic …`
    Basic(HeaderValue),
    /// There are some, in a form that is not read; the text says which.
    Elsewhere(&'static str),
}

impl Credentials {
    /// Those for a registry.
    pub(super) fn of(registry: &str) -> Result<Self, Failure> {
        if let Some(text) = std::env::var_os(VARIABLE) {
            let text = text.to_string_lossy();
            let (user, known) =
                text.rsplit_once('@').filter(|(user, _)| user.contains(':')).ok_or_else(|| {
                    Failure::new(Cause::Usage, format!("{VARIABLE} is not USER:PASSWORD@REGISTRY"))
                        .fix("write it so; it is used for this one registry alone")
                })?;
            if known.eq_ignore_ascii_case(registry) {
                return basic(&STANDARD.encode(user));
            }
        }
        let Some(file) = file() else { return Ok(Self::None) };
        let opened = match std::fs::File::open(&file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::None),
            Err(error) => {
                return Err(Failure::local(format!("read {}", file.display()), &error));
            }
        };
        let mut text = Vec::new();
        let read = opened.take(FILE_BYTES_MAX).read_to_end(&mut text);
        read.map_err(|error| Failure::local(format!("read {}", file.display()), &error))?;
        let config: Value = serde_json::from_slice(&text).map_err(|error| {
            let what = format!("{} cannot be read: {error}", file.display());
            Failure::new(Cause::Usage, what).fix("`docker login` writes it anew")
        })?;
        Self::filed(&config, registry)
    }

    /// What Docker's file has.
    fn filed(config: &Value, registry: &str) -> Result<Self, Failure> {
        let own =
            [registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v1/")];
        let docker = (registry == DOCKER).then(|| DOCKER_KEY.to_owned());
        let filed = |table: &str| {
            let table = config.get(table)?;
            own.iter().chain(&docker).find_map(|key| table.get(key))
        };
        if let Some(entry) = filed("auths") {
            let text = |name: &str| {
                entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
            };
            if text("identitytoken").is_some() {
                return Ok(Self::Elsewhere("as an identity token"));
            }
            if let Some(auth) = text("auth") {
                return basic(auth);
            }
        }
        let is_helped = filed("credHelpers").is_some()
            || config
                .get("credsStore")
                .and_then(Value::as_str)
                .is_some_and(|name| !name.is_empty());
        Ok(if is_helped { Self::Elsewhere("with a credential helper") } else { Self::None })
    }

    /// What to do when the registry does not let anybody in, or not this one.
    pub(super) fn remedy(&self, registry: &str) -> String {
        let set = format!("set {VARIABLE}=USER:PASSWORD@{registry}");
        match self {
            Self::None => format!("`docker login {registry}`, or {set}"),
            Self::Basic(_) => {
                format!(
                    "the credentials for {registry} were refused; `docker login {registry}` again, or {set}"
                )
            }
            Self::Elsewhere(how) => {
                format!(
                    "Docker keeps the credentials for {registry} {how}, which is not supported: {set}"
                )
            }
        }
    }
}

fn basic(encoded: &str) -> Result<Credentials, Failure> {
    let value = HeaderValue::try_from(format!("Basic {}", encoded.trim()));
    let mut value = value.map_err(|_| {
        Failure::new(Cause::Usage, "the credentials for the registry have characters none have")
            .fix("`docker login` again")
    })?;
    value.set_sensitive(true);
    Ok(Credentials::Basic(value))
}

/// Docker's file, if there can be one.
fn file() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
    folder.map(|folder| folder.join("config.json"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_docker_wrote_is_of_one_registry() {
        let config = json!({ "auths": {
            "ghcr.io": { "auth": "dTpw" },
            "https://quay.io": { "auth": "cTpw" },
            "https://index.docker.io/v1/": { "auth": "ZDpw" },
            "acr.io": { "auth": "eDpw", "identitytoken": "ey" },
            "helped.io": {},
        }, "credHelpers": { "helped.io": "pass" } });
        let known = |registry: &str| Credentials::filed(&config, registry).unwrap();
        let is = |encoded: &str| basic(encoded).unwrap();
        assert_eq!(known("ghcr.io"), is("dTpw"));
        assert_eq!(known("quay.io"), is("cTpw"));
        assert_eq!(known("docker.io"), is("ZDpw"));
        for none in ["ghcr.io:443", "evil-ghcr.io", "io", "docker.io.evil"] {
            assert_eq!(known(none), Credentials::None, "{none}");
        }
        for (registry, how) in [("acr.io", "identity token"), ("helped.io", "helper")] {
            let remedy = known(registry).remedy(registry);
            assert!(remedy.contains(how) && remedy.contains("not supported"), "{remedy}");
        }
        let all = json!({ "auths": {}, "credsStore": "desktop" });
        assert!(matches!(Credentials::filed(&all, "h").unwrap(), Credentials::Elsewhere(_)));
    }

    #[test]
    fn a_credential_is_not_shown() {
        let known = Credentials::filed(&json!({ "auths": { "h": { "auth": "dTpw" } } }), "h");
        assert!(!format!("{:?}", known.unwrap()).contains("dTpw"));
    }
}
