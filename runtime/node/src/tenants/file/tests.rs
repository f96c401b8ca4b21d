//! What the file means, and that every mistake in it is told.

use super::*;

const HASH: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn read(text: &str) -> Result<BTreeMap<Name, Entry>, Vec<Problem>> {
    parse(Path::new("tenants.toml"), text).map_err(|error| match error {
        Error::Invalid { problems, .. } => problems.list().to_vec(),
        other => panic!("{other}"),
    })
}

fn one_token(fields: &str) -> String {
    format!("version = 1\n[[tenants.acme.tokens]]\n{fields}\n")
}

#[test]
fn every_field_is_read() {
    let tenants = read(&format!(
        "version = 1\n[tenants.acme]\nweight = 20\n[tenants.acme.quota]\n\
         events-per-second = 5\nmemory-bytes = \"2MiB\"\nstreams = 0\n\
         [[tenants.acme.tokens]]\nid = \"ci\"\nhash = \"{HASH}\"\n\
         scopes = [\"write\", \"read\"]\ncreated = 2026-11-20T08:00:00Z\n[tenants.b]\n"
    ))
    .unwrap();
    let acme = &tenants[&Name::new("acme").unwrap()];
    assert_eq!(acme.weight, 20);
    let allowance = acme.allowance(&Allowance::DEFAULT);
    assert_eq!(allowance.events.per_second, 5);
    assert_eq!((allowance.memory_bytes, allowance.streams), (2 << 20, 0));
    assert_eq!(allowance.connections, Allowance::DEFAULT.connections);
    let token = &acme.tokens[0];
    assert_eq!((token.id.as_str(), token.scopes.to_string()), ("ci", "read,write".to_owned()));
    assert_eq!(token.hash, TokenHash::of("abc"));
    assert_eq!(tenants[&Name::new("b").unwrap()], Entry::default());
}

#[test]
fn what_is_written_reads_back_the_same() {
    let mut entry = Entry { weight: 1, ..Entry::default() };
    for (limit, resource) in (0_u64..).zip(Resource::ALL) {
        entry.quota.insert(resource, limit * 1_000_003);
    }
    entry.quota.insert(Resource::Events, QUOTA_MAX);
    entry.quota.insert(Resource::State, QUOTA_MAX);
    for (id, created) in [("a", Some("2026-11-20T08:00:00Z".parse().unwrap())), ("b", None)] {
        let (id, hash) = (Name::new(id).unwrap(), TokenHash::of(id));
        entry.tokens.push(TokenEntry { id, hash, scopes: Scopes::ALL, created });
    }
    let names = ["zebra", "acme", "a-1"].map(|name| Name::new(name).unwrap());
    let tenants: BTreeMap<_, _> = names
        .into_iter()
        .zip([entry, Entry::default(), Entry { weight: 100, ..Entry::default() }])
        .map(|(name, mut entry)| {
            entry
                .tokens
                .iter_mut()
                .for_each(|t| t.hash = TokenHash::of(&format!("{name}{}", t.id)));
            (name, entry)
        })
        .collect();
    assert_eq!(read(&render(&tenants)).unwrap(), tenants);
    assert_eq!(read(&render(&BTreeMap::new())).unwrap(), BTreeMap::new());
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_field() {
    let text = format!(
        "version = 1\nowner = \"me\"\n\
         [tenants.Acme]\n\
         [tenants.acme]\nweight = 0\nwait = 3\n\
         [tenants.acme.quota]\nevents-per-second = -1\nmemory-bytes = 1024\nstate-bytes = \"5\"\ngpu = 1\n\
         [[tenants.acme.tokens]]\nid = \"CI\"\nhash = \"sha256:123\"\nscopes = [\"read\", \"wirte\", 7]\ncreated = \"today\"\n\
         [[tenants.acme.tokens]]\nsecret = \"abc\"\n\
         [[tenants.acme.tokens]]\nid = \"x\"\nhash = \"{HASH}\"\nscopes = []\n\
         [[tenants.acme.tokens]]\nid = \"y\"\nhash = \"{HASH}\"\nscopes = [\"read\"]\n\
         [[tenants.acme.tokens]]\nid = \"y\"\nhash = \"{}\"\nscopes = \"read\"\n\
         [tenants.b]\nquota = 3\ntokens = 4\n",
        TokenHash::of("other")
    );
    let found: Vec<_> = read(&text).unwrap_err().into_iter().map(|p| (p.field, p.code)).collect();
    let mut expected = vec![
        ("owner", "tenants.unknown-field"),
        ("tenants.Acme", "tenants.name"),
        ("tenants.acme.wait", "tenants.unknown-field"),
        ("tenants.acme.weight", "tenants.range"),
        ("tenants.acme.quota.gpu", "tenants.unknown-field"),
        ("tenants.acme.quota.events-per-second", "tenants.range"),
        ("tenants.acme.quota.memory-bytes", "tenants.range"),
        ("tenants.acme.quota.state-bytes", "tenants.range"),
        ("tenants.acme.tokens[0].id", "tenants.name"),
        ("tenants.acme.tokens[0].hash", "tenants.hash"),
        ("tenants.acme.tokens[0].scopes[1]", "tenants.scope"),
        ("tenants.acme.tokens[0].scopes[2]", "tenants.scope"),
        ("tenants.acme.tokens[0].created", "tenants.type"),
        ("tenants.acme.tokens[1].secret", "tenants.unknown-field"),
        ("tenants.acme.tokens[1].id", "tenants.missing-field"),
        ("tenants.acme.tokens[1].hash", "tenants.missing-field"),
        ("tenants.acme.tokens[1].scopes", "tenants.missing-field"),
        ("tenants.acme.tokens[2].scopes", "tenants.scope"),
        ("tenants.acme.tokens[3].hash", "tenants.duplicate"),
        ("tenants.acme.tokens[4].scopes", "tenants.type"),
        ("tenants.b.quota", "tenants.type"),
        ("tenants.b.tokens", "tenants.type"),
    ];
    let mut found: Vec<_> = found.iter().map(|(field, code)| (field.as_str(), *code)).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn two_tokens_of_a_tenant_have_two_ids() {
    let token = |secret| {
        let hash = TokenHash::of(secret);
        format!("[[tenants.a.tokens]]\nid = \"t\"\nhash = \"{hash}\"\nscopes = [\"read\"]\n")
    };
    let problems = read(&format!("version = 1\n{}{}", token("1"), token("2"))).unwrap_err();
    assert_eq!((problems[0].field.as_str(), problems.len()), ("tenants.a.tokens[1].id", 1));
}

#[test]
fn two_tenants_cannot_have_the_same_token() {
    let token = |tenant: &str| {
        format!("[[tenants.{tenant}.tokens]]\nid = \"t\"\nhash = \"{HASH}\"\nscopes = [\"read\"]\n")
    };
    let problems = read(&format!("version = 1\n{}{}", token("a"), token("b"))).unwrap_err();
    assert_eq!(problems[0].code, "tenants.duplicate");
    assert!(problems[0].field.ends_with(".tokens[0].hash"), "{}", problems[0]);
}

#[test]
fn a_newer_format_is_refused_before_anything_else_is_judged() {
    let problems = read("version = 2\nnew-field = true\n").unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].field.as_str(), problems[0].code), ("version", "tenants.version"));
}

