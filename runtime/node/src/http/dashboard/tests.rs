//! What is served, and that the pages keep to what the module doc says of them.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use http::header::ACCEPT_ENCODING;

use super::*;

fn headers(list: &[(HeaderName, &'static str)]) -> HeaderMap {
    list.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
}

fn get(path: &str, asked: &[(HeaderName, &'static str)]) -> Option<Response<Body>> {
    let asked = headers(asked);
    Found::at(path, &asked).map(|found| found.response(&asked))
}

fn body(response: Response<Body>) -> Bytes {
    match response.into_body() {
        Body::Whole(bytes) => bytes,
        other => panic!("not in one piece: {other:?}"),
    }
}

/// Sources of the pages, by name.
fn sources() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/dashboard");
    let files = std::fs::read_dir(folder).expect("it is there").map(|file| file.expect("a file"));
    let text = |path: std::path::PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).expect("text"))
    };
    let all = files.map(|file| text(file.path()));
    all.filter(|(name, _)| Path::new(name).extension().is_none_or(|end| end != "rs")).collect()
}

#[test]
fn every_file_of_the_folder_is_served_and_loaded_at_once() {
    let there: BTreeSet<String> = sources().into_iter().map(|(name, _)| name).collect();
    let name = |file: &File| match file.name {
        "" => "index.html".to_owned(),
        name => name.to_owned(),
    };
    assert_eq!(there, FILES.iter().map(name).collect());
    let page = std::str::from_utf8(FILES[0].bytes).expect("text");
    for file in FILES.iter().filter(|file| file.media == SCRIPT) {
        // One that is found only when another has come costs a round trip more.
        let line = format!("<link rel=\"modulepreload\" href=\"{}\">", file.name);
        assert!(page.contains(&line), "{} is not preloaded", file.name);
    }
}

#[test]
fn a_file_goes_with_the_policy_and_is_not_sent_twice() {
    let first = get("/dashboard/main.js", &[]).expect("it is there");
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(first.headers()[CONTENT_TYPE], SCRIPT);
    let policy = first.headers()[CONTENT_SECURITY_POLICY].to_str().expect("text").to_owned();
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains('\n'), "{policy}");
    assert_eq!(first.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    let tag = first.headers()[ETAG].clone();
    let again = HeaderMap::from_iter([(IF_NONE_MATCH, tag.clone())]);
    let found = Found::at("/dashboard/main.js", &again).expect("it is there");
    let second = found.response(&again);
    assert_eq!((second.status(), &second.headers()[ETAG]), (StatusCode::NOT_MODIFIED, &tag));
    assert!(body(second).is_empty());
    let other = get("/dashboard/main.js", &[(IF_NONE_MATCH, "W/\"other\", \"x\"")]);
    assert_eq!(other.expect("it is there").status(), StatusCode::OK);
    let tags: BTreeSet<&str> =
        FILES.iter().map(|file| file.made().tag.to_str().expect("text")).collect();
    assert_eq!(tags.len(), FILES.len(), "two files have one name");
}

#[test]
fn who_takes_gzip_gets_the_same_in_fewer_bytes() {
    for file in &FILES {
        let path = format!("{AT}{}", file.name);
        let response = get(&path, &[(ACCEPT_ENCODING, "br, gzip")]).expect("it is there");
        let is_coded = response.headers().contains_key(CONTENT_ENCODING);
        let bytes = body(response);
        let mut plain = Vec::new();
        if is_coded {
            GzDecoder::new(&bytes[..]).read_to_end(&mut plain).expect("gzip");
            assert!(bytes.len() < file.bytes.len(), "{path}");
        } else {
            plain.extend_from_slice(&bytes);
        }
        assert_eq!(plain, file.bytes, "{path}");
    }
}

#[test]
fn a_browser_at_the_root_is_shown_the_way_and_nobody_else() {
    let browser = [(ACCEPT, "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")];
    for (path, asked) in [("/", &browser[..]), ("/dashboard", &[])] {
        let response = get(path, asked).expect("a redirection");
        assert_eq!(response.status(), StatusCode::FOUND);
        assert_eq!(response.headers()[LOCATION], AT);
    }
    assert!(get("/", &[(ACCEPT, "*/*")]).is_none() && get("/", &[]).is_none());
    for path in ["/dashboard/none.js", "/dashboard/../Cargo.toml", "/dashboard/index.html/", "/x"] {
        assert!(get(path, &browser).is_none(), "{path}");
    }
}

#[test]
fn no_page_makes_html_scripts_or_styles_of_text_or_asks_anybody_else() {
    // The policy forbids them as well; here they are found before a browser runs.
    const NEVER: [&str; 12] = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "DOMParser",
        "createContextualFragment",
        "eval(",
        "Function(",
        "import(",
        "https:",
        "style=",
        "onclick=",
    ];
    for (name, text) in sources() {
        for never in NEVER {
            assert!(!text.contains(never), "{name} has {never}");
        }
        // The name of SVG, which nobody asks for.
        let foreign = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!foreign.contains("http://"), "{name} names an address");
    }
}
