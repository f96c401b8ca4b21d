//! Who a connector is to a server of NATS: what a secret holds, and how it is said.
//!
//! - A token, a user and a password, the seed of an nkey, or a file of credentials (`.creds`),
//!   which has a token of a user and the seed that belongs to it.
//! - With a seed nothing secret goes over the connection: what the server just thought of is
//!   signed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// How one is written.
pub(super) const FORM: &str = "`token TOKEN`, `user NAME PASSWORD`, the seed of an nkey (SU…), or \
                               a file of credentials as nsc makes them";

/// What a seed of a user begins with, before base 32: that it is one, and whose.
const SEED_OF_USER: [u8; 2] = [18 << 3 | 20 >> 2, 0];
/// The same of the key that others know.
const PUBLIC_OF_USER: u8 = 20 << 3;

/// See the module.
pub(super) enum Credentials {
    Nothing,
    Token(String),
    User { name: String, password: String },
    Key { pair: Box<Ed25519KeyPair>, token: Option<String> },
}

impl Credentials {
    /// Reads what a secret holds; none if it is nothing of the kind.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.contains("-----BEGIN") {
            let token = block(text, "NATS USER JWT")?.to_owned();
            let pair = key_of(block(text, "USER NKEY SEED")?)?;
            return Some(Self::Key { pair, token: Some(token) });
        }
        if text.contains(['\n', '\r']) {
            return None;
        }
        let mut words = text.splitn(3, ' ');
        match (words.next()?, words.next(), words.next()) {
            ("token", Some(token), None) if !token.is_empty() => {
                Some(Self::Token(token.to_owned()))
            }
            ("user", Some(name), Some(password)) if !name.is_empty() => {
                Some(Self::User { name: name.to_owned(), password: password.to_owned() })
            }
            (seed, None, None) => Some(Self::Key { pair: key_of(seed)?, token: None }),
            _ => None,
        }
    }

    /// Puts them into what is said first.
    pub(super) fn say(&self, nonce: &str, said: &mut serde_json::Map<String, serde_json::Value>) {
        let mut put = |name: &str, value: String| said.insert(name.to_owned(), value.into());
        match self {
            Self::Nothing => {}
            Self::Token(token) => drop(put("auth_token", token.clone())),
            Self::User { name, password } => {
                put("user", name.clone());
                put("pass", password.clone());
            }
            Self::Key { pair, token } => {
                put("sig", URL_SAFE_NO_PAD.encode(pair.sign(nonce.as_bytes())));
                match token {
                    Some(token) => put("jwt", token.clone()),
                    None => put("nkey", public_of(pair)),
                };
            }
        }
    }
}

/// What is between the marks of a part.
fn block<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, behind) = text.split_once(&format!("-----BEGIN {name}-----"))?;
    // The marks of the end have a dash more in files of some age.
    let (inside, _) = behind.split_once("\n---")?;
    let inside = inside.trim();
    let is_word = !inside.is_empty() && inside.bytes().all(|byte| byte.is_ascii_graphic());
    is_word.then_some(inside)
}

/// The pair of keys that a seed stands for.
fn key_of(seed: &str) -> Option<Box<Ed25519KeyPair>> {
    let bytes = from_base32(seed)?;
    let (bytes, check) = bytes.split_last_chunk::<2>()?;
    let (prefix, seed) = bytes.split_first_chunk::<2>()?;
    let is_seed = *prefix == SEED_OF_USER && crc16(bytes) == u16::from_le_bytes(*check);
    let pair = is_seed.then(|| Ed25519KeyPair::from_seed_unchecked(seed).ok());
    pair.flatten().map(Box::new)
}

fn public_of(pair: &Ed25519KeyPair) -> String {
    let mut bytes = vec![PUBLIC_OF_USER];
    bytes.extend_from_slice(pair.public_key().as_ref());
    bytes.extend(crc16(&bytes).to_le_bytes());
    to_base32(&bytes)
}

/// CRC-16 as XMODEM has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => crc << 1 ^ 0x1021,
        })
    })
}

const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn to_base32(bytes: &[u8]) -> String {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let letter = |at: usize| (0..5).fold(0, |five, more| five << 1 | bit(at + more));
    let letters = (0..bytes.len() * 8).step_by(5).map(letter);
    letters.map(|five| char::from(LETTERS[usize::from(five)])).collect()
}

/// What is left over of the last letter is not looked at.
fn from_base32(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().take(128) {
        let five = LETTERS.iter().position(|known| *known == letter)?;
        held = (held << 5 | five as u32) & 0xFFF;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xFF) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    /// The example of the documentation of NATS.
    const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

    fn said(text: &str) -> serde_json::Map<String, serde_json::Value> {
        let mut said = serde_json::Map::new();
        Credentials::parse(text).expect("good").say("nonce", &mut said);
        said
    }

    #[test]
    fn each_form_is_said_as_servers_want_it() {
        let token = said("token t0k\n");
        assert_eq!((&token["auth_token"], token.len()), (&"t0k".into(), 1));
        let user = said("user ada  love lace ");
        assert_eq!((&user["user"], &user["pass"]), (&"ada".into(), &" love lace".into()));
        let key = said(SEED);
        assert_eq!((&key["nkey"], key.len()), (&PUBLIC.into(), 2));
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n\n*** x\n\
             -----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
        );
        let both = said(&creds);
        assert_eq!((&both["jwt"], &both["sig"]), (&"a.b.c".into(), &key["sig"]));
        assert!(!both.contains_key("nkey"));
    }

    #[test]
    fn a_signature_is_good_for_the_key_that_others_know() {
        let signature = said(SEED)["sig"].as_str().map(|text| URL_SAFE_NO_PAD.decode(text));
        let signature = signature.expect("text").expect("base 64");
        let public = from_base32(PUBLIC).expect("base 32");
        let public = UnparsedPublicKey::new(&ED25519, &public[1..33]);
        assert!(public.verify(b"nonce", &signature).is_ok());
        assert!(public.verify(b"other", &signature).is_err());
    }

    #[test]
    fn what_is_nothing_of_the_kind_is_refused() {
        let broken = SEED.replace("CU3VY", "CU3VA");
        let other = PUBLIC.to_owned();
        let lines = format!("{SEED}\n{SEED}");
        for wrong in
            ["", "token", "token ", "user", "user a", "SUA", "pass", &broken, &other, &lines]
        {
            assert!(Credentials::parse(wrong).is_none(), "{wrong}");
        }
        let half =
            format!("-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------");
        assert!(Credentials::parse(&half).is_none());
    }

    proptest! {
        #[test]
        fn base_32_comes_back_and_no_text_makes_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            text in "\\PC{0,80}",
        ) {
            prop_assert_eq!(from_base32(&to_base32(&bytes)), Some(bytes));
            drop(Credentials::parse(&text));
        }
    }
}
