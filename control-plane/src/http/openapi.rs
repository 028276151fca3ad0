//! The OpenAPI 3.1 document: made from the handlers' own descriptions, completed by what holds for every route.
//!
//! Deliberately absent: a second list of fields. Shapes come from `bmi-api`, patterns from `bmi-types`.
//!
//! Invariants: every route is in it (a test compares it with what is served); a checked-in copy makes each change of
//! the API visible in review.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use actix_web::{HttpResponse, web};
use bmi_api::{Code, Problem};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{HttpMethod, Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Ref, RefOr, Required, Response, ResponseBuilder};
use utoipa::{IntoParams, Modify, OpenApi, ToSchema};

use super::{
    answer, audit, authority, datastore, enrolled_agent, events, guard, health, image, instance, join_token,
    member, metrics, network, node, operation, project, quota, role, service_account, sign_in, whoami,
};

/// Name of the way in which callers prove who they are.
const SCHEME: &str = "token";
/// The noun of what is about the service as a whole.
const SERVICE: &str = "service";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "BMI",
        description = "Boots bare-metal servers from copy-on-write clones of golden images. Errors are \
                       `application/problem+json` (RFC 9457) with a stable `code`; an invalid request is told all \
                       its faults at once.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/", description = "This server")),
    paths(
        health::alive, health::ready, metrics::metrics, openapi, whoami::whoami, datastore::list,
        sign_in::ways, sign_in::start, sign_in::callback, sign_in::device, sign_in::device_token, sign_in::sign_out,
        project::list, project::create, project::show, project::update, project::delete,
        member::list, member::create, member::delete,
        member::list_everywhere, member::create_everywhere, member::delete_everywhere,
        quota::show, quota::update,
        service_account::list, service_account::create, service_account::show, service_account::update,
        service_account::delete, service_account::rotate, service_account::revoke,
        role::list, role::create, role::show, role::update, role::delete, role::explain,
        audit::list, audit::chain,
        network::list, network::create, network::show, network::update, network::delete,
        network::timeline,
        node::list, node::create, node::show, node::update, node::delete, node::assign, node::release,
        enrolled_agent::list, enrolled_agent::show, enrolled_agent::approve, enrolled_agent::reject,
        enrolled_agent::revoke, enrolled_agent::replace,
        join_token::list, join_token::create, join_token::revoke,
        authority::list, authority::rotate, authority::retire,
        operation::list, operation::show, events::operation_events,
        image::list, image::create, image::show, image::delete, image::seal,
        image::sharing, image::share, image::offset, image::upload,
        instance::list, instance::provision, instance::show, instance::deprovision, instance::timeline,
        events::instance_events,
    ),
    components(schemas(Problem)),
    modifiers(&Everywhere)
)]
struct Document;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let document = web::resource("/v1/openapi.json").get(openapi);
    config.service(document.default_service(web::to(answer::no_such_method)));
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, body = Object)))]
pub(super) async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(document())
}

/// The document as JSON, laid out for people. It is made once.
#[must_use]
pub fn document() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
        text.push('\n');
        text
    });
    &TEXT
}

const fn word(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Post => "POST",
        HttpMethod::Patch => "PATCH",
        HttpMethod::Delete => "DELETE",
        HttpMethod::Head => "HEAD",
        _ => "GET",
    }
}

/// The methods of every path.
static METHODS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let of = |item: &mut PathItem| {
        let methods: Vec<&str> = operations(item).map(|(method, _)| word(&method)).collect();
        methods.join(", ")
    };
    let paths = Document::openapi().paths.paths;
    paths.into_iter().map(|(path, mut item)| (path, of(&mut item))).collect()
});

/// The methods that a path takes, as in an `Allow` header.
pub(super) fn methods(path: Option<&str>) -> String {
    path.and_then(|path| METHODS.get(path)).cloned().unwrap_or_default()
}

/// Where a list goes on, and how much of it is wanted.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes what `cursor` reads")]
pub(super) struct PageQuery {
    /// The most items on the page.
    #[param(minimum = 1, maximum = 500, default = 100, required = false)]
    limit: u32,
    /// `next` of the page before; of the same list, with the same filters.
    #[param(required = false, min_length = 1)]
    cursor: String,
}

