//! Who gets in, who does not, and what a changed file changes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::SystemTime;

use sluicebox_core::error::Classify as _;
use sluicebox_core::quota::Resource;
use tempfile::TempDir;

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A file with the tenants `acme` and `zeta`, and a token for each.
struct Fixture {
    _dir: TempDir,
    path: PathBuf,
    acme: Token,
    zeta: Token,
}

fn fixture() -> Fixture {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tenants.toml");
    let mut edit = Edit::open(&path).unwrap();
    let mut add = |tenant: &str, scopes| {
        edit.add(&name(tenant)).unwrap();
        edit.add_token(&name(tenant), Some(name("main")), scopes, SystemTime::now()).unwrap().1
    };
    let acme = add("acme", Scopes::TENANT);
    let zeta = add("zeta", Scopes::parse("read").unwrap());
    edit.commit().unwrap();
    Fixture { _dir: dir, path, acme, zeta }
}

impl Fixture {
    fn open(&self) -> Tenants {
        Tenants::open(&self.path, Allowance::DEFAULT).unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Edit)) {
        let mut edit = Edit::open(&self.path).unwrap();
        change(&mut edit);
        edit.commit().unwrap();
    }

    fn write(&self, text: &str) {
        fs::write(&self.path, text).unwrap();
    }
}

#[test]
fn a_token_lets_its_tenant_in_with_its_scopes() {
    let fixture = fixture();
    let tenants = fixture.open();
    let acme = tenants.authenticate(fixture.acme.reveal()).unwrap();
    let token = Some(name("main"));
    assert_eq!(acme, Identity { tenant: name("acme"), scopes: Scopes::TENANT, token });
    let zeta = tenants.authenticate(fixture.zeta.reveal()).unwrap();
    assert_eq!(zeta.tenant, name("zeta"));
    assert!(zeta.scopes.contains(Scope::Read) && !zeta.scopes.contains(Scope::Ingest));
}

#[test]
fn a_wrong_token_lets_nobody_in() {
    let fixture = fixture();
    let tenants = fixture.open();
    let right = fixture.acme.reveal();
    for at in 0..right.len() {
        let mut wrong = right.as_bytes().to_vec();
        wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
        let wrong = String::from_utf8(wrong).unwrap();
        assert_eq!(tenants.authenticate(&wrong), None, "character {at} does not count");
    }
    let unknown = Token::new(&name("acme")).unwrap();
    let hash = fixture.acme.hash().to_string();
    let long = "sbx_acme_".to_owned() + &"A".repeat(1 << 20);
    for wrong in ["", unknown.reveal(), &hash, &right[..right.len() - 1], &long, "Bearer"] {
        assert_eq!(tenants.authenticate(wrong), None, "{wrong:?}");
    }
}

#[test]
fn a_token_does_not_become_another_tenants_by_its_name() {
    let fixture = fixture();
    let secret = fixture.acme.reveal().strip_prefix("sbx_acme_").unwrap();
    assert_eq!(fixture.open().authenticate(&format!("sbx_zeta_{secret}")), None);
}

#[test]
fn a_line_copied_to_another_tenant_lets_nobody_in_there() {
    let fixture = fixture();
    let text = fs::read_to_string(&fixture.path).unwrap();
    // All that is acme's becomes that of a tenant who was never given the token.
    fixture.write(&text.replace("tenants.acme", "tenants.mallory"));
    let tenants = fixture.open();
    assert!(tenants.current().tenant(&name("mallory")).is_some());
    assert_eq!(tenants.authenticate(fixture.acme.reveal()), None);
}

#[test]
fn a_revoked_token_lets_nobody_in_after_the_reload() {
    let fixture = fixture();
    let tenants = fixture.open();
    fixture.change(|edit| edit.revoke_token(&name("acme"), &name("main")).unwrap());
    assert!(tenants.reload_if_changed().unwrap());
    assert_eq!(tenants.authenticate(fixture.acme.reveal()), None);
    assert!(tenants.authenticate(fixture.zeta.reveal()).is_some());
}

#[test]
fn a_removed_tenant_is_gone_after_the_reload() {
    let fixture = fixture();
    let tenants = fixture.open();
    let before = tenants.current();
    fixture.change(|edit| edit.remove(&name("acme")).unwrap());
    assert!(tenants.reload_if_changed().unwrap());
    assert_eq!(tenants.authenticate(fixture.acme.reveal()), None);
    assert!(tenants.current().iter().map(|t| &t.name).eq([&name("zeta")]));
    assert!(before.tenant(&name("acme")).is_some(), "a set that is held has changed");
}

