//! The code flow, by a client that does what a browser does.

use bmi_tests::{Answer, Browser, Deployment, OidcProvider, parameter, with_parameter};
use serde_json::json;

use crate::start;

fn url(deployment: &Deployment, path: &str) -> String {
    format!("http://{}{path}", deployment.api.address())
}

fn begin(deployment: &Deployment, browser: &mut Browser) -> String {
    let (back, _) = browser.visit(
        &url(deployment, "/v1/sign-in/corp/start?return_to=/v1/whoami"),
        &url(deployment, "/v1/sign-in/callback"),
    );
    back
}

fn sign_in(deployment: &Deployment, browser: &mut Browser) -> Answer {
    let back = begin(deployment, browser);
    browser.get(&back)
}

fn session(browser: &Browser) -> Option<&String> {
    browser.cookies.iter().find(|((_, name), _)| name == "bmi-session").map(|(_, value)| value)
}

fn refused(answer: &Answer, what: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (403, "sign-in-refused"), "{what}");
    assert_eq!(answer.json()["detail"], "this sign-in cannot be finished; begin again", "{what}");
    assert!(
        !answer.headers.iter().any(|(name, value)| name == "set-cookie" && value.contains("session")),
        "{what}"
    );
}

#[test]
fn s2_a_browser_signs_in_and_out() {
    let (deployment, provider) = start("");
    let mut browser = Browser::of("ada");
    let ways = browser.get(&url(&deployment, "/v1/sign-in")).expect(200);
    assert_eq!(ways, json!({"providers": [{"name": "corp", "start": "/v1/sign-in/corp/start"}]}));

    let started = browser.get(&url(&deployment, "/v1/sign-in/corp/start"));
    assert_eq!(started.status, 303);
    let to = started.header("location").unwrap();
    assert!(to.starts_with(&format!("{}/auth?", provider.issuer())), "{to}");
    assert_eq!(parameter(to, "code_challenge_method").unwrap(), "S256");
    assert!(parameter(to, "state").unwrap().len() >= 43 && parameter(to, "nonce").unwrap().len() >= 43);
    let cookie = started.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");

    let done = sign_in(&deployment, &mut browser);
    assert_eq!((done.status, done.header("location")), (303, Some("/v1/whoami")));
    let me = browser.get(&url(&deployment, "/v1/whoami")).expect(200);
    assert_eq!(me["subject"], "user:corp:ada");
    assert_eq!(me["display"], "The person ada");
    assert_eq!(me["kind"], "session");
    assert_eq!(me["groups"], json!(["group:corp:ops"]));
    assert_eq!(me["roles"], json!([{"role": "platform-admin", "project": null}]));

    // A session is not a bearer token, and a new sign-in is a new session: the one before ends.
    let first = browser.clone();
    let token = session(&browser).unwrap().clone();
    assert!(token.starts_with("bmi-session-"));
    let bearer = deployment.api.authorized(Some(&format!("Bearer {token}")));
    assert_eq!(bearer.get("/v1/whoami").code(), "unauthenticated");
    assert_eq!(sign_in(&deployment, &mut browser).status, 303);
    assert_ne!(session(&browser).unwrap(), &token);
    assert_eq!(first.clone().get(&url(&deployment, "/v1/whoami")).status, 401);

    let mut stolen = browser.clone();
    let headers = [("Sec-Fetch-Site", "same-origin")];
    let out = browser.send("POST", &url(&deployment, "/v1/sign-out"), &headers, None);
    assert_eq!(out.status, 204);
    assert_eq!(session(&browser), None, "the cookie is gone");
    assert_eq!(stolen.get(&url(&deployment, "/v1/whoami")).status, 401, "and so is the session");
    secrets_are_not_in_the_log(&deployment, &[&token, session(&stolen).unwrap(), "the-secret-of-bmi"]);
}

