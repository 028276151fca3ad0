//! `bmi agent` and `bmi authority`, as a person runs them: tokens, who joined, keys that wait, who is revoked or replaced, and
//! whose certificates count.

use std::time::Duration;

use bmi_tests::{AgentKey, Deployment, Member, until};
use serde_json::{Value, json};

use crate::joining::{deployment, nobody};

/// An id that nothing has.
const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

/// What a command prints for people, which must succeed.
fn table(deployment: &Deployment, arguments: &[&str]) -> String {
    deployment.cli("lab").run(arguments).ok().out.clone()
}

/// What it prints as JSON.
fn told(deployment: &Deployment, arguments: &[&str]) -> Value {
    deployment.cli("lab").run(&[arguments, &["-o", "json"]].concat()).ok().json()
}

/// What a table of one thing says in a row.
fn row<'a>(table: &'a str, title: &str) -> &'a str {
    table.lines().find_map(|line| line.strip_prefix(title)).unwrap_or_default().trim()
}

/// Everything that the commands could change.
fn everything(deployment: &Deployment) -> Value {
    let api = &deployment.api;
    let timeline = |network: &str| api.get(&format!("/v1/networks/{network}/timeline")).expect(200);
    let (agents, tokens) = (api.list("/v1/agents"), api.list("/v1/join-tokens"));
    json!([agents, tokens, api.authorities(), timeline("red"), timeline("blue")])
}

/// Runs a command that must be refused with a status and a reason, and change nothing.
fn refused(deployment: &Deployment, arguments: &[&str], status: i32, reason: &str) {
    let before = everything(deployment);
    let ran = deployment.cli("lab").run(arguments);
    assert_eq!(ran.status, status, "{arguments:?}: {ran:?}");
    assert!(ran.out.is_empty() && ran.err.contains(reason), "{arguments:?}: {ran:?}");
    assert_eq!(everything(deployment), before, "{arguments:?}");
}

/// Asks for a token by the command; gives what it prints.
fn token(deployment: &Deployment, network: &str) -> Value {
    told(deployment, &["agent", "token", "create", "--network", network])
}

/// The token itself, in what was printed.
fn token_of(made: &Value) -> &str {
    made["token"].as_str().unwrap()
}

/// Reports, which must be taken as that of whoever has the network.
fn serves(member: &Member, network: &str) {
    let answer = member.status(network).unwrap();
    assert_eq!((answer.status, answer.standing.as_str()), (204, "active"), "{}", answer.body);
}

#[test]
fn a_token_that_is_made_is_shown_once_and_lets_an_agent_join() {
    let deployment = deployment();
    let made = table(&deployment, &["agent", "token", "create", "--network", "red"]);
    let (token, id) = (row(&made, "TOKEN"), row(&made, "ID"));
    assert!(token.starts_with("bmi-join-"), "{made}");
    let secret = token.split('.').next().unwrap();
    let tokens = ["agent", "token", "list"];
    let (open, open_table) = (told(&deployment, &tokens), table(&deployment, &tokens));
    assert_eq!(open.as_array().map(Vec::len), Some(1));
    let unused = [&open[0]["id"], &open[0]["used_at"], &open[0]["agent"]];
    assert_eq!(unused, [&json!(id), &Value::Null, &Value::Null]);

    let key = AgentKey::default();
    let identity = nobody(&deployment).enrol(token, "red", None, &key.request()).unwrap().expect(200);
    let agent = identity["agent"].as_str().unwrap();
    let (used, used_table) = (told(&deployment, &tokens), table(&deployment, &tokens));
    assert!(used[0]["id"] == id && used[0]["used_at"].is_string(), "{used}");
    assert_eq!(used[0]["agent"], identity["agent"]);
    assert!(!open_table.contains(agent) && used_table.contains(agent), "{used_table}");
    for text in [&open.to_string(), &used.to_string(), &open_table, &used_table] {
        assert!(text.contains(id) && !text.contains(secret), "{text}");
    }
    let other = nobody(&deployment).enrol(token, "red", None, &AgentKey::default().request()).unwrap();
    assert_eq!(other.code(403), "join-token-refused", "it was for one");
    serves(&Member::identified(deployment.agents_address(), &identity, &key), "red");
}

