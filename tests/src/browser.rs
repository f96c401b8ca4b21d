//! A real browser without a screen, by the WebDriver protocol: Chromium, by its chromedriver.
//!
//! - Nothing of it reaches beyond loopback, and nothing is kept: it has a profile of its own, which
//!   goes with it. It and all its processes end with the test, by a panic too.
//! - A browser that is missing fails the test with the command that installs it.
//! - What is waited for has a bound, and failing says what the page showed.
//!
//! Leaves to others: what pages should show.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::eventually::{SOON, eventually};

/// How to get what is missing.
const ADVICE: &str = "install it with `apt-get install chromium chromium-driver`, or let \
                      `cargo xtask test` do that";

/// What the browser is started with: no screen, no sandbox of its own (tests run as root in
/// containers), and nothing that asks somebody else for something.
const ARGUMENTS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // A name that is not this machine's own, for what depends on that.
    "--host-resolver-rules=MAP node.test 127.0.0.1",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
];

/// How WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    /// Of the session.
    url: String,
    profile: TempDir,
}

impl Browser {
    /// Starts one.
    ///
    /// # Panics
    /// If there is none, or it does not start.
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a temporary directory");
        let said = profile.path().join("driver");
        let out = std::fs::File::create(&said).expect("a directory of ours can be written");
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(out).stderr(Stdio::null());
        let spawned = command.env("HOME", profile.path()).process_group(0).spawn();
        let driver = spawned.unwrap_or_else(|why| panic!("no chromedriver: {why}; {ADVICE}"));
        let http = legacy::Client::builder(TokioExecutor::new()).build_http();
        // From here on a panic ends it.
        let mut browser = Self { driver, http, url: String::new(), profile };
        let port = eventually("chromedriver listens", SOON, || {
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            let port = text.split("successfully on port ").nth(1);
            let port = port.and_then(|rest| rest.split('.').next()).map(str::to_owned);
            std::future::ready(port)
        })
        .await;
        browser.url = format!("http://127.0.0.1:{port}");
        browser.begin().await;
        browser
    }

    async fn begin(&mut self) {
        let profile = format!("--user-data-dir={}", self.profile.path().display());
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let begun = self.command(Method::POST, "/session", Some(wanted)).await;
        let begun = begun.unwrap_or_else(|why| panic!("no browser: {why}; {ADVICE}"));
        let id = begun["sessionId"].as_str().expect("a session has an id");
        self.url = format!("{}/session/{id}", self.url);
    }

    /// A command of the protocol: what it gives, or why not.
    async fn command(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, String> {
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(Full::new(body));
        let answered = async {
            let reply = self.http.request(request.expect("a good request")).await;
            let reply = reply.map_err(|error| error.to_string())?;
            let good = reply.status().is_success();
            let body = reply.into_body().collect().await.map_err(|error| error.to_string())?;
            let answer: Value =
                serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())?;
            if good { Ok(answer["value"].clone()) } else { Err(answer["value"].to_string()) }
        };
        tokio::time::timeout(SOON * 2, answered).await.unwrap_or_else(|_| Err("no answer".into()))
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.command(Method::POST, path, Some(body.clone())).await;
        answer.unwrap_or_else(|why| panic!("{path} {body}: {why}"))
    }

    /// Goes to a page.
    pub async fn go(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// Runs the body of a function in the page, and gives what it returns.
    pub async fn run(&self, script: &str, arguments: &[Value]) -> Value {
        self.post("/execute/sync", json!({ "script": script, "args": arguments })).await
    }

    /// A command of the browser's own protocol.
    async fn tell(&self, command: &str, parameters: Value) {
        self.post("/goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await;
    }

    /// Makes the page so large.
    pub async fn size(&self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.tell("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Has its user prefer `light` or `dark`.
    pub async fn prefers(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.tell("Emulation.setEmulatedMedia", json!({ "features": [feature] })).await;
    }

    /// Goes on in a window of its own, beside those there are.
    ///
    /// # Panics
    /// If there is none.
    pub async fn another(&self) {
        let made = self.post("/window/new", json!({ "type": "window" })).await;
        self.post("/window", json!({ "handle": made["handle"] })).await;
    }

    /// Has nobody see the page.
    pub async fn hide(&self) {
        self.post("/window/minimize", json!({})).await;
        self.until("document.hidden").await;
    }

    /// Has it seen again.
    pub async fn show(&self) {
        self.post("/window/rect", json!({ "width": 1280, "height": 900 })).await;
        self.until("!document.hidden").await;
    }

    /// Waits until an expression in the page is true or something.
    ///
    /// # Panics
    /// If it never is, with what the page shows.
    pub async fn until(&self, expression: &str) -> Value {
        let script = format!("return ({expression}) || null");
        let end = std::time::Instant::now() + SOON;
        loop {
            let found = self.run(&script, &[]).await;
            if !found.is_null() {
                return found;
            }
            if std::time::Instant::now() > end {
                let page = self.run("return document.body.innerText", &[]).await;
                let logged = self.logged().await;
                panic!("never: {expression}\nthe page: {page:#}\nlogged: {logged:#?}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page shows a text.
    pub async fn shows(&self, text: &str) {
        let text = json!(text);
        self.until(&format!("document.body.innerText.includes({text})")).await;
    }

    /// Waits until there is an element.
    async fn element(&self, css: &str) -> String {
        self.until(&format!("document.querySelector({}) !== null", json!(css))).await;
        let found = self.post("/element", json!({ "using": "css selector", "value": css })).await;
        found[ELEMENT].as_str().expect("an element has a name").to_owned()
    }

    /// Clicks on an element as a person does; of several on the first.
    pub async fn click(&self, css: &str) {
        // What is read anew may put another element in its place between two commands.
        eventually(&format!("a click on {css}"), SOON, || async {
            let element = self.element(css).await;
            let path = format!("/element/{element}/click");
            self.command(Method::POST, &path, Some(json!({}))).await.ok()
        })
        .await;
    }

    /// Clicks on the link or button with this text.
    pub async fn click_text(&self, text: &str) {
        let text = json!(text);
        let found = format!(
            "[...document.querySelectorAll('a,button')].find((one) => one.innerText.trim() === \
             {text} && one.checkVisibility())"
        );
        self.until(&format!("{found} !== undefined")).await;
        self.run(&format!("{found}.setAttribute('data-clicked-next', '')"), &[]).await;
        self.click("[data-clicked-next]").await;
        let forget = "document.querySelector('[data-clicked-next]')\
                      ?.removeAttribute('data-clicked-next')";
        self.run(forget, &[]).await;
    }

    /// Types into an element; the path of a file into one that takes files.
    pub async fn write(&self, css: &str, text: &str) {
        let element = self.element(css).await;
        self.post(&format!("/element/{element}/value"), json!({ "text": text })).await;
    }

    /// Presses keys one behind the other, wherever the focus is.
    pub async fn press(&self, keys: &[char]) {
        let strokes = keys.iter().flat_map(|key| {
            [
                json!({ "type": "keyDown", "value": key.to_string() }),
                json!({ "type": "keyUp", "value": key.to_string() }),
            ]
        });
        let strokes: Vec<Value> = strokes.collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": strokes });
        self.post("/actions", json!({ "actions": [keyboard] })).await;
    }

    /// Keeps what the page looks like in a file.
    ///
    /// # Panics
    /// If that cannot be written.
    pub async fn picture(&self, path: &Path) {
        let picture = self.command(Method::GET, "/screenshot", None).await.expect("a picture");
        let bytes = STANDARD.decode(picture.as_str().expect("text")).expect("base64");
        std::fs::write(path, bytes).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    }

    /// What was logged since it was last asked: errors, warnings, violations of the policy.
    pub async fn logged(&self) -> Vec<String> {
        let entries = self.post("/se/log", json!({ "type": "browser" })).await;
        let line = |entry: &Value| format!("{} {}", entry["level"], entry["message"]);
        entries.as_array().into_iter().flatten().map(line).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver leads a group, in which are the browser and all its processes.
        if let Some(group) = i32::try_from(self.driver.id()).ok().and_then(Pid::from_raw) {
            let _gone = kill_process_group(group, Signal::KILL);
        }
        let _ended = self.driver.wait();
    }
}
