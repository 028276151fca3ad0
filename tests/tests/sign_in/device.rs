//! The device flow over the API.

use bmi_tests::{OidcProvider, until};
use serde_json::{Value, json};
use std::time::Duration;

use crate::{holder, start};

const TOKEN: &str = "/v1/sign-in/device/token";

fn begin(api: &bmi_tests::Api) -> Value {
    api.post("/v1/sign-in/device", &json!({})).expect(200)
}

fn decide(provider: &OidcProvider, begun: &Value, decision: &str) {
    provider.device_decide("lin", begun["user_code"].as_str().unwrap(), decision);
}

#[test]
fn s2_a_terminal_signs_in_by_a_browser_elsewhere() {
    let (deployment, provider) = start("");
    let stranger = deployment.api.authorized(None);
    let begun = begin(&stranger);
    assert!(begun["verification_uri"].as_str().unwrap().starts_with(&provider.issuer()));
    let ask = |begun: &Value| stranger.post(TOKEN, &json!({"device": begun["device"]}));
    assert_eq!(ask(&begun).expect(200)["state"], "pending");
    let early = ask(&begun).expect(200);
    assert_eq!((&early["state"], &early["session"]), (&json!("slow-down"), &Value::Null));
    decide(&provider, &begun, "confirm");
    let token = until("the terminal is in", Duration::from_secs(20), || {
        let answer = ask(&begun).expect(200);
        answer["session"]["token"].as_str().map(str::to_owned)
    });
    let lin = holder(&deployment, &token);
    let me = lin.get("/v1/whoami").expect(200);
    assert_eq!((&me["subject"], &me["kind"]), (&json!("user:corp:lin"), &json!("session")));
    assert_eq!(me["groups"], json!(["group:corp:lab"]));
    let again = ask(&begun);
    assert_eq!((again.status, again.code().as_str()), (403, "sign-in-refused"), "a session is given once");
    let cookie = format!("bmi-session={token}");
    let answer = stranger.send("GET", "/v1/whoami", &[("Cookie", &cookie)], None);
    assert_eq!(answer.status, 401, "a terminal's session is no browser's");
    lin.send("POST", "/v1/sign-out", &[], None).expect(204);
    assert_eq!(lin.get("/v1/whoami").code(), "unauthenticated");
    let log = deployment.control_plane_log();
    assert!(!log.contains(&token) && !log.contains(begun["device"].as_str().unwrap()));
}

#[test]
fn s2_a_terminals_sign_in_that_is_refused_or_made_up_gives_nothing() {
    let (deployment, provider) = start("");
    let stranger = deployment.api.authorized(None);
    let begun = begin(&stranger);
    decide(&provider, &begun, "abort");
    let refused = stranger.post(TOKEN, &json!({"device": begun["device"]}));
    assert_eq!((refused.status, refused.code().as_str()), (403, "sign-in-refused"));
    for device in ["", "x", "bmi-sign-in-", &"x".repeat(4_000)] {
        let refused = stranger.post(TOKEN, &json!({"device": device}));
        assert_eq!((refused.status, refused.code().as_str()), (403, "sign-in-refused"), "{}", device.len());
    }
    for (body, status) in [
        (json!({}), 422),
        (json!({"device": 7}), 422),
        (json!({"device": "x", "token": "y"}), 422),
        (json!([]), 422),
    ] {
        assert_eq!(stranger.post(TOKEN, &body).status, status, "{body}");
    }
    assert_eq!(stranger.post("/v1/sign-in/device", &json!({"provider": "other"})).status, 404);
    // A browser's state is no terminal's handle.
    assert_eq!(deployment.sql("SELECT count(*) FROM logins"), "0");
    assert_eq!(deployment.sql("SELECT count(*) FROM sign_ins"), "0");
}