#[test]
fn s2_another_sites_page_changes_nothing_with_a_browsers_cookie() {
    let (deployment, _provider) = start("");
    let mut browser = Browser::of("ada");
    sign_in(&deployment, &mut browser);
    let origin = url(&deployment, "");
    let ours = origin.trim_end_matches('/');
    let other = format!("{ours}0");
    let body = json!({"name": "made-by-another-site"}).to_string();
    let mut post = |headers: &[(&str, &str)]| {
        let all = [&[("Content-Type", "application/json")], headers].concat();
        browser.send("POST", &url(&deployment, "/v1/projects"), &all, Some(&body))
    };
    let wrong: [&[(&str, &str)]; 8] = [
        &[],
        &[("Origin", "https://evil.example.org")],
        &[("Origin", "null")],
        &[("Origin", &other)],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "none")],
        &[("Origin", "https://evil.example.org"), ("Sec-Fetch-Site", "same-origin")],
    ];
    for headers in wrong {
        let answer = post(headers);
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{headers:?}");
    }
    assert_eq!(deployment.api.get("/v1/projects").expect(200)["items"], json!([]));
    assert_eq!(post(&[("Origin", ours), ("Sec-Fetch-Site", "same-origin")]).status, 201);
    // A wrong header is not made good by a cookie.
    let wrong = [("Authorization", "Bearer bmi-sa-x")];
    assert_eq!(browser.send("GET", &url(&deployment, "/v1/whoami"), &wrong, None).status, 401);
}

#[test]
fn s2_a_callback_that_is_not_of_this_browsers_sign_in_is_refused() {
    let (deployment, _provider) = start("");
    let rows = || deployment.sql("SELECT count(*) FROM logins");
    let mut browser = Browser::of("ada");

    let back = begin(&deployment, &mut browser);
    refused(&Browser::of("eve").get(&back), "another browser");
    let mut other = Browser::of("eve");
    begin(&deployment, &mut other);
    refused(&other.get(&back), "another browser that has a sign-in of its own");
    refused(&browser.get(&with_parameter(&back, "state", &"A".repeat(43))), "wrong state");
    refused(&browser.get(&back.replace("state=", "x=")), "no state");
    let mut forged = browser.clone();
    for (_, value) in forged.cookies.iter_mut().filter(|((_, name), _)| name == "bmi-sign-in") {
        *value = format!("{}0", &value[..value.len() - 1]);
    }
    refused(&forged.get(&back), "a cookie that is not whole");
    assert_eq!(rows(), "0");
    assert_eq!(browser.get(&back).status, 303, "the sign-in itself was not spoiled");
    refused(&browser.get(&back), "a replayed callback");
    let code = parameter(&back, "code").unwrap();
    let again = begin(&deployment, &mut browser);
    refused(&browser.get(&with_parameter(&again, "code", &code)), "a replayed code");
    assert_eq!(rows(), "1");

    // The browser is made to ask for a token with another nonce.
    let started = browser.get(&url(&deployment, "/v1/sign-in/corp/start"));
    let to = with_parameter(started.header("location").unwrap(), "nonce", &"n".repeat(43));
    let (back, _) = browser.visit(&to, &url(&deployment, "/v1/sign-in/callback"));
    refused(&browser.get(&back), "wrong nonce");
    // It is made to ask with another challenge: the code is good, and bound to a verifier that we do not have.
    let started = browser.get(&url(&deployment, "/v1/sign-in/corp/start"));
    let to = with_parameter(started.header("location").unwrap(), "code_challenge", &"c".repeat(43));
    let (back, _) = browser.visit(&to, &url(&deployment, "/v1/sign-in/callback"));
    refused(&browser.get(&back), "wrong verifier");
    let back = begin(&deployment, &mut browser);
    refused(&browser.get(&with_parameter(&back, "iss", "http%3A%2F%2F127.0.0.1%3A1")), "another issuer");
    let back = begin(&deployment, &mut browser);
    refused(&browser.get(&back.replace("&iss=", "&x=")), "no issuer, where the provider names itself");
    let back = begin(&deployment, &mut browser);
    refused(&browser.get(&with_parameter(&back, "code", &"c".repeat(5000))), "absurdly long code");
    // Nobody signs in: the provider says so.
    let mut nobody = Browser::of("nobody");
    let back = begin(&deployment, &mut nobody);
    assert_eq!(parameter(&back, "error").unwrap(), "access_denied");
    refused(&nobody.get(&back), "the provider refused");
    assert_eq!(rows(), "1", "no session came of all this");
    secrets_are_not_in_the_log(&deployment, &[&code, &parameter(&again, "state").unwrap()]);
}

