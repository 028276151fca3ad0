//! One world, and cases against it.

use bmi_tests::{Answer, Api, Deployment, STORE_SMALL};
use serde_json::{Value, json};

/// The NIC of the node `idle`.
pub(crate) const MAC: &str = "52:54:00:ab:cd:01";

/// A deployment with one of everything: `lab` has `golden` (sealed), `open` (no bytes yet), the node `busy` with the
/// instance `busy`, and the node `idle`; `other` has the node `theirs`; `free` is nobody's.
pub(crate) fn world() -> Deployment {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.agent_start();
    let api = &deployment.api;
    api.project("lab");
    api.project("other");
    api.image("lab", "golden");
    api.post("/v1/projects/lab/images", &json!({"name": "open", "virtual_size": 1 << 20})).expect(201);
    api.node_of("busy", "52:54:00:ab:cd:10", "lab");
    api.node_of("idle", MAC, "lab");
    api.node_of("theirs", "52:54:00:ab:cd:02", "other");
    api.node("free", "52:54:00:ab:cd:03");
    api.instance("lab", "busy", "golden", &json!({}));
    deployment
}

/// Cases against one world. Every fault is kept, so that one run tells all.
pub(crate) struct Table<'a> {
    api: &'a Api,
    before: Value,
    wrong: Vec<String>,
    count: usize,
}

impl<'a> Table<'a> {
    pub(crate) fn new(deployment: &'a Deployment) -> Self {
        Self { api: &deployment.api, before: deployment.api.everything(), wrong: Vec::new(), count: 0 }
    }

    pub(crate) fn check(&mut self, what: &str, answer: &Answer, status: u16, code: &str) {
        self.count += 1;
        let (got, problem) = (answer.code(), answer.json());
        if (answer.status, got.as_str()) != (status, code) {
            let body = String::from_utf8_lossy(&answer.body);
            self.wrong.push(format!("{what}: {} `{got}`, not {status} `{code}`: {body}", answer.status));
        } else if status >= 400 {
            let kind = answer.header("content-type").unwrap_or_default();
            let whole =
                ["type", "title", "detail", "request_id"].iter().all(|field| problem[field].is_string());
            let same = problem["status"] == status
                && problem["request_id"].as_str() == answer.header("x-request-id");
            if !kind.starts_with("application/problem+json") || !whole || !same {
                self.wrong.push(format!("{what}: not a whole problem document ({kind}): {problem}"));
            }
        }
        let now = self.api.everything();
        if now != self.before {
            self.wrong.push(format!("{what}: something changed"));
            self.before = now;
        }
    }

    /// A JSON request that must be refused.
    pub(crate) fn json(&mut self, method: &str, path: &str, body: &Value, status: u16, code: &str) {
        let answer = self.api.json(method, path, body);
        self.check(&format!("{method} {path} {body}"), &answer, status, code);
    }

    /// A request that is invalid in exactly these fields.
    pub(crate) fn invalid(&mut self, method: &str, path: &str, body: &Value, fields: &[&str]) {
        let answer = self.api.json(method, path, body);
        let what = format!("{method} {path} {body}");
        self.check(&what, &answer, 422, "invalid");
        let (mut told, mut wanted) =
            (answer.faults(), fields.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>());
        told.sort();
        wanted.sort();
        if told != wanted {
            self.wrong.push(format!("{what}: told of {told:?}, not {wanted:?}"));
        }
    }

    pub(crate) fn done(self) {
        for wrong in &self.wrong {
            eprintln!("- {wrong}");
        }
        assert!(self.wrong.is_empty(), "{} of {} cases are wrong", self.wrong.len(), self.count);
    }
}