#[test]
fn the_version_is_required() {
    assert_eq!(read("").unwrap_err()[0].code, "tenants.missing-field");
    assert_eq!(read("version = \"1\"").unwrap_err()[0].code, "tenants.type");
    assert_eq!(read("version = 1"), Ok(BTreeMap::new()));
}

#[test]
fn text_that_is_not_toml_is_told_with_its_line() {
    for (bad, line) in [
        ("version = 1\n[tenants.acme\n", "line 2"),
        ("version = 1\nversion = 1\n", "line 2"),
        (&format!("version = {}", "[".repeat(10_000)), "line 1"),
        ("\u{0}", "line 1"),
    ] {
        let problems = read(bad).unwrap_err();
        assert_eq!(problems[0].code, "tenants.syntax");
        assert!(problems[0].message.starts_with(line), "{}", problems[0]);
        assert!(!problems[0].message.contains('\n'));
    }
}

#[test]
fn messages_stay_short_and_plain_whatever_the_file_says() {
    let name = "x\\n\\u001b".repeat(5_000);
    for text in [
        format!("version = 1\n\"{name}\" = 1\n"),
        format!("version = 1\n[tenants.\"{name}\"]\n"),
        one_token(&format!("id = \"{name}\"\nhash = \"{HASH}\"\nscopes = [\"{name}\"]")),
        format!("version = 1\n[tenants.a]\n{}", "\"\" = 1\n"),
    ] {
        for problem in read(&text).unwrap_err() {
            let text = problem.to_string();
            assert!(text.len() < 400 && !text.contains(['\n', '\u{1b}']), "{text}");
        }
    }
}

#[test]
fn too_many_are_refused() {
    let many: String = (0..=TENANTS_MAX).map(|i| format!("[tenants.t{i}]\n")).collect();
    assert_eq!(read(&format!("version = 1\n{many}")).unwrap_err()[0].code, "tenants.too-many");
    let many = "[[tenants.a.tokens]]\n".repeat(TOKENS_MAX + 1);
    let problems = read(&format!("version = 1\n{many}")).unwrap_err();
    assert_eq!((problems[0].code, problems.len()), ("tenants.too-many", 1));
}
