//! Tokens: asked for, kept in the tab, shown nowhere.

use sluicebox_tests::browser::Browser;
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::Setup;

use super::{at, picture};

const ECHO: &str = "hostile/echo";

#[tokio::test]
async fn a_token_is_asked_for_once_and_is_in_no_address() {
    let node = Setup::tenants(&["ann", "bob"]).start().await;
    let ann = node.tenant("ann");
    ann.push(ECHO).await;
    ann.apply("anns", single("anns", "echo", "")).await;
    let browser = Browser::start().await;
    browser.size(1280, 900).await;
    browser.go(&at(&node, "#/p/anns")).await;
    browser.shows("With a token of your tenant").await;
    browser.picture(&picture("sign-in-light")).await;
    browser.write("#token", "nonsense\u{e007}").await;
    browser.shows("That is no token").await;
    let token = node.token("ann").to_owned();
    let forged = format!("{}x", &token[..token.len() - 1]);
    let sign_in = async |token: &str| {
        browser.run("document.querySelector('#token').value = ''", &[]).await;
        browser.write("#token", &format!("{token}\u{e007}")).await;
    };
    sign_in(&forged).await;
    browser.shows("This token is not known here").await;
    sign_in(&token).await;
    // Where it was wanted to go.
    browser.shows("Acknowledged in").await;
    let seen = "return [location.href, document.cookie, JSON.stringify(localStorage), \
                document.documentElement.outerHTML, ...performance.getEntries().map((one) => \
                one.name)].join(' ')";
    let seen = browser.run(seen, &[]).await;
    assert!(
        !seen.as_str().expect("text").contains(&token),
        "the token is somewhere it was not given to"
    );
    // It is good for this tab, also when the page is loaded again.
    browser.go(&at(&node, "#/tenant")).await;
    browser.shows("Tenant ann").await;
    browser.run("location.reload()", &[]).await;
    browser.shows("Tenant ann").await;
    // Nobody else's pipelines are there.
    browser.click_text("Sign out").await;
    browser.shows("With a token of your tenant").await;
    sign_in(node.token("bob")).await;
    browser.shows("Tenant bob").await;
    browser.click_text("Pipelines").await;
    browser.shows("No pipelines yet").await;
    let kept = "return Object.keys(sessionStorage).length";
    browser.click_text("Sign out").await;
    browser.shows("With a token of your tenant").await;
    assert_eq!(browser.run(kept, &[]).await, 0);
}

#[tokio::test]
async fn who_may_only_look_is_told_so() {
    let node = Setup::tenants(&["ann"]).start().await;
    let ann = node.tenant("ann");
    ann.push(ECHO).await;
    ann.apply("anns", single("anns", "echo", "")).await;
    let looks = node.home().token("ann", "read");
    let browser = Browser::start().await;
    browser.go(&at(&node, "#/deploy")).await;
    browser.shows("With a token of your tenant").await;
    // The node takes a token up within a second or so.
    for _ in 0..30 {
        browser.run("document.querySelector('#token').value = ''", &[]).await;
        browser.write("#token", &format!("{looks}\u{e007}")).await;
        let signed_in = "document.querySelector('#token') === null \
                         || document.body.innerText.includes('This token is not known')";
        browser.until(signed_in).await;
        if browser.run("return document.querySelector('#token') === null", &[]).await == true {
            break;
        }
    }
    browser.shows("it takes the scope write").await;
    let enabled = "return [...document.querySelectorAll('form button')].filter((one) => \
                   !one.disabled).length";
    assert_eq!(browser.run(enabled, &[]).await, 0);
    // Here it is on the node's own machine.
    browser.click_text("Node").await;
    browser.shows("This node is alone.").await;
    browser.go(&at(&node, "#/p/anns/versions")).await;
    browser.shows("Manifest, with every default").await;
    let buttons =
        "return [...document.querySelectorAll('main button')].map((one) => one.innerText).join()";
    assert_eq!(browser.run(buttons, &[]).await, "");
}

#[tokio::test]
async fn from_elsewhere_the_node_as_a_whole_takes_the_scope_admin() {
    let node = Setup::tenants(&["ann"]).start().await;
    let ann = node.tenant("ann");
    ann.push(ECHO).await;
    ann.apply("anns", single("anns", "echo", "")).await;
    let browser = Browser::start().await;
    let port = node.address().port();
    browser.go(&format!("http://node.test:{port}/dashboard/#/node")).await;
    browser.shows("With a token of your tenant").await;
    // That it was asked for one is all there is to say.
    let logged = browser.logged().await;
    assert!(logged.iter().all(|line| line.contains("401 (Unauthorized)")), "{logged:#?}");
    browser.write("#token", &format!("{}\u{e007}", node.token("ann"))).await;
    browser.shows("tokens with the scope admin").await;
    browser.shows("No stage has used the GPU yet").await;
    browser.click_text("Pipelines").await;
    browser.shows("1 pipeline of ann").await;
    let logged = browser.logged().await;
    assert!(logged.iter().all(|line| line.contains("403 (Forbidden)")), "{logged:#?}");
}
