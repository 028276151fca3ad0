//! Errors: `application/problem+json` (RFC 9457) with a stable code.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words;

words! {
    /// What went wrong, as a word that never changes its meaning: in a problem, in an operation that failed, and on
    /// standard error when the server does not start.
    Code {
        /// 400: the body is not JSON.
        NotJson = "not-json",
        /// 400: the query or a header is malformed.
        BadRequest = "bad-request",
        /// 401: no token, or one nobody issued.
        Unauthenticated = "unauthenticated",
        /// 401: the token or session was good, and its time is over.
        TokenExpired = "token-expired",
        /// 403: the sign-in cannot be finished; begin it again.
        SignInRefused = "sign-in-refused",
        /// 403: the token to join a network with is not good, or no longer; `detail` says why.
        JoinTokenRefused = "join-token-refused",
        /// 403: the certificate is that of an agent that may not speak, or not with this key.
        AgentRefused = "agent-refused",
        /// The agent was revoked, and another one has its network.
        AgentReplaced = "agent-replaced",
        /// 403: the resource is known, this action on it is not allowed.
        Forbidden = "forbidden",
        /// 404: absent, or another project's.
        NotFound = "not-found",
        /// 405: the path exists, the method does not.
        MethodNotAllowed = "method-not-allowed",
        /// 409: something of that name or address exists.
        Duplicate = "duplicate",
        /// 409: something else uses it; `blockers` lists what.
        InUse = "in-use",
        /// 409: it is not in a state in which this can be done.
        WrongState = "wrong-state",
        /// 409: the node is not assigned to the project.
        NotAssigned = "not-assigned",
        /// 409: it would be more than the project's quota allows; `detail` names each dimension that is full.
        QuotaExceeded = "quota-exceeded",
        /// 409: the network's ranges have no free address.
        AddressesExhausted = "addresses-exhausted",
        /// 409: the upload must go on at another offset, named in `Upload-Offset`.
        WrongOffset = "wrong-offset",
        /// 409: a request with the same `Idempotency-Key` is still running.
        RequestInProgress = "request-in-progress",
        /// 409: the image to import has clones and no snapshot is named: which of its states they read is not said.
        ImageHasClones = "image-has-clones",
        /// 409: somebody has the image to import open for writing and no snapshot is named, or it changed meanwhile.
        ImageInUse = "image-in-use",
        /// 409: what the store has in that place is not BMI's, or not what it should be.
        StoreForeign = "store-foreign",
        /// 412: `If-Match` names an older version.
        StaleVersion = "stale-version",
        /// 413: the body is too large.
        TooLarge = "too-large",
        /// 415: the body is of another media type.
        UnsupportedMediaType = "unsupported-media-type",
        /// 422: the body is JSON but not valid; `errors` lists every fault.
        Invalid = "invalid",
        /// 422: the bytes of an image are not what they were declared as, or want what is not given.
        ImageRefused = "image-refused",
        /// 422: what is to be imported is not there.
        ImportSourceAbsent = "import-source-absent",
        /// 422: this server does not import from there: it is not configured, or its store has no such thing.
        ImportUnsupported = "import-unsupported",
        /// 422: the `Idempotency-Key` was used with another body.
        IdempotencyKeyReused = "idempotency-key-reused",
        /// 423: an operation is working on it.
        Busy = "busy",
        /// 429: too many requests; `Retry-After` says when to try again.
        TooManyRequests = "too-many-requests",
        /// 500: a defect, or a failure without a code of its own; the log has the request id.
        Internal = "internal",
        /// 500: the agent did not bring an instance's target to where it should be.
        TargetFailed = "target-failed",
        /// 500: something that the database knows of is not in the store.
        StoreMissing = "store-missing",
        /// 503: no agent of the network answers.
        AgentUnavailable = "agent-unavailable",
        /// 503: a dependency is down.
        Unavailable = "unavailable",
        /// 503: the server's user of the store may not do this; an administrator must give it the right.
        StoreDenied = "store-denied",
        /// 503: the store's pool, or the namespace to import from, does not exist.
        StorePoolAbsent = "store-pool-absent",
        /// 503: the store's pool has not the setting that is needed.
        StorePoolUnfit = "store-pool-unfit",
        /// 503: the store cannot be used as it is configured.
        StoreUnusable = "store-unusable",
        /// 507: the store has no space left.
        StoreFull = "store-full",
    }
}

