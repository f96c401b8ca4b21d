//! Identities out of files: which of the three is wrong is said, and why.

use super::*;

/// What a node's files have.
struct Files {
    certificate: String,
    key: String,
    authority: String,
}

impl Files {
    fn of(name: &str, authority: &Authority) -> Self {
        let validity = Validity::of_days(authority::NODE_DAYS);
        let issued = authority.0.issue(&named(name), validity).expect("randomness");
        let (certificate, key) = (issued.certificate_pem, issued.key_pem);
        Self { certificate, key, authority: authority.0.certificate_pem() }
    }

    fn read(&self, name: &str) -> Result<Identity, Error> {
        let [certificate, key, authority] =
            [&self.certificate, &self.key, &self.authority].map(|text| text.as_bytes());
        Identity::from_pem(named(name), certificate, key, authority)
    }
}

fn unusable(part: Part, why: &str) -> Option<Error> {
    Some(Error::Identity { part, why: why.to_owned() })
}

#[tokio::test]
async fn nodes_whose_identities_are_from_files_know_each_other() {
    let authority = Authority::new();
    let [a, b] = ["a.node", "b.node"].map(|name| Files::of(name, &authority).read(name));
    let (a, b) = (a.expect("it can be used"), b.expect("it can be used"));
    let (sender, receiver) = link(&a, &b, "b.node", small()).await;
    assert_eq!(receiver.expect("they know each other").0, named("a.node"));
    assert!(sender.is_ok());
}

#[test]
fn which_part_cannot_be_used_is_said_and_why() {
    let authority = Authority::new();
    let good = || Files::of("a.node", &authority);
    assert!(good().read("a.node").is_ok());
    // Nothing of the sort in it, as when two files are mixed up.
    let read = |files: Files| files.read("a.node").err();
    let swapped = Files { certificate: good().key, ..good() };
    assert_eq!(read(swapped), unusable(Part::Certificate, "there is no certificate in it"));
    let swapped = Files { key: good().certificate, ..good() };
    assert_eq!(read(swapped), unusable(Part::Key, "there is no private key in it"));
    let swapped = Files { authority: String::new(), ..good() };
    assert_eq!(read(swapped), unusable(Part::Authority, "there is no certificate in it"));
    // Cut off, and what is no text of the sort. Nothing of a key is in the message.
    let mut cut = good();
    cut.key.truncate(cut.key.len() - 20);
    assert_eq!(read(cut), unusable(Part::Key, "not PEM: the end of a section is missing"));
    let mut broken = good();
    broken.key = broken.key.replacen("\nM", "\n!", 1);
    assert_eq!(read(broken), unusable(Part::Key, "not PEM: a section is not base64"));
    let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let read_part = |error: Option<Error>| match error {
        Some(Error::Identity { part, .. }) => Some(part),
        _ => None,
    };
    let no_certificate = Files { certificate: empty.to_owned(), ..good() };
    assert_eq!(read_part(read(no_certificate)), Some(Part::Certificate));
    let no_authority = Files { authority: empty.to_owned(), ..good() };
    assert_eq!(read_part(read(no_authority)), Some(Part::Authority));
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let authority = Authority::new();
    let good = || Files::of("a.node", &authority);
    let read = |files: Files| files.read("a.node").err();
    let other_key = Files { key: good().key, ..good() };
    assert_eq!(read(other_key), unusable(Part::Key, "it is not the key of the certificate"));
    let other_authority = Files { authority: Authority::new().0.certificate_pem(), ..good() };
    let why = "it does not lead to the authority";
    assert_eq!(read(other_authority), unusable(Part::Certificate, why));
    // With both, as while one takes the place of the other.
    let mut both = good();
    both.authority.insert_str(0, &Authority::new().0.certificate_pem());
    assert_eq!(read(both), None);
    let error = good().read("b.node").expect_err("it is of another node").to_string();
    assert!(error.starts_with("the certificate of the node cannot be used: "), "{error}");
    assert!(error.contains("b.node") && error.contains("a.node"), "{error}");
}
