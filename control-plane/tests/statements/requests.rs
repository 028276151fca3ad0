//! Every request that can name a thing of another project: in a path, in a query, in a body.

use bmi_control_plane::http::openapi_document;
use bmi_tests::{ROUTES, Route};
use serde_json::{Value, json};

use crate::callers::{OWN, Things};

/// A name, and an id, of nothing.
const NO_NAME: &str = "nosuch";
const NO_ID: &str = "0193d3a0-0000-7000-8000-0000000000ff";
/// Parameters of paths that are not a project's: everybody knows the roles and the ways to sign in, and nobody in a project may
/// ask for agents and their authorities.
const OF_NO_PROJECT: [&str; 4] = ["role", "provider", "agent", "authority"];

/// A request.
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub body: Option<Value>,
    /// What it names, which an answer may repeat.
    pub named: String,
}

/// The same request for what is another's, and for what is absent.
pub struct Pair {
    pub what: String,
    pub anothers: Request,
    pub absent: Request,
    /// Whether a status below 400 tells nothing, since a list may be empty.
    pub is_list: bool,
}

fn body(route: &Route) -> Option<Value> {
    Some(match (route.method, route.path.rsplit('/').next().unwrap()) {
        ("GET" | "HEAD" | "DELETE", _) | (_, "content") => return None,
        ("PATCH", "{project}" | "{account}") => json!({"description": "another"}),
        ("PATCH", "{network}") => json!({"projects": null}),
        ("PATCH", "{node}") => json!({"name": "another"}),
        ("PATCH", "quota") => json!({"instances": 5}),
        ("PATCH", "sharing") => json!({"visibility": "public"}),
        ("POST", "members") => json!({"subject": "user:corp:x", "role": "project-viewer"}),
        ("POST", "assign") => json!({"project": OWN}),
        ("POST", "release" | "seal") => json!({}),
        ("POST", "images") => json!({"name": "mine", "virtual_size": 1 << 20}),
        ("POST", "instances") => instance(),
        ("POST", "service-accounts") => {
            json!({"name": "mine", "role": "project-viewer", "scopes": ["image:read"], "expires_days": 1})
        }
        ("POST", "tokens") => json!({"expires_days": 1}),
        _ => panic!("{} {}: give it a body here", route.method, route.path),
    })
}

fn instance() -> Value {
    json!({"name": "mine", "node": "n", "image": "i", "network": "w"})
}

fn parameters(path: &str) -> Vec<&str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect()
}

/// By name where there is one, and by id.
fn namings(things: &Things, parameter: &str) -> Vec<(String, &'static str)> {
    let thing = &things.anothers[parameter];
    let by_name = thing.name.clone().map(|name| (name, NO_NAME));
    by_name.into_iter().chain([(thing.id.clone(), NO_ID)]).collect()
}

/// Pairs of a route: each parameter in turn names what is another's, after parameters that name what is one's own.
fn of_route(route: &'static Route, things: &Things) -> Vec<Pair> {
    let parameters = parameters(route.path);
    let mut pairs = Vec::new();
    for (position, parameter) in parameters.iter().enumerate() {
        if OF_NO_PROJECT.contains(parameter) {
            continue;
        }
        for (anothers, absent) in namings(things, parameter) {
            let request = |named: &str| {
                let mut path = route.path.to_owned();
                for (place, name) in parameters.iter().enumerate() {
                    let value = match place.cmp(&position) {
                        std::cmp::Ordering::Less => things.own[name].clone(),
                        std::cmp::Ordering::Equal => named.to_owned(),
                        // Below what cannot be seen: what is there.
                        std::cmp::Ordering::Greater => things.anothers[name].id.clone(),
                    };
                    path = path.replace(&format!("{{{name}}}"), &value);
                }
                Request { method: route.method, path, body: body(route), named: named.to_owned() }
            };
            pairs.push(Pair {
                what: format!("{} {}: {parameter} {anothers}", route.method, route.path),
                anothers: request(&anothers),
                absent: request(absent),
                is_list: false,
            });
        }
    }
    pairs
}

/// Lists and questions that take a project in their query, as the OpenAPI document says.
fn of_queries(things: &Things) -> Vec<Pair> {
    let document: Value = serde_json::from_str(openapi_document()).unwrap();
    let mut pairs = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let parameters = operations["get"]["parameters"].as_array().into_iter().flatten();
        if !parameters.into_iter().any(|one| one["in"] == "query" && one["name"] == "project") {
            continue;
        }
        for (anothers, absent) in namings(things, "project") {
            let request = |named: &str| {
                let more = if path.ends_with("/explain") { "action=image:read&" } else { "" };
                let path = format!("{path}?{more}project={named}");
                Request { method: "GET", path, body: None, named: named.to_owned() }
            };
            let what = format!("GET {path}?project={anothers}");
            pairs.push(Pair { what, anothers: request(&anothers), absent: request(absent), is_list: true });
        }
    }
    assert!(pairs.len() >= 6, "the document has lists of a project");
    pairs
}

/// A provision in one's own project that names something of another.
fn of_bodies(things: &Things) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for field in ["node", "image", "network"] {
        for (anothers, absent) in namings(things, field) {
            let request = |named: &str| {
                let mut body = instance();
                body[field] = json!(named);
                let path = format!("/v1/projects/{OWN}/instances");
                Request { method: "POST", path, body: Some(body), named: named.to_owned() }
            };
            let what = format!("POST …/instances with {field} {anothers}");
            pairs.push(Pair { what, anothers: request(&anothers), absent: request(absent), is_list: false });
        }
    }
    pairs
}

/// All of them.
pub fn pairs(things: &Things) -> Vec<Pair> {
    let routes = ROUTES.iter().filter(|route| !route.open);
    routes
        .flat_map(|route| of_route(route, things))
        .chain(of_queries(things))
        .chain(of_bodies(things))
        .collect()
}