#[test]
fn an_agent_that_joined_is_listed_and_shown_with_its_state() {
    let deployment = deployment();
    let (_, identity, _) = deployment.member("red");
    let (_, second, _) = deployment.member("red");
    let (id, second) = (identity["agent"].as_str().unwrap(), second["agent"].as_str().unwrap());
    let all = told(&deployment, &["agent", "list"]);
    assert_eq!(all, json!(deployment.api.list("/v1/agents")));
    assert_eq!(told(&deployment, &["agent", "list", "--network", "red"]), all);
    assert_eq!(told(&deployment, &["agent", "list", "--network", "blue"]), json!([]));
    let lines = table(&deployment, &["agent", "list"]);
    assert_eq!(lines.lines().count(), 3, "a title and a line each: {lines}");
    for (agent, state) in [(id, "active"), (second, "standby")] {
        let line = lines.lines().find(|line| line.starts_with(agent)).unwrap();
        assert!(line.contains(&format!(" {state} ")) && line.ends_with("test"), "{line}");
    }

    let shown = table(&deployment, &["agent", "show", id]);
    assert_eq!((row(&shown, "ID"), row(&shown, "STATE"), row(&shown, "SERVING")), (id, "active", "yes"));
    let first = told(&deployment, &["agent", "show", id]);
    assert_eq!(first, all[0]);
    assert_eq!(row(&shown, "KEY"), first["key_sha256"].as_str().unwrap());
    assert_eq!(row(&table(&deployment, &["agent", "show", second]), "SERVING"), "no");
}

#[test]
fn a_token_that_is_over_or_was_revoked_lets_nobody_in() {
    let deployment = deployment();
    let (nobody, key) = (nobody(&deployment), AgentKey::default());
    let enrol = |made: &Value| nobody.enrol(token_of(made), "red", None, &key.request()).unwrap();
    let refused = |made: &Value, why: &str| {
        let answer = enrol(made);
        assert_eq!(answer.code(403), "join-token-refused");
        assert!(answer.body["detail"].as_str().unwrap().contains(why), "{why}: {}", answer.body);
    };
    let short = told(&deployment, &["agent", "token", "create", "--network", "red", "--ttl", "1"]);
    std::thread::sleep(Duration::from_millis(1100));
    refused(&short, "has expired");
    let revoke = |made: &Value| {
        let id = made["join_token"]["id"].as_str().unwrap();
        let done = table(&deployment, &["agent", "token", "revoke", id]);
        assert_eq!(done, format!("join token {id} revoked\n"));
        let left = told(&deployment, &["agent", "token", "list"]).to_string();
        assert!(!left.contains(id), "{left}");
    };
    let made = token(&deployment, "red");
    revoke(&made);
    refused(&made, "no such token");
    assert!(deployment.api.list("/v1/agents").is_empty());

    // Who joined before that stays.
    let made = token(&deployment, "red");
    let identity = enrol(&made).expect(200);
    revoke(&made);
    serves(&Member::identified(deployment.agents_address(), &identity, &key), "red");
}

