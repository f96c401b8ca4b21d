//! `certs`: the files by which nodes know each other, made in one directory.
//!
//! - The directory has one authority, which is made if there is none and never replaced, and a
//!   certificate and key for each node. What a node has already is replaced only when asked.
//! - Everything is looked at and made in memory before the first file is written: a refusal leaves
//!   nothing behind. Each file is written beside its place, put on the disk and then renamed; keys
//!   are for their owner alone, from the first byte on.
//!
//! Leaves to others: what a certificate says (`link/tls/authority.rs`), to bring each node its
//! files, and to read them there.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sluicebox_link::tls::NodeName;
use sluicebox_link::tls::authority::{AUTHORITY_DAYS, Authority, Issued, Validity};
use sluicebox_node::config::PEER_PORT;

use crate::args::node::{AUTHORITY_NAME, CertsArgs};
use crate::failure::{Cause, Failure, Mistake};
use crate::screen::Screen;

/// Who may do what with a key, a certificate, and a directory that was made for them.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o700;

/// Largest file that is read; a certificate has less than a kilobyte.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The two files of a node, or of the authority.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn of(directory: &Path, name: &str) -> Self {
        let file = |ending: &str| directory.join(format!("{name}.{ending}"));
        Self { certificate: file("crt"), key: file("key") }
    }

    /// Those of the two that are there.
    fn found(&self) -> Result<Vec<&Path>, Failure> {
        let mut found = Vec::new();
        for path in [&self.certificate, &self.key] {
            if exists(path)? {
                found.push(path.as_path());
            }
        }
        Ok(found)
    }

    fn write(&self, certificate: &str, key: &str, replaces: bool) -> Result<(), Failure> {
        // The key first: a certificate that is there has its key.
        write(&self.key, key, KEY_MODE, replaces)?;
        write(&self.certificate, certificate, CERTIFICATE_MODE, replaces)
    }
}

/// A node and what was made for it.
struct Node {
    name: NodeName,
    files: Pair,
    issued: Issued,
}

/// `certs`
pub(crate) fn run(screen: Screen, args: CertsArgs) -> Result<(), Failure> {
    let directory = args.dir;
    let mut known = BTreeSet::new();
    let names = args.names.into_iter().filter(|name| known.insert(name.clone()));
    let named: Vec<(NodeName, Pair)> =
        names.map(|name| (name.clone(), Pair::of(&directory, name.as_str()))).collect();
    if !args.force {
        refuse_to_replace(&named)?;
    }
    let of_authority = Pair::of(&directory, AUTHORITY_NAME);
    let (authority, is_new) = authority(&of_authority)?;
    let mut nodes = Vec::new();
    for (name, files) in named {
        let issued = authority.issue(&name, Validity::of_days(args.days));
        let issued = issued.map_err(|error| Failure::node(&error))?;
        nodes.push(Node { name, files, issued });
    }
    make(&directory)?;
    if is_new {
        of_authority.write(&authority.certificate_pem(), &authority.key_pem(), false)?;
    }
    for Node { files, issued, .. } in &nodes {
        files.write(&issued.certificate_pem, &issued.key_pem, args.force)?;
    }
    sync(&directory).map_err(|error| local("write", &directory, &error))?;
    let value = document(&nodes, &of_authority, is_new);
    screen.result(&value, &text(&nodes, &of_authority, is_new))
}

/// Names every node that has files already.
fn refuse_to_replace(named: &[(NodeName, Pair)]) -> Result<(), Failure> {
    let mut mistakes = Vec::new();
    for (name, files) in named {
        let found: Vec<String> = files.found()?.into_iter().map(shown).collect();
        if !found.is_empty() {
            mistakes.push(Mistake {
                place: name.to_string(),
                what: format!("there is {}", found.join(" and ")),
                fix: Some(format!("leave {name} out, or replace what it has with --force")),
            });
        }
    }
    if mistakes.is_empty() {
        return Ok(());
    }
    let what = "some of these nodes have certificates or keys already; nothing was made";
    let mut failure = Failure::new(Cause::Conflict, what);
    failure.mistakes = mistakes;
    Err(failure)
}