/// Only what belongs to one project.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes what `cursor` reads")]
pub(super) struct OfProject {
    /// Only what belongs to this project (name or id).
    #[param(required = false)]
    project: String,
}

/// Only what belongs to one network.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes what `cursor` reads")]
pub(super) struct OfNetwork {
    /// Only what belongs to this network (name or id).
    #[param(required = false)]
    network: String,
}

/// The version that is changed.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it describes what `Request` reads")]
pub(super) struct IfMatch {
    /// The `ETag` of what was read; another version is refused with 412. `*` is any.
    #[param(rename = "If-Match", required = false, pattern = r#"^(\*|"[0-9]{1,18}"|[0-9]{1,18})$"#)]
    version: String,
}

/// Where a browser goes after its sign-in.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes what `start` reads")]
pub(super) struct StartQuery {
    /// A path of this server.
    #[param(required = false, pattern = r"^/([!-.0-\[\]-~][!-\[\]-~]*)?$", max_length = 2048)]
    return_to: String,
}

/// What a provider sends a browser back with (RFC 6749 section 4.1.2, RFC 9207).
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes what `callback` reads")]
pub(super) struct CallbackQuery {
    /// What the beginning of the sign-in gave out.
    #[param(required = false)]
    state: String,
    /// The code.
    #[param(required = false)]
    code: String,
    /// The provider.
    #[param(required = false)]
    iss: String,
    /// Why there is no code.
    #[param(required = false)]
    error: String,
}

/// Where an upload goes on.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it describes what `upload` reads")]
pub(super) struct UploadAt {
    /// The byte that the body begins at.
    #[param(rename = "Upload-Offset", minimum = 0)]
    offset: u64,
}

/// Bytes of an image.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "it describes a body")]
pub(super) struct UploadBytes(String);

/// What a health route says.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes an answer")]
pub(super) struct Health {
    /// `ok` or `ready`.
    status: String,
}