#[test]
fn a_key_that_waits_is_rejected_or_approved() {
    let deployment = deployment();
    let (old, identity, _) = deployment.member("red");
    let id = identity["agent"].as_str().unwrap();
    let (nobody, key) = (nobody(&deployment), AgentKey::default());
    let ask = |made: &Value| nobody.enrol(token_of(made), "red", Some(id), &key.request()).unwrap();
    let made = token(&deployment, "red");
    let _ = ask(&made).expect(202);
    let waits = told(&deployment, &["agent", "show", id]);
    assert_eq!((&waits["state"], &waits["serving"]), (&json!("pending"), &json!(true)));
    let shown = table(&deployment, &["agent", "show", id]);
    assert_eq!(row(&shown, "KEY THAT WAITS"), waits["pending_key_sha256"].as_str().unwrap());
    serves(&old, "red");

    let rejected = told(&deployment, &["agent", "reject", id]);
    assert_eq!((&rejected["state"], &rejected["pending_key_sha256"]), (&json!("active"), &Value::Null));
    assert_eq!(rejected["key_sha256"], waits["key_sha256"]);
    assert_eq!(ask(&made).code(403), "join-token-refused");
    serves(&old, "red");

    let made = token(&deployment, "red");
    let _ = ask(&made).expect(202);
    let waiting = waits["pending_key_sha256"].as_str().unwrap();
    let other = waits["key_sha256"].as_str().unwrap();
    refused(&deployment, &["agent", "approve", id, "--key", other], 5, "not the one that was named");
    refused(&deployment, &["agent", "approve", id], 2, "--key");
    let approved = told(&deployment, &["agent", "approve", id, "--key", waiting]);
    assert_eq!((&approved["state"], &approved["pending_key_sha256"]), (&json!("active"), &Value::Null));
    assert_eq!(approved["key_sha256"], waits["pending_key_sha256"]);
    assert_eq!(old.status("red").unwrap().code(403), "agent-refused");
    let identity = ask(&made).expect(200);
    serves(&Member::identified(deployment.agents_address(), &identity, &key), "red");
    for verb in [&["agent", "approve", id, "--key", waiting][..], &["agent", "reject", id]] {
        refused(&deployment, verb, 5, "no key of this agent waits for approval");
    }
}

#[test]
fn an_agent_that_is_revoked_is_refused_at_its_next_request() {
    let deployment = deployment();
    let (red, identity, _) = deployment.member("red");
    let (blue, _, _) = deployment.member("blue");
    serves(&red, "red");
    let id = identity["agent"].as_str().unwrap();
    let revoked = told(&deployment, &["agent", "revoke", id]);
    assert_eq!((&revoked["id"], &revoked["state"]), (&identity["agent"], &json!("revoked")));
    assert_eq!(revoked["serving"], false);
    let renewal = json!({"request": AgentKey::default().request()});
    for answer in [red.status("red"), red.desired("red", 0, 0), red.post("/agent/v1/renew", &renewal)] {
        assert_eq!(answer.unwrap().code(403), "agent-refused");
    }
    assert_eq!(told(&deployment, &["agent", "list", "--network", "red"])[0]["state"], "revoked");
    serves(&blue, "blue");
}

#[test]
fn a_network_is_given_to_the_standby_that_is_named() {
    let deployment = deployment();
    let (lost, old, _) = deployment.member("red");
    let (second, other, _) = deployment.member("red");
    let (third, next, _) = deployment.member("red");
    let (old, next) = (old["agent"].as_str().unwrap(), next["agent"].as_str().unwrap());
    refused(&deployment, &["agent", "replace", old], 5, "several agents of the network stand by");
    serves(&lost, "red");
    let taken = told(&deployment, &["agent", "replace", old, "--by", next]);
    assert_eq!((&taken["id"], &taken["state"]), (&json!(next), &json!("active")));
    assert_eq!(taken["serving"], true);
    assert_eq!(lost.status("red").unwrap().code(403), "agent-replaced");
    serves(&third, "red");
    assert_eq!(second.status("red").unwrap().standing, "standby");
    assert_eq!(told(&deployment, &["agent", "show", old])["state"], "revoked");
    let by_other = ["agent", "replace", old, "--by", other["agent"].as_str().unwrap()];
    refused(&deployment, &by_other, 5, "another agent has the network already");
    assert_eq!(told(&deployment, &["agent", "replace", old])["id"], json!(next), "asked again, it was done");

    // Where nobody could take over, nobody is revoked.
    let (alone, only, _) = deployment.member("blue");
    let only = only["agent"].as_str().unwrap();
    refused(&deployment, &["agent", "replace", only], 5, "no agent of the network stands by");
    serves(&alone, "blue");
}

