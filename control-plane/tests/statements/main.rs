//! What is another's is not found by the same statements as what does not exist: invariant 6 of the design. Every route
//! that names a thing of a project is asked for both, and what the database was asked is compared, and not the clock.
//!
//! A route that is new and has no line here fails.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

#[path = "../workflows/agent.rs"]
mod agent;
mod callers;
mod requests;
#[allow(dead_code, reason = "the world of the workflows can do more than is needed here")]
#[path = "../workflows/simulated.rs"]
mod simulated;
#[allow(dead_code, reason = "the world of the workflows can do more than is needed here")]
#[path = "../workflows/world.rs"]
mod world;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bmi_control_plane::http;
use bmi_tests::{Api, statements_record, statements_take};
use serde_json::Value;

use callers::{holder, make};
use requests::{Pair, Request, pairs};
use world::World;

/// How long nothing may be executed before it counts as quiet.
const QUIET: Duration = Duration::from_millis(300);

/// What a request led to.
#[derive(Debug, PartialEq)]
struct Effect {
    status: u16,
    body: Value,
    statements: Vec<String>,
}

fn effect(api: &Api, request: &Request) -> Effect {
    let _ = statements_take();
    let sent = request.body.as_ref().map(Value::to_string);
    let mut headers = vec![("Upload-Offset", "7")];
    if sent.is_some() {
        headers.push(("Content-Type", "application/json"));
    }
    let answer = api.send(request.method, &request.path, &headers, sent.as_deref().map(str::as_bytes));
    let mut statements = statements_take();
    // A connection that is made ready meanwhile.
    statements.retain(|statement| !statement.starts_with("PRAGMA"));
    let text = String::from_utf8(answer.body).unwrap().replace(&format!("`{}`", request.named), "`…`");
    let mut body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    if let Some(problem) = body.as_object_mut() {
        problem.remove("request_id");
    }
    Effect { status: answer.status, body, statements }
}

fn compare(callers: &[(&str, Api)], pairs: &[Pair]) {
    // The last use of a token is written once in a minute: now.
    for (_, api) in callers {
        api.get("/v1/whoami").expect(200);
    }
    while !statements_take().is_empty() {
        std::thread::sleep(QUIET);
    }
    let mut differences = Vec::new();
    for (name, api) in callers {
        for pair in pairs {
            let (anothers, absent) = (effect(api, &pair.anothers), effect(api, &pair.absent));
            assert!(!anothers.statements.is_empty(), "{}: the database was not asked at all", pair.what);
            if anothers != absent {
                differences.push(format!(
                    "{name}: {}\n  another's: {anothers:#?}\n  absent: {absent:#?}",
                    pair.what
                ));
            }
            assert!(anothers.status >= 400 || pair.is_list, "{name}: {} was allowed", pair.what);
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn s1_what_is_anothers_leads_to_the_same_statements_as_what_is_absent() {
    statements_record();
    actix_web::rt::System::new().block_on(async {
        let world = World::new().await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = http::api_server(Arc::clone(&world.app), listener, None).unwrap();
        let handle = server.handle();
        let serving = actix_web::rt::spawn(server);
        let admin = holder(&world, address, "admin").await;
        let (stranger, eve) =
            (holder(&world, address, "stranger").await, holder(&world, address, "eve").await);
        let things = make(&world, &admin).await;
        world.agent_dies();
        let callers = [
            ("a person", stranger),
            ("a service account", Api::new(address, &things.token)),
            ("nobody", eve),
        ];
        tokio::task::spawn_blocking(move || compare(&callers, &pairs(&things))).await.unwrap();
        handle.stop(false).await;
        serving.await.unwrap().unwrap();
    });
}
