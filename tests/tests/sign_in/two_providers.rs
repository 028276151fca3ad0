//! Two providers at once, by other people and in other languages: what one says is never taken for what the other says.

use bmi_tests::{Browser, Canaille, Deployment, OidcProvider, STORE_SMALL, parameter, with_parameter};
use serde_json::json;

use crate::holder;

#[test]
fn s2_two_providers_are_kept_apart() {
    let mut deployment = Deployment::start(STORE_SMALL);
    let (corp, campus) = (OidcProvider::start(&deployment), Canaille::start(&deployment));
    let settings = format!("{}\n{}", corp.settings(&deployment), campus.settings(&deployment));
    deployment.sign_in_configure(&format!("[sign_in]\nattempts_per_minute = 1000\n{settings}"));
    let base = format!("http://{}", deployment.api.address());
    let callback = format!("{base}/v1/sign-in/callback");
    let start = |provider: &str| format!("{base}/v1/sign-in/{provider}/start");
    let whoami = format!("{base}/v1/whoami");
    let mut browser = Browser::of("ada");
    assert_eq!(browser.get(&format!("{base}/v1/sign-in")).expect(200)["providers"][1]["name"], "campus");

    let (back, _) = browser.visit(&start("campus"), &callback);
    assert_eq!(browser.get(&back).status, 303);
    let me = browser.get(&whoami).expect(200);
    assert_eq!(me["subject"], "user:campus:ada");
    assert_eq!(me["display"], "The person ada");
    assert_eq!(me["groups"], json!(["group:campus:ops"]), "from the user info: its ID token has none");
    assert_eq!(me["roles"], json!([{"role": "platform-auditor", "project": null}]));
    assert_eq!(browser.get(&format!("{base}/v1/projects")).status, 200);

    let (back, _) = browser.visit(&start("corp"), &callback);
    assert_eq!(browser.get(&back).status, 303);
    let me = browser.get(&whoami).expect(200);
    assert_eq!(me["subject"], "user:corp:ada", "the same name, and somebody else");
    assert_eq!(me["roles"], json!([{"role": "platform-admin", "project": null}]));

    // A code of one provider does not end a sign-in that began at the other, whoever it says it is from.
    let (of_campus, _) = browser.visit(&start("campus"), &callback);
    let mut other = browser.clone();
    let (of_corp, _) = browser.visit(&start("corp"), &callback);
    let code = parameter(&of_campus, "code").unwrap();
    let mixed = with_parameter(&of_corp, "code", &code);
    assert_eq!(browser.get(&mixed).code(), "sign-in-refused");
    let mixed = with_parameter(&of_campus, "iss", &parameter(&of_corp, "iss").unwrap());
    assert_eq!(other.get(&mixed).code(), "sign-in-refused");

    let stranger = deployment.api.authorized(None);
    let which = stranger.post("/v1/sign-in/device", &json!({}));
    assert_eq!((which.status, which.code().as_str()), (400, "bad-request"));
    assert!(which.json()["detail"].as_str().unwrap().contains("corp, campus"));
    let unable = stranger.post("/v1/sign-in/device", &json!({"provider": "campus"}));
    assert_eq!((unable.status, unable.code().as_str()), (409, "wrong-state"), "canaille has no device flow");
    stranger.post("/v1/sign-in/device", &json!({"provider": "corp"})).expect(200);
    holder(&deployment, &corp.access_token("ada")).get("/v1/whoami").expect(200);
}
