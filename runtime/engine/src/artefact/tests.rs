//! What is loaded, what is refused and removed, and what stays within its bound.

use cap_std::ambient_authority;
use tempfile::TempDir;

use super::*;
use crate::component::digest;
use crate::tuning::{EngineConfig, runtime_engine};

const GUEST: &str = r#"(component
    (core module $m (memory (export "memory") 1) (func (export "run") (result i32) i32.const 7))
    (core instance $i (instantiate $m))
    (func (export "run") (result u32) (canon lift (core func $i "run"))))"#;

struct Fixture {
    dir: TempDir,
    engine: Engine,
    wasm: Vec<u8>,
    code: Compiled,
}

impl Fixture {
    fn new() -> Self {
        let wasm = wat::parse_str(GUEST).unwrap();
        let code = Compiled::here(&wasm);
        let engine = runtime_engine(&EngineConfig::small()).unwrap();
        Self { dir: TempDir::new().unwrap(), engine, wasm, code }
    }

    fn dir(&self) -> Dir {
        Dir::open_ambient_dir(self.dir.path(), ambient_authority()).unwrap()
    }

    fn open(&self) -> Artefacts {
        Artefacts::open(self.dir(), &self.engine, BYTES_MAX_DEFAULT).unwrap()
    }

    fn digest(&self) -> Digest {
        digest(&self.wasm)
    }

    /// The one artefact's path.
    fn file(&self) -> std::path::PathBuf {
        let mut files = std::fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().path());
        files.find(|path| path.to_string_lossy().ends_with(SUFFIX)).unwrap()
    }
}

fn runs(engine: &Engine, component: &Component) -> u32 {
    let mut store = wasmtime::Store::new(engine, ());
    store.set_fuel(1000).unwrap();
    let linker = wasmtime::component::Linker::new(engine);
    let instance = linker.instantiate(&mut store, component).unwrap();
    let run = instance.get_typed_func::<(), (u32,)>(&mut store, "run").unwrap();
    run.call(&mut store, ()).unwrap().0
}

#[test]
fn what_is_kept_is_loaded_and_runs_also_after_a_restart() {
    let fixture = Fixture::new();
    let artefacts = fixture.open();
    assert!(artefacts.load(&fixture.digest()).unwrap().is_none());
    assert!(!artefacts.has(&fixture.digest()));
    artefacts.keep(&fixture.digest(), &fixture.code).unwrap();
    for artefacts in [artefacts, fixture.open()] {
        assert!(artefacts.has(&fixture.digest()));
        assert_eq!(artefacts.bytes(), (HEAD_BYTES + fixture.code.bytes().len()) as u64);
        let component = artefacts.load(&fixture.digest()).unwrap().unwrap();
        assert_eq!(runs(&fixture.engine, &component), 7);
    }
}

#[test]
fn an_artefact_changed_anywhere_is_never_loaded_and_goes() {
    let fixture = Fixture::new();
    let artefacts = fixture.open();
    let size = HEAD_BYTES + fixture.code.bytes().len();
    // Every byte of the head, and the code in steps.
    for at in (0..HEAD_BYTES).chain((HEAD_BYTES..size).step_by(997)) {
        artefacts.keep(&fixture.digest(), &fixture.code).unwrap();
        let mut bytes = std::fs::read(fixture.file()).unwrap();
        bytes[at] ^= 1;
        std::fs::write(fixture.file(), bytes).unwrap();
        assert!(artefacts.load(&fixture.digest()).unwrap().is_none(), "byte {at}");
        assert!(!artefacts.has(&fixture.digest()));
        assert!(artefacts.load(&fixture.digest()).unwrap().is_none());
    }
}

#[test]
fn an_artefact_cut_off_or_grown_is_never_loaded() {
    let fixture = Fixture::new();
    let artefacts = fixture.open();
    for change in [-1_i64, 1, -(fixture.code.bytes().len() as i64), i64::MIN] {
        artefacts.keep(&fixture.digest(), &fixture.code).unwrap();
        let file = std::fs::File::options().write(true).open(fixture.file()).unwrap();
        let size = file.metadata().unwrap().len();
        file.set_len(size.saturating_add_signed(change)).unwrap();
        assert!(artefacts.load(&fixture.digest()).unwrap().is_none(), "{change}");
    }
}

#[test]
fn one_component_s_artefact_is_not_loaded_for_another() {
    let fixture = Fixture::new();
    let artefacts = fixture.open();
    artefacts.keep(&fixture.digest(), &fixture.code).unwrap();
    let other = digest(b"another component");
    std::fs::copy(fixture.file(), fixture.dir.path().join(artefacts.name(&other))).unwrap();
    assert!(artefacts.load(&other).unwrap().is_none());
    assert!(artefacts.load(&fixture.digest()).unwrap().is_some());
}

#[test]
fn an_artefact_sealed_by_another_node_is_not_loaded() {
    let fixture = Fixture::new();
    fixture.open().keep(&fixture.digest(), &fixture.code).unwrap();
    let file = fixture.file();
    let elsewhere = Fixture::new();
    let artefacts = elsewhere.open();
    std::fs::copy(&file, elsewhere.dir.path().join(file.file_name().unwrap())).unwrap();
    assert!(artefacts.load(&fixture.digest()).unwrap().is_none());
}

