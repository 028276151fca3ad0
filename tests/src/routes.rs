//! Every route of the REST API. A test compares this list with the server's source, so that none is forgotten.

/// A route: its method, its path with parameters in braces, and whether it answers without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// Whether it answers without a token.
    pub open: bool,
}

const fn closed(method: &'static str, path: &'static str) -> Route {
    Route { method, path, open: false }
}

const fn open(method: &'static str, path: &'static str) -> Route {
    Route { method, path, open: true }
}

/// All routes.
pub const ROUTES: &[Route] = &[
    open("GET", "/healthz"),
    open("GET", "/readyz"),
    closed("GET", "/metrics"),
    closed("GET", "/v1/openapi.json"),
    closed("GET", "/v1/whoami"),
    open("GET", "/v1/sign-in"),
    open("GET", "/v1/sign-in/{provider}/start"),
    open("GET", "/v1/sign-in/callback"),
    open("POST", "/v1/sign-in/device"),
    open("POST", "/v1/sign-in/device/token"),
    closed("POST", "/v1/sign-out"),
    closed("GET", "/v1/datastores"),
    closed("GET", "/v1/projects"),
    closed("POST", "/v1/projects"),
    closed("GET", "/v1/projects/{project}"),
    closed("PATCH", "/v1/projects/{project}"),
    closed("DELETE", "/v1/projects/{project}"),
    closed("GET", "/v1/projects/{project}/members"),
    closed("POST", "/v1/projects/{project}/members"),
    closed("DELETE", "/v1/projects/{project}/members/{member}"),
    closed("GET", "/v1/projects/{project}/quota"),
    closed("PATCH", "/v1/projects/{project}/quota"),
    closed("GET", "/v1/members"),
    closed("POST", "/v1/members"),
    closed("DELETE", "/v1/members/{member}"),
    closed("GET", "/v1/roles"),
    closed("POST", "/v1/roles"),
    closed("GET", "/v1/roles/{role}"),
    closed("PATCH", "/v1/roles/{role}"),
    closed("DELETE", "/v1/roles/{role}"),
    closed("GET", "/v1/policy/explain"),
    closed("GET", "/v1/audit"),
    closed("GET", "/v1/audit/chain"),
    closed("GET", "/v1/networks"),
    closed("POST", "/v1/networks"),
    closed("GET", "/v1/networks/{network}"),
    closed("GET", "/v1/networks/{network}/timeline"),
    closed("PATCH", "/v1/networks/{network}"),
    closed("DELETE", "/v1/networks/{network}"),
    closed("GET", "/v1/nodes"),
    closed("POST", "/v1/nodes"),
    closed("GET", "/v1/nodes/{node}"),
    closed("PATCH", "/v1/nodes/{node}"),
    closed("DELETE", "/v1/nodes/{node}"),
    closed("POST", "/v1/nodes/{node}/assign"),
    closed("POST", "/v1/nodes/{node}/release"),
    closed("GET", "/v1/agents"),
    closed("GET", "/v1/agents/{agent}"),
    closed("POST", "/v1/agents/{agent}/approve"),
    closed("POST", "/v1/agents/{agent}/reject"),
    closed("POST", "/v1/agents/{agent}/revoke"),
    closed("POST", "/v1/agents/{agent}/replace"),
    closed("GET", "/v1/join-tokens"),
    closed("POST", "/v1/join-tokens"),
    closed("DELETE", "/v1/join-tokens/{token}"),
    closed("GET", "/v1/authorities"),
    closed("POST", "/v1/authorities"),
    closed("DELETE", "/v1/authorities/{authority}"),
    closed("GET", "/v1/operations"),
    closed("GET", "/v1/operations/{operation}"),
    closed("GET", "/v1/operations/{operation}/events"),
    closed("GET", "/v1/projects/{project}/service-accounts"),
    closed("POST", "/v1/projects/{project}/service-accounts"),
    closed("GET", "/v1/projects/{project}/service-accounts/{account}"),
    closed("PATCH", "/v1/projects/{project}/service-accounts/{account}"),
    closed("DELETE", "/v1/projects/{project}/service-accounts/{account}"),
    closed("POST", "/v1/projects/{project}/service-accounts/{account}/tokens"),
    closed("DELETE", "/v1/projects/{project}/service-accounts/{account}/tokens/{token}"),
    closed("GET", "/v1/projects/{project}/images"),
    closed("POST", "/v1/projects/{project}/images"),
    closed("GET", "/v1/projects/{project}/images/{image}"),
    closed("DELETE", "/v1/projects/{project}/images/{image}"),
    closed("POST", "/v1/projects/{project}/images/{image}/seal"),
    closed("GET", "/v1/projects/{project}/images/{image}/sharing"),
    closed("PATCH", "/v1/projects/{project}/images/{image}/sharing"),
    closed("PATCH", "/v1/projects/{project}/images/{image}/content"),
    closed("HEAD", "/v1/projects/{project}/images/{image}/content"),
    closed("GET", "/v1/projects/{project}/instances"),
    closed("POST", "/v1/projects/{project}/instances"),
    closed("GET", "/v1/projects/{project}/instances/{instance}"),
    closed("DELETE", "/v1/projects/{project}/instances/{instance}"),
    closed("GET", "/v1/projects/{project}/instances/{instance}/timeline"),
    closed("GET", "/v1/projects/{project}/instances/{instance}/events"),
];
