//! The REST API and the agents' API: routes, and what holds for every request.
//!
//! Deliberately absent: decisions. A handler reads a request field by field, calls one function of the application,
//! and answers.
//!
//! Invariants: no route but health and sign-in answers without a token; every answer of 400 and above is a problem document;
//! every POST may carry an `Idempotency-Key`.

mod agent;
mod answer;
mod audit;
mod authority;
mod cookie;
mod cursor;
mod datastore;
mod enrolled_agent;
mod events;
mod fields;
mod guard;
mod health;
mod idempotency;
mod image;
mod instance;
mod join_token;
mod member;
mod metrics;
mod network;
mod node;
mod openapi;
mod operation;
mod peer;
mod project;
mod quota;
mod request;
mod role;
mod service_account;
mod sign_in;
mod whoami;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App as ActixApp, HttpServer, web};
use bmi_types::Name;

use crate::agents_tls::AgentsTls;
use crate::app::App;

pub use openapi::document as openapi_document;

/// Threads of the REST API.
const API_WORKERS: usize = 2;
/// Threads of the agents' API: most requests wait.
const AGENTS_WORKERS: usize = 2;
/// The longest an idle connection is kept, in seconds.
const KEEP_ALIVE_S: u64 = 75;
/// Seconds that running requests get when the server stops.
const SHUTDOWN_S: u64 = 5;

/// The REST API on a listener.
///
/// # Errors
/// When the listener cannot be used.
pub fn api_server(
    app: Arc<App>,
    listener: TcpListener,
    tls: Option<rustls::ServerConfig>,
) -> std::io::Result<Server> {
    let server = HttpServer::new(move || {
        ActixApp::new()
            .app_data(web::Data::from(Arc::clone(&app)))
            .wrap(from_fn(guard::guard))
            .configure(routes)
            .default_service(web::to(answer::no_such_route))
    })
    .workers(API_WORKERS)
    .keep_alive(std::time::Duration::from_secs(KEEP_ALIVE_S))
    .shutdown_timeout(SHUTDOWN_S)
    .disable_signals();
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    Ok(server.run())
}

/// The agents' API on the local agent's unix socket, for one network. Who may connect is decided by the socket's
/// owner and mode.
///
/// # Errors
/// When the listener cannot be used.
pub fn agent_server(app: Arc<App>, listener: UnixListener, network: Name) -> std::io::Result<Server> {
    let server = HttpServer::new(move || {
        ActixApp::new()
            .app_data(web::Data::from(Arc::clone(&app)))
            .app_data(web::Data::new(agent::Served(network.clone())))
            .app_data(web::JsonConfig::default().limit(agent::BODY_MAX))
            .configure(agent::routes)
            .default_service(web::to(answer::no_such_route))
    })
    .workers(1)
    .shutdown_timeout(SHUTDOWN_S)
    .disable_signals()
    .listen_uds(listener)?;
    Ok(server.run())
}

/// The agents' API for agents on other hosts, by mutual TLS.
///
/// # Errors
/// When the listener cannot be used.
pub fn agents_server(app: Arc<App>, listener: TcpListener, tls: &Arc<AgentsTls>) -> std::io::Result<Server> {
    let config = tls.server_config().map_err(std::io::Error::other)?;
    let trust_domain = tls.trust_domain().to_owned();
    let server = HttpServer::new(move || {
        ActixApp::new()
            .app_data(web::Data::from(Arc::clone(&app)))
            .app_data(
                web::JsonConfig::default()
                    .limit(agent::BODY_MAX)
                    .error_handler(|error, _| agent::unreadable(&error)),
            )
            .configure(agent::routes)
            .configure(agent::enrolment_routes)
            .default_service(web::to(answer::no_such_route))
    })
    .on_connect(move |connection, extensions| peer::peer_note(&trust_domain, connection, extensions))
    .workers(AGENTS_WORKERS)
    .keep_alive(std::time::Duration::from_secs(KEEP_ALIVE_S))
    .shutdown_timeout(SHUTDOWN_S)
    .disable_signals()
    .listen_rustls_0_23(listener, config)?;
    Ok(server.run())
}

fn routes(config: &mut web::ServiceConfig) {
    health::routes(config);
    openapi::routes(config);
    metrics::routes(config);
    whoami::routes(config);
    sign_in::routes(config);
    project::routes(config);
    member::routes(config);
    quota::routes(config);
    service_account::routes(config);
    role::routes(config);
    audit::routes(config);
    network::routes(config);
    node::routes(config);
    enrolled_agent::routes(config);
    join_token::routes(config);
    authority::routes(config);
    operation::routes(config);
    events::routes(config);
    datastore::routes(config);
    image::routes(config);
    instance::routes(config);
}