#[test]
fn an_artefact_of_another_engine_is_not_even_looked_at() {
    let fixture = Fixture::new();
    let artefacts = fixture.open();
    artefacts.keep(&fixture.digest(), &fixture.code).unwrap();
    let other = Engine::default();
    assert_ne!(Fingerprint::of(&other), Fingerprint::of(&fixture.engine));
    let artefacts = Artefacts::open(fixture.dir(), &other, BYTES_MAX_DEFAULT).unwrap();
    assert!(artefacts.load(&fixture.digest()).unwrap().is_none());
    // Even under the other engine's name.
    std::fs::rename(fixture.file(), fixture.dir.path().join(artefacts.name(&fixture.digest())))
        .unwrap();
    assert!(artefacts.load(&fixture.digest()).unwrap().is_none());
}

#[test]
fn the_least_recently_loaded_goes_first() {
    let fixture = Fixture::new();
    let size = (HEAD_BYTES + fixture.code.bytes().len()) as u64;
    let [one, two, three, four] = [b"1", b"2", b"3", b"4"].map(|name| digest(name));
    let artefacts = Artefacts::open(fixture.dir(), &fixture.engine, 3 * size).unwrap();
    for digest in [one, two, three] {
        artefacts.keep(&digest, &fixture.code).unwrap();
    }
    assert!(artefacts.load(&one).unwrap().is_some());
    artefacts.keep(&four, &fixture.code).unwrap();
    let kept = [one, two, three, four].map(|digest| artefacts.has(&digest));
    assert_eq!(kept, [true, false, true, true]);
    assert!(artefacts.load(&two).unwrap().is_none());
    assert_eq!(artefacts.bytes(), 3 * size);
    // A smaller bound is kept from the start on. The disk knows times only by the tick of the
    // system's clock, within which all of this may have happened.
    let path = fixture.dir.path().join(artefacts.name(&three));
    let before = std::time::SystemTime::now() - Duration::from_secs(60);
    std::fs::File::open(path).unwrap().set_modified(before).unwrap();
    let artefacts = Artefacts::open(fixture.dir(), &fixture.engine, 2 * size).unwrap();
    assert_eq!(artefacts.bytes(), 2 * size);
    assert!(!artefacts.has(&three));
}

#[test]
fn the_directory_and_the_secret_are_for_the_node_s_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new();
    let artefacts = fixture.open();
    artefacts.keep(&fixture.digest(), &fixture.code).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(fixture.dir.path()), 0o700);
    assert_eq!(mode(&fixture.dir.path().join("secret.key")), 0o600);
    assert_eq!(mode(&fixture.file()), 0o600);
    assert_eq!(fixture.dir.path().join("secret.key").metadata().unwrap().len(), 32);
    assert!(!format!("{artefacts:?}").contains("secret: ["));
}

#[test]
fn a_secret_that_is_short_or_open_to_others_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new();
    drop(fixture.open());
    let path = fixture.dir.path().join("secret.key");
    let refusal = || {
        Artefacts::open(fixture.dir(), &fixture.engine, BYTES_MAX_DEFAULT).unwrap_err().to_string()
    };
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(refusal().contains("can be read by others"), "{}", refusal());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, [0; 31]).unwrap();
    assert!(refusal().contains("not a file of 32 bytes"), "{}", refusal());
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(refusal().contains("not a file of 32 bytes"), "{}", refusal());
}

#[test]
fn nodes_that_start_at_once_share_one_secret() {
    let fixture = Fixture::new();
    let opened: Vec<Artefacts> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| fixture.open())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    opened[0].keep(&fixture.digest(), &fixture.code).unwrap();
    for artefacts in &opened {
        assert!(artefacts.load(&fixture.digest()).unwrap().is_some());
    }
    let left = std::fs::read_dir(fixture.dir.path()).unwrap().count();
    assert_eq!(left, 2, "drafts are left");
}

#[test]
fn old_drafts_are_removed_at_the_start_and_fresh_ones_are_not() {
    let fixture = Fixture::new();
    let [old, fresh] = ["0", "1"].map(|at| fixture.dir.path().join(format!("{DRAFT}{at}")));
    for path in [&old, &fresh] {
        std::fs::write(path, b"half").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - 2 * DRAFT_AGE;
    std::fs::File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    drop(fixture.open());
    assert!(!old.exists() && fresh.exists());
}

#[test]
fn a_link_out_of_the_directory_is_not_followed() {
    let fixture = Fixture::new();
    let artefacts = fixture.open();
    let outside = TempDir::new().unwrap();
    let target = outside.path().join("file");
    std::fs::write(&target, b"not ours").unwrap();
    let name = fixture.dir.path().join(artefacts.name(&fixture.digest()));
    std::os::unix::fs::symlink(&target, &name).unwrap();
    let error = artefacts.load(&fixture.digest()).unwrap_err();
    assert!(matches!(error, Error::ArtefactIo(_)), "{error}");
}

#[test]
fn a_component_beyond_the_pool_s_bounds_is_refused_with_the_numbers() {
    let fixture = Fixture::new();
    // Each core module has one memory, and is instantiated 65 times: inspection counts one.
    let text = format!(
        "(component (core module $m (memory 1)) {})",
        "(core instance (instantiate $m))".repeat(65)
    );
    let wasm = wat::parse_str(&text).unwrap();
    let code = Compiled::here(&wasm);
    let artefacts = fixture.open();
    artefacts.keep(&digest(&wasm), &code).unwrap();
    let error = artefacts.load(&digest(&wasm)).unwrap_err();
    assert!(matches!(error, Error::Demand(_)), "{error}");
    assert!(error.to_string().contains("65") && error.to_string().contains("64"), "{error}");
}