#[test]
fn quotas_and_weights_change_with_the_file() {
    let fixture = fixture();
    let tenants = fixture.open();
    assert_eq!(tenants.current().tenant(&name("acme")).unwrap().allowance, Allowance::DEFAULT);
    fixture.change(|edit| {
        edit.set_weight(&name("acme"), 77).unwrap();
        edit.set_quota(&name("acme"), Resource::Pipelines, Some(3)).unwrap();
    });
    tenants.reload_if_changed().unwrap();
    let set = tenants.current();
    let acme = set.tenant(&name("acme")).unwrap();
    assert_eq!((acme.weight, acme.allowance.pipelines), (77, 3));
    assert_eq!(acme.allowance.streams, Allowance::DEFAULT.streams);
}

#[test]
fn a_file_that_did_not_change_is_not_read_again() {
    let fixture = fixture();
    let tenants = fixture.open();
    let before = tenants.current();
    for _ in 0..3 {
        assert!(!tenants.reload_if_changed().unwrap());
    }
    assert!(Arc::ptr_eq(&before, &tenants.current()));
}

#[test]
fn a_bad_file_is_told_once_and_changes_nothing() {
    let fixture = fixture();
    let tenants = fixture.open();
    let good = fs::read_to_string(&fixture.path).unwrap();
    fixture.write("version = 1\nnonsense = true\n");
    assert_eq!(tenants.reload_if_changed().unwrap_err().code(), "tenants.invalid");
    assert!(!tenants.reload_if_changed().unwrap());
    assert!(tenants.authenticate(fixture.acme.reveal()).is_some());
    fixture.write(&good);
    assert!(tenants.reload_if_changed().unwrap());
}

#[test]
fn a_file_that_vanishes_is_told_once_and_changes_nothing() {
    let fixture = fixture();
    let tenants = fixture.open();
    fs::rename(&fixture.path, fixture.path.with_extension("away")).unwrap();
    assert_eq!(tenants.reload_if_changed().unwrap_err().code(), "tenants.missing");
    assert!(!tenants.reload_if_changed().unwrap());
    assert!(tenants.authenticate(fixture.acme.reveal()).is_some());
    fs::rename(fixture.path.with_extension("away"), &fixture.path).unwrap();
    assert!(tenants.reload_if_changed().unwrap());
}

#[test]
fn a_file_that_others_can_read_is_refused_with_the_command_to_run() {
    let fixture = fixture();
    let tenants = fixture.open();
    for mode in [0o604, 0o640, 0o602, 0o620, 0o601, 0o644] {
        fs::set_permissions(&fixture.path, Permissions::from_mode(mode)).unwrap();
        let refused = Tenants::open(&fixture.path, Allowance::DEFAULT).unwrap_err();
        assert_eq!(refused.code(), "tenants.not-private");
        let command = format!("chmod 600 {}", fixture.path.display());
        assert!(refused.to_string().contains(&command), "{refused}");
        assert_eq!(Edit::open(&fixture.path).unwrap_err().code(), "tenants.not-private");
    }
    // A running node goes on, and notices when it is put right.
    assert_eq!(tenants.reload_if_changed().unwrap_err().code(), "tenants.not-private");
    assert!(tenants.authenticate(fixture.acme.reveal()).is_some());
    fs::set_permissions(&fixture.path, Permissions::from_mode(0o400)).unwrap();
    assert!(tenants.reload_if_changed().unwrap());
}

#[test]
fn what_is_not_a_tenants_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let open = |path: &Path| Tenants::open(path, Allowance::DEFAULT).unwrap_err();
    assert_eq!(open(&dir.path().join("none")).code(), "tenants.missing");
    assert_eq!(open(dir.path()).code(), "tenants.unusable");
    let path = dir.path().join("tenants.toml");
    for bytes in [&b"version = 1 # \xff"[..], &[b'#'; 17 << 20]] {
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(open(&path).code(), "tenants.unusable");
    }
}

#[test]
fn development_mode_has_one_tenant_and_knows_no_token() {
    let tenants = Tenants::dev(Allowance::DEFAULT);
    let identity = tenants.without_token().unwrap();
    assert_eq!((identity.tenant.as_str(), identity.scopes), (DEV, Scopes::ALL));
    assert!(tenants.current().tenant(&identity.tenant).is_some());
    assert_eq!(tenants.authenticate(Token::new(&name(DEV)).unwrap().reveal()), None);
    assert!(!tenants.reload_if_changed().unwrap());
    assert_eq!(fixture().open().without_token(), None);
}
