//! Whose certificate a connection of the agents' listener has.

use std::any::Any;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::Extensions;
use bmi_auth::authority::{end_of_certificate, identity_of_certificate, key_of_certificate};
use bmi_auth::{AuthorityError, SpiffeId};
use bmi_types::Timestamp;
use tokio::net::TcpStream;

use crate::app::Peer;

/// Notes whose certificate a connection has, if it is an agent's of this deployment. A connection without one may join.
pub(super) fn peer_note(trust_domain: &str, connection: &dyn Any, to: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<TlsStream<TcpStream>>() else { return };
    let Some([leaf, ..]) = stream.get_ref().1.peer_certificates() else { return };
    let read = || -> Result<(SpiffeId, String, Timestamp), AuthorityError> {
        let id = identity_of_certificate(leaf)?;
        Ok((id, key_of_certificate(leaf)?, end_of_certificate(leaf)?))
    };
    match read() {
        Ok((id, key_sha256, expires_at)) if id.trust_domain == trust_domain => {
            to.insert(Peer { id, key_sha256, expires_at });
        }
        Ok(_) | Err(_) => {
            tracing::warn!("a certificate of our own authority names no agent of this deployment");
        }
    }
}