/// What holds for every route.
struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token, such as the one in the data directory's `admin.token`."))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(SCHEME, SecurityScheme::Http(bearer));
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in operations(item) {
                complete(path, &method, operation);
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    let PathItem { get, post, patch, delete, head, .. } = item;
    let all = [
        (HttpMethod::Get, get),
        (HttpMethod::Post, post),
        (HttpMethod::Patch, patch),
        (HttpMethod::Delete, delete),
        (HttpMethod::Head, head),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// The noun of a path: its last part that is one.
fn noun(path: &str) -> &str {
    let plural = |part: &&str| part.ends_with('s') && !matches!(*part, "events" | "metrics");
    let noun = path.split('/').rfind(plural).map_or(SERVICE, |noun| noun.strip_suffix('s').unwrap_or(noun));
    match path.rsplit('/').next() {
        Some("quota") => "quota",
        Some("audit" | "chain") => "audit",
        _ if path.starts_with("/v1/authorities") => "authority",
        // Tokens are a part of their service account.
        _ if noun == "token" => "service-account",
        _ => noun,
    }
}

fn parameter(
    name: &str,
    place: ParameterIn,
    required: Required,
    schema: ObjectBuilder,
    text: &str,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .schema(Some(Schema::from(schema.build())))
        .description(Some(text))
        .build()
}

fn complete(path: &str, method: &HttpMethod, operation: &mut Operation) {
    let noun = noun(path);
    operation.tags = Some(vec![noun.to_owned()]);
    operation.operation_id = operation.operation_id.take().map(|verb| {
        let whole = noun == SERVICE || verb.starts_with(noun);
        if whole { verb } else { format!("{}_{verb}", noun.replace('-', "_")) }
    });
    let text = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
    let parameters = operation.parameters.get_or_insert_default();
    for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let what = if matches!(name, "operation" | "token") { "id" } else { "name or id" };
        let schema = text().max_length(Some(64)).pattern(Some("^[!-~]+$"));
        let text = (schema, format!("The {name}'s {what}."));
        parameters.push(parameter(name, ParameterIn::Path, Required::True, text.0, &text.1).into());
    }
    let open = guard::OPEN.contains(&path);
    if *method == HttpMethod::Post && !open {
        let told = "The same request under the same key has one effect and one answer, for 24 hours.";
        let schema = text().max_length(Some(255)).pattern(Some("^[ -~]+$"));
        parameters
            .push(parameter("Idempotency-Key", ParameterIn::Header, Required::False, schema, told).into());
    }
    operation.security =
        Some(if open { Vec::new() } else { vec![SecurityRequirement::new(SCHEME, Vec::<String>::new())] });
    let header = |text: &str| RefOr::T(HeaderBuilder::new().description(Some(text)).build());
    for (status, answer) in &mut operation.responses.responses {
        let RefOr::T(answer) = answer else { continue };
        if answer.description.is_empty() {
            answer.description = said(status).to_owned();
        }
        answer.headers.insert("X-Request-Id".to_owned(), header("Names the request in the server's log."));
        if matches!(&**status, "201" | "202" | "303") {
            let text = match &**status {
                "201" => "What was created.",
                "202" => "Where to follow the operation.",
                _ => "Where to go on.",
            };
            answer.headers.insert("Location".to_owned(), header(text));
        }
        let versioned = !open && path.contains('{') && !path.ends_with("events") && noun != "operation";
        if versioned && (status == "201" || status == "200" && *method != HttpMethod::Head) {
            answer.headers.insert("ETag".to_owned(), header("The version, for `If-Match`."));
        }
    }
    let filtered =
        parameters.iter().any(|p| matches!(p, RefOr::T(p) if p.name == "project" || p.name == "network"));
    let conditional = parameters.iter().any(|p| matches!(p, RefOr::T(p) if p.name == "If-Match"));
    // A device names its provider in the body.
    let absent = filtered || path.contains('{') || path == "/v1/sign-in/device";
    let can = Can {
        be_absent: absent,
        be_stale: conditional,
        // What is asked of the policy is judged field by field.
        be_invalid: path == "/v1/policy/explain",
    };
    for (status, answer) in problems(path, method, can) {
        operation.responses.responses.entry(status).or_insert_with(|| answer.into());
    }
}

const fn said(status: &str) -> &str {
    match status.as_bytes() {
        b"201" => "It was created.",
        b"202" => "It has begun; this operation tells how it goes.",
        b"204" => "Done.",
        b"303" => "The browser goes on there.",
        _ => "What was asked for.",
    }
}

/// What else can go wrong on a route.
struct Can {
    be_absent: bool,
    be_stale: bool,
    /// Although nothing is changed.
    be_invalid: bool,
}

/// What only an import answers with.
const IMPORTS: &[Code] =
    &[Code::ImageHasClones, Code::ImageInUse, Code::ImportSourceAbsent, Code::ImportUnsupported];
/// What only an operation, or a server that does not start, fails with; and what only agents are answered.
const NO_ANSWERS: &[Code] = &[
    Code::TargetFailed,
    Code::AgentUnavailable,
    Code::StorePoolAbsent,
    Code::StorePoolUnfit,
    Code::JoinTokenRefused,
    Code::AgentRefused,
    Code::AgentReplaced,
];

/// The problems a route may answer with: one entry per status, naming its codes.
fn problems(path: &str, method: &HttpMethod, can: Can) -> Vec<(String, Response)> {
    let changes = matches!(method, HttpMethod::Post | HttpMethod::Patch | HttpMethod::Delete);
    let may = |code: Code| match code.status() {
        _ if code == Code::SignInRefused => path.starts_with("/v1/sign-in/"),
        _ if IMPORTS.contains(&code) => changes && path == "/v1/projects/{project}/images",
        _ if NO_ANSWERS.contains(&code) => false,
        401 => !guard::OPEN.contains(&path),
        403 => !guard::OPEN.contains(&path),
        404 => can.be_absent,
        409 => changes || *method == HttpMethod::Head,
        412 => can.be_stale,
        422 if can.be_invalid => code == Code::Invalid,
        413 | 415 | 422 | 423 | 507 => changes,
        405 => false,
        _ => true,
    };
    let mut found: Vec<(String, Response)> = Vec::new();
    for &code in Code::ALL.iter().filter(|code| may(**code)) {
        let status = code.status().to_string();
        let line = format!("`{code}`: {}.", code.title());
        match found.iter_mut().find(|(known, _)| *known == status) {
            Some((_, answer)) => answer.description = format!("{} {line}", answer.description),
            None => found.push((status, problem(line))),
        }
    }
    found
}

fn problem(description: String) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content(answer::PROBLEM, content).build()
}