#[test]
fn an_authority_is_rotated_and_the_old_one_retired_once_nobody_needs_it() {
    let deployment = deployment();
    let (member, identity, _) = deployment.member("red");
    let list = ["authority", "list"];
    let before = told(&deployment, &list);
    assert_eq!(before, json!(deployment.api.authorities()));
    let first = before[0]["id"].as_str().unwrap();
    refused(&deployment, &["authority", "retire", first], 5, "rotate first");
    refused(&deployment, &["authority", "rotate", "--after", NOBODY], 5, "another authority is the newest");
    let made = told(&deployment, &["authority", "rotate", "--after", first]);
    assert_eq!(made["issuing"], true);
    let both = table(&deployment, &list);
    for (id, issues) in [(first, " no "), (made["id"].as_str().unwrap(), " yes ")] {
        let line = both.lines().find(|line| line.starts_with(id)).unwrap();
        assert!(line.contains(issues), "{both}");
    }
    refused(&deployment, &["authority", "retire", first], 5, "1 agents have a certificate of this authority");

    until("the agent is told of the new one", Duration::from_secs(30), || {
        let mark = member.status("red").unwrap().authorities_mark;
        (json!(mark) != identity["authorities_mark"]).then_some(())
    });
    let key = AgentKey::default();
    let renewed = member.post("/agent/v1/renew", &json!({"request": key.request()})).unwrap().expect(200);
    // It may not have heard that.
    refused(&deployment, &["authority", "retire", first], 5, "1 agents have a certificate of this authority");
    let member = Member::identified(deployment.agents_address(), &renewed, &key);
    serves(&member, "red");
    let retired = table(&deployment, &["authority", "retire", first]);
    assert_eq!(retired, format!("authority {first} retired\n"));
    let left = told(&deployment, &list);
    assert_eq!(left.as_array().map(Vec::len), Some(1));
    assert_eq!((&left[0]["id"], &left[0]["agents"]), (&made["id"], &json!(1)));
    serves(&member, "red");
}

#[test]
fn what_does_not_exist_or_makes_no_sense_is_told_and_changes_nothing() {
    let deployment = deployment();
    let (_, identity, _) = deployment.member("red");
    let id = identity["agent"].as_str().unwrap();
    let _ = token(&deployment, "blue");
    let absent = "there is no such resource";
    for verb in ["show", "approve", "reject", "revoke", "replace"] {
        let named: &[&str] = if verb == "approve" { &["--key", "00"] } else { &[] };
        let refused = |agent, status, reason| {
            refused(&deployment, &[&["agent", verb, agent], named].concat(), status, reason);
        };
        refused(NOBODY, 4, absent);
        refused("nonsense", 4, absent);
        refused("../agents", 2, "neither a name nor an id");
    }
    let create = ["agent", "token", "create"];
    let cases: &[(&[&str], i32, &str)] = &[
        (&["agent", "list", "--network", "absent"], 4, absent),
        (&["agent", "replace", id, "--by", NOBODY], 5, "stands by"),
        (&["agent", "replace", id, "--by", "nonsense"], 2, "`nonsense` is not a UUID"),
        (&create, 2, "--network"),
        (&[&create[..], &["--network", "absent"]].concat(), 2, "there is no network `absent`"),
        (&[&create[..], &["--network", "red", "--ttl", "0"]].concat(), 2, "must be 1 to 3600"),
        (&[&create[..], &["--network", "red", "--ttl", "3601"]].concat(), 2, "must be 1 to 3600"),
        (&["agent", "token", "revoke", NOBODY], 4, absent),
        (&["authority", "retire", NOBODY], 4, absent),
        (&["authority", "rotate", "--after", "nonsense"], 2, "`nonsense` is not a UUID"),
    ];
    for (arguments, status, reason) in cases {
        refused(&deployment, arguments, *status, reason);
    }
}
