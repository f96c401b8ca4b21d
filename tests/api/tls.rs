//! TLS of the listener: both protocols, files that cannot be used, certificates read again.

use std::path::PathBuf;

use http::Version;
use sluicebox_tests::client::Raw;
use sluicebox_tests::eventually::{SOON, eventually, eventually_equal};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Home, Setup, refused, run};
use sluicebox_tests::tls::{file, shown_by};

use super::ECHO;

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("a plain path")
}

fn with(certificate: &std::path::Path, key: &std::path::Path) -> Setup {
    Setup::dev().set("tls.certificate", text(certificate)).set("tls.key", text(key))
}

fn first() -> Setup {
    with(&file("first.pem"), &file("first.key"))
}

#[tokio::test]
async fn both_protocols_are_spoken_by_tls() {
    let node = first().start().await;
    assert!(node.url().starts_with("https://"), "{}", node.url());
    let client = node.client();
    client.push(ECHO).await;
    client.apply("safe", single("safe", "echo", "")).await;
    for (client, version) in [(client.clone(), Version::HTTP_11), (client.http2(), Version::HTTP_2)]
    {
        let reply = client.call("safe", "k", vec![b'x'; 300_000]).await.is(200);
        assert_eq!((reply.version, reply.body.len()), (version, 300_000));
    }
    assert_eq!(client.page("safe", "outputs/reply", "").await.is(200).records().len(), 2);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_before_anything_is_opened() {
    let home = Home::new();
    let place = home.data().join("files");
    std::fs::create_dir_all(&place).expect("a directory of ours");
    let write = |name: &str, text: &str| -> PathBuf {
        let path = place.join(name);
        std::fs::write(&path, text).expect("a directory of ours");
        path
    };
    let (empty, words) = (write("empty", ""), write("words", "no certificate"));
    let broken = write("broken", "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n");
    let (pem, key) = (file("first.pem"), file("first.key"));
    for (certificate, private, field, why) in [
        (&place.join("none"), &key, "tls.certificate", "No such file"),
        (&empty, &key, "tls.certificate", "there is no certificate in it"),
        (&words, &key, "tls.certificate", "there is no certificate in it"),
        (&broken, &key, "tls.certificate", "not PEM"),
        (&pem, &place.join("none"), "tls.key", "No such file"),
        (&pem, &words, "tls.key", "there is no private key in it"),
        (&pem, &pem, "tls.key", "there is no private key in it"),
        (&pem, &file("second.key"), "tls.key", "it is not the key of"),
        (&place, &key, "tls.certificate", "Is a directory"),
    ] {
        let said = refused(with(certificate, private).home(&home).command());
        assert_eq!(said.code, "tls.unusable", "{said:?}");
        assert!(said.message.starts_with(field) && said.message.contains(why), "{said:?}");
    }
    assert!(!home.data().join("log").exists(), "nothing was opened");
    let alone = Setup::dev().home(&home).set("tls.certificate", text(&pem)).command();
    assert_eq!(refused(alone).code, "config.invalid");
}

#[tokio::test]
async fn a_certificate_is_read_again_when_the_node_is_told_to() {
    let home = Home::new();
    std::fs::create_dir_all(home.data()).expect("a directory of ours");
    let (pem, key) = (home.data().join("node.pem"), home.data().join("node.key"));
    let put = |name: &str| {
        std::fs::copy(file(&format!("{name}.pem")), &pem).expect("a copy");
        std::fs::copy(file(&format!("{name}.key")), &key).expect("a copy");
    };
    put("first");
    let node = with(&pem, &key).home(&home).start().await;
    let client = node.client();
    assert_eq!(shown_by(node.address()), "first");
    put("second");
    assert_eq!(shown_by(node.address()), "first", "nobody has said so");
    node.hang_up();
    eventually_equal("second", SOON, async || shown_by(node.address())).await;
    client.plain("/healthz").await.is(200);
    // What cannot be used changes nothing.
    std::fs::copy(file("first.key"), &key).expect("a copy");
    node.hang_up();
    eventually("it says so", SOON, || async {
        node.log().contains("the old certificate goes on").then_some(())
    })
    .await;
    assert_eq!(shown_by(node.address()), "second");
    client.plain("/healthz").await.is(200);
}

#[tokio::test]
async fn who_does_not_speak_tls_is_told_so_and_a_stalled_handshake_ends() {
    let node = first().set("http.header-time-max", "300ms").start().await;
    let mut plain = Raw::connect(node.address()).await;
    plain.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let answer = plain.until_closed().await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("write https:// here\n"),
        "{answer}"
    );
    let mut stalled = Raw::connect(node.address()).await;
    stalled.write(&[22, 3, 1]).await;
    assert_eq!(stalled.until_closed().await, "");
    let mut nonsense = Raw::connect(node.address()).await;
    nonsense.write(&[22; 600]).await;
    nonsense.until_closed().await;
    node.client().plain("/healthz").await.is(200);
}

#[tokio::test]
async fn the_command_speaks_tls_to_whom_it_trusts() {
    let node = first().start().await;
    let url = node.url();
    let list = |more: &[&str]| {
        let output =
            run(&[&["list", "pipelines", "--output", "json", "--url", &url], more].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), error)
    };
    let authority = file("authority.pem");
    assert_eq!(list(&["--ca-cert", text(&authority)]), (Some(0), String::new()));
    let (code, error) = list(&[]);
    assert!(code == Some(69) && error.contains("--ca-cert"), "{code:?} {error}");
    let second = file("second.pem");
    let (code, error) = list(&["--ca-cert", text(&second)]);
    assert!(code == Some(69) && error.contains("certificate"), "{code:?} {error}");
}