#[test]
fn s2_a_sign_in_leads_to_this_server_only_and_attempts_are_counted() {
    let (deployment, _provider) = start("[sign_in]\nattempts_per_minute = 12\n");
    let mut browser = Browser::of("ada");
    for bad in ["//evil.example.org", "/%5Cevil.example.org", "https://evil.example.org", "x", "/a%0Db"] {
        let answer = browser.get(&url(&deployment, &format!("/v1/sign-in/corp/start?return_to={bad}")));
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad-request"), "{bad}");
    }
    assert_eq!(browser.get(&url(&deployment, "/v1/sign-in/other/start")).status, 404);
    let answers: Vec<Answer> =
        (0..12).map(|_| browser.get(&url(&deployment, "/v1/sign-in/callback?state=x&code=y"))).collect();
    let last = answers.last().unwrap();
    assert_eq!((last.status, last.code().as_str()), (429, "too-many-requests"));
    let wait: u64 = last.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=6).contains(&wait), "{wait}");
    assert_eq!(deployment.api.get("/v1/whoami").status, 200, "who is in is not stopped");
}

#[test]
fn s2_a_session_ends_when_it_is_not_used_and_at_its_end() {
    let (deployment, provider) = start("[sessions]\nidle_minutes = 5\nhours = 1\n");
    let mut browser = Browser::of("ada");
    sign_in(&deployment, &mut browser);
    let whoami = url(&deployment, "/v1/whoami");
    let minutes_pass = |column: &str, minutes: i64| {
        let _ = deployment.sql(&format!("UPDATE logins SET {column} = {column} - {}", minutes * 60_000_000));
    };
    minutes_pass("last_seen_at", 4);
    browser.get(&whoami).expect(200);
    minutes_pass("last_seen_at", 4);
    browser.get(&whoami).expect(200);
    let seen = deployment.sql("SELECT last_seen_at FROM logins");
    browser.get(&whoami).expect(200);
    assert_eq!(deployment.sql("SELECT last_seen_at FROM logins"), seen, "written at most once a minute");
    minutes_pass("last_seen_at", 6);
    assert_eq!(browser.get(&whoami).code(), "token-expired");
    sign_in(&deployment, &mut browser);
    browser.get(&whoami).expect(200);
    minutes_pass("expires_at", 60);
    assert_eq!(browser.get(&whoami).code(), "token-expired");
    // The old ones do not stay for ever.
    sign_in(&deployment, &mut browser);
    assert_eq!(deployment.sql("SELECT count(*) FROM logins"), "1");
    drop(provider);
    browser.get(&whoami).expect(200);
}

/// What was secret is in no log, and in the database by its hash only.
fn secrets_are_not_in_the_log(deployment: &Deployment, secrets: &[&str]) {
    let log = deployment.control_plane_log();
    let database = deployment.database_bytes();
    assert!(!database.is_empty());
    for secret in secrets {
        assert!(!log.contains(secret), "in the log");
        assert!(!database.windows(secret.len()).any(|window| window == secret.as_bytes()), "in the database");
    }
}

/// The provider keeps its own session: a second sign-in asks the person nothing.
#[test]
fn s2_a_provider_that_is_down_is_told_and_found_again() {
    let (mut deployment, mut provider) = start("");
    provider.stop();
    deployment.control_plane_stop();
    deployment.control_plane_start();
    let mut browser = Browser::of("ada");
    let answer = browser.get(&url(&deployment, "/v1/sign-in/corp/start"));
    assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
    assert!(answer.header("retry-after").is_some());
    deployment.api.get("/v1/whoami").expect(200);
    provider.go_on();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(sign_in(&deployment, &mut browser).status, 303);
    sessions_outlive_the_provider(&deployment, &mut provider, &mut browser);
}

fn sessions_outlive_the_provider(
    deployment: &Deployment,
    provider: &mut OidcProvider,
    browser: &mut Browser,
) {
    let back = begin(deployment, browser);
    provider.stop();
    let answer = browser.get(&back);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "unavailable"),
        "the code cannot be exchanged now"
    );
    browser.get(&url(deployment, "/v1/whoami")).expect(200);
}
