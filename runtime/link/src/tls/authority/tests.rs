//! What an authority makes is what nodes take, and nothing else is.

use std::collections::BTreeSet;

use rustls::pki_types::pem::PemObject as _;

use super::super::Identity;
use super::*;

fn named(name: &str) -> NodeName {
    NodeName::new(name).expect("a name")
}

fn authority() -> Authority {
    Authority::new(Validity::of_days(AUTHORITY_DAYS)).expect("randomness")
}

fn issue(authority: &Authority, name: &str) -> Issued {
    authority.issue(&named(name), Validity::of_days(NODE_DAYS)).expect("randomness")
}

fn read(issued: &Issued, name: &str, authority: &Authority) -> Result<Identity, Error> {
    let authority = authority.certificate_pem();
    let Issued { certificate_pem, key_pem } = issued;
    let [certificate, key, authority] =
        [certificate_pem, key_pem, &authority].map(String::as_bytes);
    Identity::from_pem(named(name), certificate, key, authority)
}

fn is_unusable<T>(result: Result<T, Error>, part: Part, why: &str) {
    let error = result.err().expect("it was taken");
    assert_eq!(error, Error::Identity { part, why: why.to_owned() });
}

#[test]
fn a_certificate_is_good_for_every_name_that_a_node_can_have() {
    let authority = authority();
    let longest = format!("{}{}", format!("{}.", "a".repeat(63)).repeat(3), "b".repeat(61));
    for name in ["a", "A.Node", "node-1.rack_2.example", &longest] {
        let made = read(&issue(&authority, name), name, &authority);
        assert_eq!(made.err(), None, "{name}");
    }
    assert_eq!(longest.len(), 253);
}

#[test]
fn an_authority_is_the_same_when_it_is_loaded_again() {
    let authority = authority();
    let (certificate, key) = (authority.certificate_pem(), authority.key_pem());
    let again = Authority::from_pem(certificate.as_bytes(), key.as_bytes()).expect("its own files");
    assert_eq!((again.certificate_pem(), again.key_pem()), (certificate, key));
    // Each trusts what the other has signed.
    assert!(read(&issue(&again, "a"), "a", &authority).is_ok());
    assert!(read(&issue(&authority, "a"), "a", &again).is_ok());
}

#[test]
fn what_is_not_an_authority_of_ours_is_not_loaded() {
    let (one, two) = (authority(), authority());
    let (certificate, key) = (one.certificate_pem(), one.key_pem());
    let load =
        |certificate: &str, key: &str| Authority::from_pem(certificate.as_bytes(), key.as_bytes());
    let why = "it is not that of the certificate";
    is_unusable(load(&certificate, &two.key_pem()), Part::AuthorityKey, why);
    let node = issue(&one, "a");
    let why = "it is not of an authority that was made here";
    is_unusable(load(&node.certificate_pem, &node.key_pem), Part::Authority, why);
    let both = format!("{certificate}{}", two.certificate_pem());
    is_unusable(load(&both, &key), Part::Authority, "there are several in it");
    is_unusable(load(&key, &key), Part::Authority, "there is no certificate in it");
    is_unusable(load(&certificate, ""), Part::AuthorityKey, "there is no private key in it");
    let no_key = pem("PRIVATE KEY", b"no key");
    let why = "it is no key that was made here";
    is_unusable(load(&certificate, &no_key), Part::AuthorityKey, why);
}

#[test]
fn a_node_signs_for_no_other_node() {
    let authority = authority();
    let node = issue(&authority, "a");
    let key = private_key(Part::Key, node.key_pem.as_bytes()).expect("a key");
    let mut params = authority_params();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "a");
    let issuer = Issuer::new(params, KeyPair::try_from(&key).expect("a key"));
    let certificate = CertificateDer::from_pem_slice(node.certificate_pem.as_bytes());
    let forger = Authority { certificate: certificate.expect("a certificate"), issuer };
    let mut forged = issue(&forger, "b");
    forged.certificate_pem.push_str(&node.certificate_pem);
    let refused = read(&forged, "b", &authority).err();
    assert!(matches!(refused, Some(Error::Identity { part: Part::Certificate, .. })));
}

#[test]
fn a_certificate_holds_from_a_little_before_now_for_so_many_days() {
    let authority = authority();
    let (of_days, now) = (Validity::of_days(2), SystemTime::now());
    assert_eq!(of_days.until, of_days.from + 2 * DAY + SKEW);
    assert!(of_days.from <= now - SKEW && of_days.until > now + DAY);
    let read_with = |from: SystemTime, until: SystemTime| {
        let issued = authority.issue(&named("a"), Validity { from, until })?;
        read(&issued, "a", &authority)
    };
    let (minute, far) = (Duration::from_secs(60), SystemTime::UNIX_EPOCH + LAST);
    assert!(read_with(now - minute, now + minute).is_ok());
    assert!(read_with(SystemTime::UNIX_EPOCH, far).is_ok());
    for (from, until, why) in [
        (now - 2 * DAY, now - DAY, "certificate expired"),
        (now + DAY, now + 2 * DAY, "certificate not valid yet"),
    ] {
        let error = read_with(from, until).expect_err("it was taken");
        let Error::Identity { part: Part::Certificate, why: said } = error else {
            panic!("{error}")
        };
        assert!(said.starts_with(why), "{said}");
    }
    // What no certificate can say.
    for (from, until) in [(now, now), (now, far + minute), (SystemTime::UNIX_EPOCH - minute, now)] {
        let refused = read_with(from, until).err();
        assert!(matches!(refused, Some(Error::Setting { .. })), "{refused:?}");
    }
    let longest = Authority::new(Validity::of_days(u32::MAX)).err();
    assert!(matches!(longest, Some(Error::Setting { .. })), "{longest:?}");
}

#[test]
fn keys_and_numbers_are_new_each_time_and_keys_are_not_shown() {
    let authority = authority();
    let mut keys = BTreeSet::from([authority.key_pem()]);
    let mut numbers = BTreeSet::new();
    for _ in 0..8 {
        let issued = issue(&authority, "a");
        let secret = issued.key_pem.lines().nth(1).expect("a line of a key");
        assert!(!format!("{issued:?}").contains(secret));
        assert!(keys.insert(issued.key_pem));
        assert!(numbers.insert(serial().expect("randomness").to_bytes()));
    }
    let secret = authority.key_pem().lines().nth(1).expect("a line of a key").to_owned();
    assert!(!format!("{authority:?}").contains(&secret));
}

#[test]
fn texts_are_as_others_write_them() {
    let text = pem("CERTIFICATE", &[0xFF; 50]);
    let lines =
        ["-----BEGIN CERTIFICATE-----", &"/".repeat(64), "//8=", "-----END CERTIFICATE-----"];
    assert_eq!(text, format!("{}\n", lines.join("\n")));
}
