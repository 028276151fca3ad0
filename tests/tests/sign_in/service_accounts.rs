//! Service accounts: programs with tokens of one project.

use bmi_tests::{Deployment, STORE_SMALL};
use serde_json::{Value, json};

use crate::holder;

const ACCOUNTS: &str = "/v1/projects/lab/service-accounts";

fn deployment() -> Deployment {
    let deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.api.project("other");
    deployment
}

fn new(name: &str, scopes: &[&str]) -> Value {
    json!({"name": name, "role": "project-member", "scopes": scopes, "expires_days": 1})
}

fn token(made: &Value) -> String {
    made["token"].as_str().unwrap().to_owned()
}

#[test]
fn s2_a_service_account_does_what_its_scopes_and_its_role_allow_in_its_project_only() {
    let deployment = deployment();
    let api = &deployment.api;
    let made = api.post(ACCOUNTS, &new("builder", &["image:*", "node:read", "project:delete"])).expect(201);
    let token = token(&made);
    assert!(token.starts_with("bmi-sa-") && token.len() == 56, "{token}");
    let builder = holder(&deployment, &token);
    let me = builder.get("/v1/whoami").expect(200);
    assert_eq!(me["subject"], format!("service-account:{}", made["account"]["id"].as_str().unwrap()));
    assert_eq!((&me["kind"], &me["display"]), (&json!("service-account"), &json!("builder")));
    assert_eq!(me["roles"][0]["role"], "project-member");
    builder.post("/v1/projects/lab/images", &json!({"name": "open", "virtual_size": 1 << 20})).expect(201);
    assert_eq!(builder.get("/v1/projects/lab/instances").status, 403, "its role may, its scopes do not");
    assert_eq!(builder.delete("/v1/projects/lab").status, 403, "its scopes would, its role does not");
    assert_eq!(builder.get("/v1/projects/other/images").status, 404);
    assert_eq!(builder.get("/v1/projects/nobody/images").status, 404);
    assert_eq!(builder.post("/v1/sign-out", &json!({})).code(), "wrong-state");
    let account = format!("{ACCOUNTS}/builder");
    let version = api.get(&account).expect(200)["version"].clone();
    let patched = api.json("PATCH", &account, &json!({"scopes": ["instance:read"]})).expect(200);
    assert_eq!(patched["version"].as_i64(), version.as_i64().map(|version| version + 1));
    builder.get("/v1/projects/lab/instances").expect(200);
    assert_eq!(builder.get("/v1/projects/lab/images").status, 403, "at once, for the token there is");
    assert_eq!(api.delete("/v1/projects/lab").code(), "in-use");
    api.delete(&account).expect(204);
    assert_eq!(builder.get("/v1/whoami").code(), "unauthenticated");
    let members = api.get("/v1/projects/lab/members").expect(200);
    assert_eq!(members["items"], json!([]), "its role went with it");
}

