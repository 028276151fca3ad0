//! Access tokens of the provider on the API.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use bmi_tests::AUDIENCE;
use serde_json::{Value, json};

use crate::{holder, start};

fn part(token: &str, position: usize) -> Value {
    serde_json::from_slice(&BASE64URL.decode(token.split('.').nth(position).unwrap()).unwrap()).unwrap()
}

fn encoded(value: &Value) -> String {
    BASE64URL.encode(value.to_string())
}

#[test]
fn s2_access_tokens_count_until_they_are_signed_out_and_keys_may_change() {
    let (deployment, mut provider) = start("");
    deployment.api.project("lab");
    let token = provider.access_token("lin");
    let lin = holder(&deployment, &token);
    let me = lin.get("/v1/whoami").expect(200);
    assert_eq!(me["subject"], "user:corp:lin");
    assert_eq!(me["kind"], "access-token");
    assert_eq!(me["display"], "The person lin");
    assert_eq!(me["roles"][0]["role"], "project-member");
    lin.get("/v1/projects/lab/images").expect(200);
    assert_eq!(holder(&deployment, &provider.access_token("eve")).get("/v1/projects/lab/images").status, 404);

    lin.send("POST", "/v1/sign-out", &[], None).expect(204);
    let out = lin.get("/v1/whoami");
    assert_eq!((out.status, out.code().as_str()), (401, "token-expired"));
    assert_eq!(out.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    holder(&deployment, &provider.access_token("lin")).get("/v1/whoami").expect(200);

    let before = provider.access_token("ada");
    holder(&deployment, &before).get("/v1/whoami").expect(200);
    provider.rotate();
    let after = provider.access_token("ada");
    holder(&deployment, &after).get("/v1/whoami").expect(200);
    assert_eq!(holder(&deployment, &before).get("/v1/whoami").status, 401, "its key was withdrawn");
    provider.stop();
    holder(&deployment, &after).get("/v1/whoami").expect(200);
    assert_eq!(holder(&deployment, &before).get("/v1/whoami").status, 401);
    for secret in [&token, &before, &after] {
        assert!(!deployment.control_plane_log().contains(secret.rsplit('.').next().unwrap()));
    }
}

#[test]
fn s2_a_token_that_proves_nothing_is_refused_and_does_nothing() {
    let (deployment, provider) = start("");
    deployment.api.project("lab");
    let tokens = provider.tokens("ada", AUDIENCE);
    let good = tokens["access_token"].as_str().unwrap();
    let (header, claims) = (part(good, 0), part(good, 1));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    holder(&deployment, good).get("/v1/whoami").expect(200);
    let with = |change: &dyn Fn(&mut Value, &mut Value)| {
        let (mut header, mut claims) = (header.clone(), claims.clone());
        change(&mut header, &mut claims);
        format!("{}.{}.{signature}", encoded(&header), encoded(&claims))
    };
    let none = json!({"alg": "none", "typ": "at+jwt"});
    let other_audience = provider.tokens("ada", "https://other.example.org");
    let wrong = [
        ("unsigned", format!("{signed}.")),
        ("alg none", format!("{}.{}.", encoded(&none), encoded(&claims))),
        ("alg HS256", with(&|header, _| header["alg"] = json!("HS256"))),
        ("another person", with(&|_, claims| claims["sub"] = json!("root"))),
        ("another group", with(&|_, claims| claims["groups"] = json!(["ops", "root"]))),
        ("another issuer", with(&|_, claims| claims["iss"] = json!("https://evil.example.org"))),
        ("another key", with(&|header, _| header["kid"] = json!("x"))),
        (
            "a key of its own",
            with(&|header, _| {
                header["jwk"] = json!({"kty": "oct", "k": "c2VjcmV0"});
                header["jku"] = json!("http://127.0.0.1:9/keys");
            }),
        ),
        ("wrong audience", other_audience["access_token"].as_str().unwrap().to_owned()),
        ("an ID token", tokens["id_token"].as_str().unwrap().to_owned()),
        ("an ID token for another", other_audience["id_token"].as_str().unwrap().to_owned()),
        ("long", format!("{}.{}.{signature}", encoded(&header), "A".repeat(100_000))),
        ("a session that is none", "bmi-session-x".to_owned()),
        ("a service token that is none", format!("bmi-sa-{}", "0".repeat(49))),
    ];
    let before = deployment.api.everything();
    for (what, token) in &wrong {
        let answer = holder(&deployment, token).post("/v1/projects", &json!({"name": "evil"}));
        // What does not fit into a header is not even a request.
        if *what == "long" {
            assert!((400..=431).contains(&answer.status), "{}", answer.status);
            continue;
        }
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthenticated"), "{what}");
        assert_eq!(
            answer.json()["detail"],
            "send `Authorization: Bearer <token>` with a valid token",
            "{what}: the reason is for the log"
        );
    }
    assert_eq!(deployment.api.everything(), before);
    let log = deployment.control_plane_log();
    for reason in ["its audience is another", "it is of another type", "its signature is wrong"] {
        assert!(log.contains(reason), "{reason}");
    }
    assert!(!log.contains(signature) && !log.contains("eyJ"), "no token is in the log");
}

#[test]
fn s2_a_flood_of_unknown_keys_asks_the_provider_once() {
    let (deployment, provider) = start("");
    let good = provider.access_token("ada");
    holder(&deployment, &good).get("/v1/whoami").expect(200);
    let before = provider.key_requests();
    let (mut header, rest) = (part(&good, 0), good.split_once('.').unwrap().1);
    std::thread::scope(|scope| {
        for number in 0..8 {
            header["kid"] = json!(format!("made-up-{number}"));
            let flood = holder(&deployment, &format!("{}.{rest}", encoded(&header)));
            scope.spawn(move || {
                for _ in 0..25 {
                    assert_eq!(flood.get("/v1/whoami").status, 401);
                }
            });
        }
    });
    assert_eq!(provider.key_requests() - before, 1);
    holder(&deployment, &good).get("/v1/whoami").expect(200);
}

#[test]
fn s2_the_local_admin_is_refused_where_there_is_a_provider_unless_it_is_asked_for() {
    let (mut deployment, provider) = start("");
    deployment.api.get("/v1/whoami").expect(200);
    let path = deployment.data.join("control-plane.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    for (setting, status) in
        [("", 401), ("[local_admin]\nenabled = false\n", 401), ("[local_admin]\nenabled = true\n", 200)]
    {
        std::fs::write(&path, text.replace("[local_admin]\nenabled = true\n", setting)).unwrap();
        deployment.control_plane_stop();
        deployment.control_plane_start();
        assert_eq!(deployment.api.get("/v1/whoami").status, status, "{setting}");
        holder(&deployment, &provider.access_token("ada")).get("/v1/whoami").expect(200);
    }
}