/// The authority of the directory, and whether it is a new one.
fn authority(files: &Pair) -> Result<(Authority, bool), Failure> {
    match files.found()?[..] {
        [] => {
            let made = Authority::new(Validity::of_days(AUTHORITY_DAYS));
            Ok((made.map_err(|error| Failure::node(&error))?, true))
        }
        [_, _] => {
            let read = Authority::from_pem(&read(&files.certificate)?, &read(&files.key)?);
            let authority = read.map_err(|error| {
                let (certificate, key) = (shown(&files.certificate), shown(&files.key));
                let fix = format!("look at {certificate} and {key}, or name another --dir");
                Failure::node(&error).fix(fix)
            })?;
            Ok((authority, false))
        }
        [found, ..] => {
            let missing = if found == files.key { &files.certificate } else { &files.key };
            let (found, missing) = (shown(found), shown(missing));
            let what = format!("there is {found} without {missing}; nothing was made");
            let fix = format!("bring {missing} back for this, or name another --dir");
            Err(Failure::new(Cause::Local, what).fix(fix))
        }
    }
}

/// Makes the directory if there is none. One that is there stays as it is.
fn make(directory: &Path) -> Result<(), Failure> {
    if directory.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
    let made = made.and_then(|()| match directory.parent() {
        Some(parent) if parent != Path::new("") => sync(parent),
        _ => sync(Path::new(".")),
    });
    made.map_err(|error| local("make the directory", directory, &error))
}

/// True if there is something of this name, whatever it is.
fn exists(path: &Path) -> Result<bool, Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(local("look for", path, &error)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| local("read", path, &error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let what = format!("{} is larger than certificates and keys are", shown(path));
        return Err(Failure::new(Cause::Local, what));
    }
    Ok(bytes)
}

/// Writes a file whole, or not at all. What came there in the meantime is kept, unless asked.
fn write(path: &Path, text: &str, mode: u32, replaces: bool) -> Result<(), Failure> {
    let written = || {
        let beside = path.parent().unwrap_or_else(|| Path::new("."));
        let mut file = tempfile::Builder::new()
            .prefix(".certs-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(beside)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        let put = if replaces { file.persist(path) } else { file.persist_noclobber(path) };
        put.map(drop).map_err(|error| error.error)
    };
    written().map_err(|error| local("write", path, &error))
}

/// Puts on the disk which files a directory has.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn local(doing: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::local(format!("{doing} {}", path.display()), error)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The result for scripts.
fn document(nodes: &[Node], of_authority: &Pair, is_new: bool) -> Value {
    let row = |Node { name, files, .. }: &Node| {
        json!({
            "node": name.as_str(),
            "certificate": shown(&files.certificate),
            "key": shown(&files.key),
            "authority": shown(&of_authority.certificate),
        })
    };
    json!({
        "nodes": nodes.iter().map(row).collect::<Vec<_>>(),
        "authority": {
            "certificate": shown(&of_authority.certificate),
            "key": shown(&of_authority.key),
            "new": is_new,
        },
    })
}

/// The same for people: what was made, where it goes, and what must not get about.
fn text(nodes: &[Node], of_authority: &Pair, is_new: bool) -> String {
    let mut text = String::new();
    let made = is_new.then_some(of_authority).into_iter().chain(nodes.iter().map(|n| &n.files));
    for Pair { certificate, key } in made {
        say(&mut text, format_args!("made {}\nmade {}\n", shown(certificate), shown(key)));
    }
    let authority = shown(&of_authority.certificate);
    let list: Vec<String> =
        nodes.iter().map(|node| quoted(&format!("{}=HOST:{PEER_PORT}", node.name))).collect();
    let list = format!("[{}]", list.join(", "));
    for Node { name, files, .. } in nodes {
        let (certificate, key) = (shown(&files.certificate), shown(&files.key));
        say(
            &mut text,
            format_args!(
                "\nIn the configuration of {name}, with the paths as they are there:\n\n\
                 [cluster]\nnode = {}\nnodes = {list}\ncertificate = {}\nkey = {}\nauthority = {}\n",
                quoted(name.as_str()),
                quoted(&certificate),
                quoted(&key),
                quoted(&authority),
            ),
        );
    }
    let key = shown(&of_authority.key);
    say(
        &mut text,
        format_args!(
            "\nWrite where each node is reached for HOST; the list of nodes is the same on all.\n\
             \nKeep {key} in a safe place: whoever has it can make a node. It signs more nodes of\n\
             the same cluster; none needs it to run.\n"
        ),
    );
    text
}

/// As a text of TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Writing to a text cannot fail.
fn say(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes whatever is written");
}