#[test]
fn s2_a_token_ends_rotates_and_is_shown_once() {
    let deployment = deployment();
    let api = &deployment.api;
    let first = api.post_with_key(ACCOUNTS, "once", &new("ci", &["*"])).expect(201);
    let again = api.post_with_key(ACCOUNTS, "once", &new("ci", &["*"])).expect(201);
    assert_eq!(first, again, "a repeat has the same answer, the token in it");
    let first = token(&first);
    let account = format!("{ACCOUNTS}/ci");
    let shown = api.get(&account).expect(200);
    assert!(!shown.to_string().contains(&first));
    assert_eq!(shown["tokens"][0]["last_used_at"], Value::Null);
    let whoami = |token: &str| holder(&deployment, token).get("/v1/whoami");
    whoami(&first).expect(200);
    let used = api.get(&account).expect(200)["tokens"][0]["last_used_at"].clone();
    assert!(used.is_string());
    whoami(&first).expect(200);
    assert_eq!(api.get(&account).expect(200)["tokens"][0]["last_used_at"], used, "at most once a minute");

    let tokens = format!("{account}/tokens");
    let second = token(&api.post(&tokens, &json!({"expires_days": 1, "overlap_s": 3600})).expect(201));
    whoami(&first).expect(200);
    whoami(&second).expect(200);
    let third = token(&api.post(&tokens, &json!({"expires_days": 1})).expect(201));
    for old in [&first, &second] {
        assert!(["token-expired", "unauthenticated"].contains(&whoami(old).code().as_str()));
    }
    whoami(&third).expect(200);
    let left = api.get(&account).expect(200)["tokens"].clone();
    assert_eq!(left.as_array().unwrap().len(), 1);
    let id = left[0]["id"].as_str().unwrap();
    api.delete(&format!("{tokens}/{id}")).expect(204);
    assert_eq!(whoami(&third).code(), "unauthenticated");
    assert_eq!(api.delete(&format!("{tokens}/{id}")).status, 404);

    let fourth = token(&api.post(&tokens, &json!({"expires_days": 1})).expect(201));
    let _ = deployment.sql("UPDATE service_tokens SET expires_at = 1");
    assert_eq!(whoami(&fourth).code(), "token-expired");
    // A wrong checksum asks nobody: what is asked is an error without a database.
    let _ = deployment.sql("ALTER TABLE service_tokens RENAME TO gone");
    let mut wrong = fourth.clone();
    wrong.replace_range(20..21, if &fourth[20..21] == "a" { "b" } else { "a" });
    assert_eq!(whoami(&wrong).status, 401);
    assert_eq!(whoami(&fourth).status, 500, "this one was looked for");
    let _ = deployment.sql("ALTER TABLE gone RENAME TO service_tokens");
    let database = deployment.database_bytes();
    assert!(!database.is_empty());
    for secret in [&first, &second, &third, &fourth] {
        for bytes in [&database, &deployment.control_plane_log().into_bytes()] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
    }
}

#[test]
fn s2_what_would_make_a_service_account_unsafe_is_refused() {
    let deployment = deployment();
    let api = &deployment.api;
    for (change, fault) in [
        (json!({"scopes": []}), "scopes"),
        (json!({"scopes": ["image:fly"]}), "scopes[0]"),
        (json!({"expires_days": 0}), "expires_days"),
        (json!({"expires_days": 366}), "expires_days"),
        (json!({"expires_days": null}), "expires_days"),
        (json!({"role": "no-such-role"}), "role"),
        (json!({"name": "Bad Name"}), "name"),
        (json!({"token": "mine"}), "token"),
    ] {
        let mut body = new("ci", &["*"]);
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = api.post(ACCOUNTS, &body);
        assert_eq!((answer.status, answer.faults()), (422, vec![fault.to_owned()]), "{change}");
    }
    // Nobody gives more than they have: this one may make accounts, and rule nothing.
    let mut body = new("small", &["*"]);
    body["role"] = json!("project-admin");
    let admin = holder(&deployment, &token(&api.post(ACCOUNTS, &body).expect(201)));
    let mut body = new("large", &["*"]);
    body["role"] = json!("platform-admin");
    let refused = admin.post(ACCOUNTS, &body);
    assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"));
    assert_eq!(admin.get("/v1/projects/other/service-accounts").status, 404);
    let limits = json!({"expires_days": 1, "overlap_s": 99_999_999});
    assert_eq!(api.post(&format!("{ACCOUNTS}/small/tokens"), &limits).faults(), ["overlap_s"]);
}

#[test]
fn service_accounts_by_the_cli() {
    let deployment = deployment();
    let cli = deployment.cli("lab");
    let create =
        ["service-account", "create", "ci", "--scope", "image:read", "--expires-days", "7", "-o", "json"];
    let made = cli.run(&create).ok().json();
    assert!(token(&made).starts_with("bmi-sa-"));
    let update = ["service-account", "update", "ci", "--scope", "image:*", "--scope", "node:read"];
    assert!(cli.run(&update).ok().out.contains("image:* node:read"));
    let rotated = cli.run(&["service-account", "rotate", "ci", "--overlap", "60", "-o", "json"]).ok().json();
    let tokens = rotated["account"]["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 2);
    let old = tokens[0]["id"].as_str().unwrap();
    cli.run(&["service-account", "revoke", "ci", old]).ok();
    let shown = cli.run(&["service-account", "show", "ci"]).ok().out.clone();
    assert!(!shown.contains(old) && shown.contains("never used"), "{shown}");
    assert!(cli.run(&["service-account", "list"]).ok().out.contains("ci"));
    cli.run(&["service-account", "delete", "ci"]).ok();
    assert_eq!(cli.run(&["service-account", "show", "ci"]).status, 4);
}
