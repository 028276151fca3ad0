//! K3 and K6 through both replicas.

use std::sync::Barrier;

use bmi_tests::{Answer, Api};
use serde_json::{Value, json};

use crate::world::{IMAGES, INSTANCES, Pair, instance, nodes_make};

const NODES: usize = 24;
const QUOTA: usize = 10;
const CALLERS: usize = 20;

/// Asks both replicas at once, one after the other in turn.
fn at_once(apis: [&Api; 2], callers: usize, ask: impl Fn(&Api, usize) -> Answer + Sync) -> Vec<Answer> {
    let (gate, ask) = (Barrier::new(callers), &ask);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..callers)
            .map(|caller| {
                let gate = &gate;
                scope.spawn(move || {
                    gate.wait();
                    ask(apis[caller % 2], caller)
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    })
}

fn won(answers: &[Answer]) -> Vec<&Answer> {
    answers.iter().filter(|answer| answer.status == 202).collect()
}

/// Everything that an instance needs but an agent: operations of these tests need not end.
fn ready(nodes: usize) -> Pair {
    let pair = Pair::start();
    let api = &pair.first.api;
    api.network("provisioning", "10.77.0.0/24");
    api.image("lab", "golden");
    nodes_make(api, nodes);
    pair
}

#[test]
fn k3_of_twenty_four_provisions_the_ten_of_the_quota_win() {
    let pair = ready(NODES);
    let quota = json!({"instances": QUOTA});
    pair.second.api.json("PATCH", "/v1/projects/lab/quota", &quota).expect(200);
    let answers = at_once(pair.apis(), NODES, |api, caller| {
        api.post(INSTANCES, &instance(&format!("instance-{caller}"), caller))
    });
    assert_eq!(won(&answers).len(), QUOTA);
    for answer in answers.iter().filter(|answer| answer.status != 202) {
        assert_eq!((answer.status, answer.code().as_str()), (409, "quota-exceeded"), "{}", answer.json());
    }
    for api in pair.apis() {
        let instances = api.list(INSTANCES);
        assert_eq!(instances.len(), QUOTA);
        for field in ["node", "node_address", "target_address", "target"] {
            let mut values: Vec<String> = instances.iter().map(|it| it[field].to_string()).collect();
            values.sort();
            values.dedup();
            assert_eq!(values.len(), QUOTA, "every instance has its own {field}");
        }
        let quota = api.get("/v1/projects/lab/quota").expect(200);
        assert_eq!(quota["instances"]["used"], QUOTA);
    }
    assert_eq!(pair.rows("SELECT count(*) FROM operations WHERE kind = 'provision'"), [QUOTA.to_string()]);
    let used = pair.rows("SELECT count(*) FROM nodes WHERE state = 'in-use'");
    assert_eq!(used, [QUOTA.to_string()], "losers have claimed nothing");
}

#[test]
fn k3_of_parallel_provisions_of_one_node_one_wins() {
    let pair = ready(1);
    let answers = at_once(pair.apis(), CALLERS, |api, caller| {
        api.post(INSTANCES, &instance(&format!("instance-{caller}"), 0))
    });
    let winners: Vec<Value> = won(&answers).iter().map(|answer| answer.json()).collect();
    assert_eq!(winners.len(), 1);
    let instances = pair.second.api.list(INSTANCES);
    assert_eq!(instances.len(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 202) {
        assert_eq!((answer.status, answer.code().as_str()), (409, "in-use"), "{}", answer.json());
        assert_eq!(answer.json()["blockers"][0]["name"], instances[0]["name"], "who has it");
    }
    assert_eq!(pair.rows("SELECT count(*) FROM operations WHERE kind = 'provision'"), ["1"]);
}

/// The parts of an answer that a client may rely on.
fn essence(answer: &Answer) -> (u16, Value, Option<String>) {
    (answer.status, answer.json(), answer.header("location").map(str::to_owned))
}

/// Sends the same request with one key to both at once: it has one effect, and wherever it is repeated one answer.
fn one_effect(pair: &Pair, path: &str, body: &Value) -> Answer {
    let answers = at_once(pair.apis(), CALLERS, |api, _| api.post_with_key(path, "the-same", body));
    let (done, others): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| (200..300).contains(&answer.status));
    assert!(!done.is_empty());
    for answer in &others {
        assert_eq!((answer.status, answer.code().as_str()), (409, "request-in-progress"));
        assert!(answer.header("retry-after").is_some());
    }
    let repeats = pair.apis().map(|api| api.post_with_key(path, "the-same", body));
    assert!(done.iter().chain(&repeats).all(|answer| essence(answer) == essence(&done[0])), "one answer");
    done[0].clone()
}

#[test]
fn k6_the_same_key_at_both_has_one_effect_and_one_answer() {
    let pair = ready(1);
    one_effect(&pair, "/v1/projects", &json!({"name": "other"}));
    assert_eq!(pair.rows("SELECT count(*) FROM projects"), ["2"]);
    let import = json!({"name": "again", "import_file": "small.raw"});
    one_effect(&pair, IMAGES, &import);
    assert_eq!(pair.rows("SELECT count(*) FROM operations WHERE subject_name = 'again'"), ["1"]);
    one_effect(&pair, INSTANCES, &instance("web", 0));
    assert_eq!(pair.rows("SELECT count(*) FROM operations WHERE kind = 'provision'"), ["1"]);

    // One that is kept sealed: both replicas open it, and it is the token that counts.
    let account = json!({"name": "ci", "role": "project-member", "scopes": ["*"], "expires_days": 1});
    let made = one_effect(&pair, "/v1/projects/lab/service-accounts", &account).json();
    assert_eq!(pair.rows("SELECT count(*) FROM service_tokens"), ["1"]);
    let token = made["token"].as_str().unwrap();
    for api in pair.apis() {
        api.authorized(Some(&format!("Bearer {token}"))).get("/v1/whoami").expect(200);
        let other = api.post_with_key("/v1/projects", "the-same", &json!({"name": "different"}));
        assert_eq!((other.status, other.code().as_str()), (422, "idempotency-key-reused"));
    }
}