impl Code {
    /// The HTTP status it is answered with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NotJson | Self::BadRequest => 400,
            Self::Unauthenticated | Self::TokenExpired => 401,
            Self::Forbidden
            | Self::SignInRefused
            | Self::JoinTokenRefused
            | Self::AgentRefused
            | Self::AgentReplaced => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Duplicate
            | Self::InUse
            | Self::WrongState
            | Self::NotAssigned
            | Self::QuotaExceeded
            | Self::AddressesExhausted
            | Self::WrongOffset
            | Self::RequestInProgress
            | Self::StoreForeign
            | Self::ImageHasClones
            | Self::ImageInUse => 409,
            Self::StaleVersion => 412,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid
            | Self::ImageRefused
            | Self::ImportSourceAbsent
            | Self::ImportUnsupported
            | Self::IdempotencyKeyReused => 422,
            Self::Busy => 423,
            Self::TooManyRequests => 429,
            Self::Internal | Self::TargetFailed | Self::StoreMissing => 500,
            Self::Unavailable
            | Self::AgentUnavailable
            | Self::StoreDenied
            | Self::StorePoolAbsent
            | Self::StorePoolUnfit
            | Self::StoreUnusable => 503,
            Self::StoreFull => 507,
        }
    }

    /// A short summary that is the same for every occurrence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::NotJson => "The body is not JSON",
            Self::BadRequest => "The request is malformed",
            Self::Unauthenticated => "A valid token is needed",
            Self::TokenExpired => "The token has expired",
            Self::SignInRefused => "The sign-in cannot be finished",
            Self::JoinTokenRefused => "The join token is refused",
            Self::AgentRefused => "The agent is refused",
            Self::AgentReplaced => "Another agent has the network",
            Self::Forbidden => "Not allowed",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "This path does not take that method",
            Self::Duplicate => "It exists already",
            Self::InUse => "It is in use",
            Self::WrongState => "Its state does not allow this",
            Self::NotAssigned => "The node is not assigned to the project",
            Self::QuotaExceeded => "The project's quota is used up",
            Self::AddressesExhausted => "The network has no free address",
            Self::WrongOffset => "The upload goes on at another offset",
            Self::RequestInProgress => "The same request is still running",
            Self::StaleVersion => "It was changed in the meantime",
            Self::TooLarge => "The body is too large",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::Invalid => "The request is not valid",
            Self::ImageRefused => "The image is refused",
            Self::IdempotencyKeyReused => "The Idempotency-Key was used for another request",
            Self::Busy => "An operation is working on it",
            Self::TooManyRequests => "Too many requests",
            Self::Internal => "Internal error",
            Self::Unavailable => "Temporarily unavailable",
            Self::StoreFull => "The store is full",
            Self::StoreDenied => "The store refuses the server",
            Self::StoreForeign => "The store has something else there",
            Self::ImageHasClones => "The image to import has clones",
            Self::ImageInUse => "The image to import is in use",
            Self::ImportSourceAbsent => "There is no such thing to import",
            Self::ImportUnsupported => "The server does not import from there",
            Self::TargetFailed => "The target failed",
            Self::StoreMissing => "The store has lost something",
            Self::AgentUnavailable => "No agent answers",
            Self::StorePoolAbsent => "The store's pool does not exist",
            Self::StorePoolUnfit => "The store's pool is not set up for this",
            Self::StoreUnusable => "The store cannot be used",
        }
    }
}

/// One thing wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// Where: a path such as `nics[0].mac`, or empty for the body as a whole.
    pub field: String,
    /// What is wrong, and what would be right.
    pub detail: String,
}

/// One thing that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Blocker {
    /// `instance`, `image`, `node`, …
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// The body of every answer with a status of 400 or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI reference that names the kind of problem: `urn:bmi:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same text for every problem of that code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, for people.
    pub detail: String,
    /// The stable code.
    pub code: Code,
    /// Names the request in the server's log.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub request_id: String,
    /// Every fault of an invalid request.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<Fault>,
    /// What blocks, as far as the caller may see it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub blockers: Vec<Blocker>,
}

impl Problem {
    /// A problem with a code and a detail.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:bmi:problem:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            request_id: String::new(),
            errors: Vec::new(),
            blockers: Vec::new(),
        }
    }
}
