//! What is changed at one replica counts at the other within a second.

use std::time::{Duration, Instant};

use bmi_tests::{Answer, Api, until};
use serde_json::json;

use crate::world::{IMAGES, Pair};

/// What is promised. It is counted from the answer to the change.
const PROMISE: Duration = Duration::from_secs(1);
/// How long it may take on a machine that has something else to do.
const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until it counts; gives how long that took.
fn counts(what: &str, ask: impl Fn() -> Answer, status: u16) -> Duration {
    let since = Instant::now();
    until(what, PATIENCE, || (ask().status == status).then_some(()));
    let took = since.elapsed();
    println!("{what}: {took:?}");
    took
}

/// A service account with a custom role, its token's id, and the API of both replicas as its holder.
struct Account {
    path: String,
    token: String,
    first: Api,
    second: Api,
}

fn role(pair: &Pair) {
    let role = json!({"name": "looker", "permissions": ["project:read", "image:read"]});
    pair.first.api.post("/v1/roles", &role).expect(201);
}

fn account(pair: &Pair, round: usize) -> Account {
    let api = &pair.first.api;
    let name = format!("ci-{round}");
    let new = json!({"name": name, "role": "looker", "scopes": ["*"], "expires_days": 1});
    let made = api.post("/v1/projects/lab/service-accounts", &new).expect(201);
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    let [first, second] = pair.apis().map(|api| api.authorized(Some(&bearer)));
    let token = made["account"]["tokens"][0]["id"].as_str().unwrap().to_owned();
    Account { path: format!("/v1/projects/lab/service-accounts/{name}"), token, first, second }
}

#[test]
fn a_change_of_a_role_counts_at_the_other_within_a_second() {
    let pair = Pair::start();
    role(&pair);
    let account = account(&pair, 0);
    let narrow = json!({"permissions": ["project:read"]});
    let wide = json!({"permissions": ["project:read", "image:read"]});
    let images = || account.second.get(IMAGES);
    counts("the new role is known", images, 200);
    let mut took = Vec::new();
    for _ in 0..3 {
        pair.first.api.json("PATCH", "/v1/roles/looker", &narrow).expect(200);
        assert_eq!(account.first.get(IMAGES).status, 403, "at once where it was made");
        took.push(counts("the role is narrower", images, 403));
        pair.first.api.json("PATCH", "/v1/roles/looker", &wide).expect(200);
        took.push(counts("the role is wider", images, 200));
    }
    assert_promise(&took);
}

/// Each is done three times: once at least nothing else was done meanwhile.
const ROUNDS: usize = 3;

fn assert_promise(took: &[Duration]) {
    assert!(took.iter().any(|took| *took < PROMISE), "{took:?}");
}

#[test]
fn a_binding_that_is_removed_counts_at_the_other_within_a_second() {
    let pair = Pair::start();
    let images = |api: &Api| api.get(IMAGES);
    role(&pair);
    let took: Vec<Duration> = (0..ROUNDS)
        .map(|round| {
            let account = account(&pair, round);
            counts("the new binding is known", || images(&account.second), 200);
            let members = pair.first.api.list("/v1/projects/lab/members");
            assert_eq!(members.len(), 1, "{members:?}");
            let member = format!("/v1/projects/lab/members/{}", members[0]["id"].as_str().unwrap());
            // The other way round this time.
            pair.second.api.delete(&member).expect(204);
            assert_eq!(images(&account.second).status, 403, "at once where it was made");
            counts("the binding is gone", || images(&account.first), 403)
        })
        .collect();
    assert_promise(&took);
}

#[test]
fn a_revoked_token_is_refused_at_the_other_within_a_second() {
    let pair = Pair::start();
    role(&pair);
    let took: Vec<Duration> = (0..ROUNDS)
        .map(|round| {
            let account = account(&pair, round);
            account.first.get("/v1/whoami").expect(200);
            account.second.get("/v1/whoami").expect(200);
            pair.first.api.delete(&format!("{}/tokens/{}", account.path, account.token)).expect(204);
            let took = counts("the token is refused", || account.second.get("/v1/whoami"), 401);
            assert_eq!(account.second.get("/v1/whoami").code(), "unauthenticated");
            took
        })
        .collect();
    assert_promise(&took);
}
