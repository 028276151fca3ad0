//! The authority that issues the certificates of agents, and of the listener that they dial.
//!
//! What a request asks for is ignored but for its public key: name, lifetime and use are the server's to choose. A key
//! is known by the SHA-256 of its SubjectPublicKeyInfo (RFC 5280 section 4.1), which is also what a join token pins an
//! authority by.
//!
//! Deliberately absent: lists of revoked certificates. Who may speak is looked up for each request.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use bmi_types::{AgentId, NetworkId, Secret, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509CertificationRequest};

/// How long an authority lasts: ten years.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// How long before its issue a certificate is valid: a host whose clock is behind by less can use it at once.
pub const BACKDATED: Duration = Duration::from_secs(60 * 60);
/// The longest request for a certificate, in bytes: one with an RSA key of 8192 bits has half of that.
const REQUEST_MAX: usize = 8 << 10;

/// Why something was not issued or not read.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate or the key of an authority is not one.
    #[error("an authority cannot be used")]
    Unusable(#[source] rcgen::Error),
    /// A certificate was not made.
    #[error("a certificate cannot be issued")]
    Issue(#[source] rcgen::Error),
    /// There is no randomness.
    #[error("no random bytes")]
    Random,
    /// A request for a certificate is not one, or not signed by its own key.
    #[error("that is no request for a certificate (PKCS #10 in PEM), or its own key has not signed it")]
    Request,
    /// A certificate is not one.
    #[error("that is no certificate")]
    Certificate,
}

/// Who an agent is: `spiffe://<trust domain>/network/<id>/agent/<id>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeId {
    /// Of which deployment.
    pub trust_domain: String,
    /// Of which network.
    pub network: NetworkId,
    /// Which.
    pub agent: AgentId,
}

impl std::fmt::Display for SpiffeId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "spiffe://{}/network/{}/agent/{}", self.trust_domain, self.network, self.agent)
    }
}

impl FromStr for SpiffeId {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        let read = || {
            let (trust_domain, path) = text.strip_prefix("spiffe://")?.split_once("/network/")?;
            let (network, agent) = path.split_once("/agent/")?;
            let trust_domain = trust_domain.to_owned();
            Some(Self { trust_domain, network: network.parse().ok()?, agent: agent.parse().ok()? })
        };
        // Written as we write it, and in no other way.
        read().filter(|id| id.to_string() == text).ok_or(AuthorityError::Certificate)
    }
}

/// An authority as it is kept.
#[derive(Debug, Clone)]
pub struct NewAuthority {
    /// Its certificate, in PEM.
    pub certificate: String,
    /// Its key, in PEM.
    pub key: Secret,
    /// The hash of its public key.
    pub spki_sha256: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A certificate that was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// In PEM.
    pub certificate: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A public key that asks for a certificate, and has proved that its other half is there.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    request: CertificateSigningRequestParams,
    /// The hash of the key.
    pub key_sha256: String,
}

/// An authority that can issue.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Authority(…)")
    }
}

/// SHA-256 in hexadecimal.
fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn moment(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.micros() / 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// The parameters of a certificate for some time, of which whoever asks has chosen nothing.
fn parameters(
    common_name: &str,
    from: Timestamp,
    until: Timestamp,
) -> Result<CertificateParams, AuthorityError> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|_| AuthorityError::Random)?;
    // A positive number (RFC 5280 section 4.1.2.2).
    if let Some(first) = serial.first_mut() {
        *first &= 0x7f;
    }
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = name;
    parameters.not_before = moment(from);
    parameters.not_after = moment(until);
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(parameters)
}

impl NewAuthority {
    /// Makes an authority.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(trust_domain: &str, now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Issue)?;
        let expires_at = now.plus(AUTHORITY_LIFE);
        // Names of authorities differ: a certificate names its issuer by them.
        let name = format!("BMI agents of {trust_domain}, {}", now.micros());
        let mut parameters = parameters(&name, now.minus(BACKDATED), expires_at)?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = parameters.self_signed(&key).map_err(AuthorityError::Issue)?;
        Ok(Self {
            spki_sha256: key_of_certificate(certificate.der())?,
            certificate: certificate.pem(),
            key: Secret::new(key.serialize_pem()),
            expires_at,
        })
    }
}

impl Authority {
    /// Takes an authority's certificate and key, both in PEM.
    ///
    /// # Errors
    /// When they are none.
    pub fn open(certificate: &str, key: &Secret) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key.expose()).map_err(AuthorityError::Unusable)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(AuthorityError::Unusable)?;
        Ok(Self { issuer })
    }

    /// Issues the certificate of an agent: for that identity and for dialling, whatever was asked for.
    ///
    /// # Errors
    /// When the identity cannot be written.
    pub fn issue_agent(
        &self,
        request: &KeyRequest,
        id: &SpiffeId,
        now: Timestamp,
        life: Duration,
    ) -> Result<Issued, AuthorityError> {
        let expires_at = now.plus(life);
        let mut parameters = parameters("BMI agent", now.minus(BACKDATED), expires_at)?;
        let uri = id.to_string().try_into().map_err(AuthorityError::Issue)?;
        parameters.subject_alt_names = vec![SanType::URI(uri)];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let public_key = request.request.public_key.clone();
        let request = CertificateSigningRequestParams { params: parameters, public_key };
        let certificate = request.signed_by(&self.issuer).map_err(AuthorityError::Issue)?;
        Ok(Issued { certificate: certificate.pem(), expires_at })
    }

    /// Issues a certificate of the listener, for DNS names and addresses, with a new key; both in PEM.
    ///
    /// # Errors
    /// When a name is none.
    pub fn issue_server(
        &self,
        names: &[String],
        now: Timestamp,
        life: Duration,
    ) -> Result<(Issued, Secret), AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Issue)?;
        let expires_at = now.plus(life);
        let mut parameters = parameters("BMI control plane", now.minus(BACKDATED), expires_at)?;
        parameters.subject_alt_names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) => Ok(SanType::DnsName(name.as_str().try_into().map_err(AuthorityError::Issue)?)),
            })
            .collect::<Result<_, AuthorityError>>()?;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(AuthorityError::Issue)?;
        let issued = Issued { certificate: certificate.pem(), expires_at };
        Ok((issued, Secret::new(key.serialize_pem())))
    }
}

impl KeyRequest {
    /// Reads a request (PKCS #10 in PEM), which its own key must have signed.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(pem: &str) -> Result<Self, AuthorityError> {
        if pem.len() > REQUEST_MAX {
            return Err(AuthorityError::Request);
        }
        let (_, block) =
            x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| AuthorityError::Request)?;
        if block.label != "CERTIFICATE REQUEST" {
            return Err(AuthorityError::Request);
        }
        let (rest, parsed) =
            X509CertificationRequest::from_der(&block.contents).map_err(|_| AuthorityError::Request)?;
        if !rest.is_empty() {
            return Err(AuthorityError::Request);
        }
        let key_sha256 = hash(parsed.certification_request_info.subject_pki.raw);
        let request = CertificateSigningRequestParams::from_der(&block.contents.as_slice().into())
            .map_err(|_| AuthorityError::Request)?;
        Ok(Self { request, key_sha256 })
    }
}

fn parsed(der: &[u8]) -> Result<X509Certificate<'_>, AuthorityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(AuthorityError::Certificate),
    }
}

/// The hash of a certificate's public key.
///
/// # Errors
/// When it is no certificate.
pub fn key_of_certificate(der: &[u8]) -> Result<String, AuthorityError> {
    Ok(hash(parsed(der)?.tbs_certificate.subject_pki.raw))
}

/// When a certificate ends.
///
/// # Errors
/// When it is no certificate.
pub fn end_of_certificate(der: &[u8]) -> Result<Timestamp, AuthorityError> {
    let seconds = parsed(der)?.validity().not_after.timestamp();
    Ok(Timestamp::from_micros(seconds.saturating_mul(1_000_000)))
}

/// Who a certificate is of: it must have one alternative name, and that must be an identity as [`SpiffeId`] has it.
///
/// # Errors
/// When it has no such name, or another one beside it.
pub fn identity_of_certificate(der: &[u8]) -> Result<SpiffeId, AuthorityError> {
    let certificate = parsed(der)?;
    let names = certificate.subject_alternative_name().map_err(|_| AuthorityError::Certificate)?;
    match names.map(|names| names.value.general_names.as_slice()) {
        Some([GeneralName::URI(uri)]) => uri.parse(),
        _ => Err(AuthorityError::Certificate),
    }
}

/// The certificate of a PEM text.
///
/// # Errors
/// When it has none.
pub fn der_of(pem: &str) -> Result<Vec<u8>, AuthorityError> {
    parse_x509_pem(pem.as_bytes()).map(|(_, block)| block.contents).map_err(|_| AuthorityError::Certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn authority() -> (NewAuthority, Authority) {
        let new = NewAuthority::generate("bmi.example", Timestamp::now()).unwrap();
        let open = Authority::open(&new.certificate, &new.key).unwrap();
        (new, open)
    }

    fn id() -> SpiffeId {
        let (network, agent) = (NetworkId::generate(), AgentId::generate());
        SpiffeId { trust_domain: "bmi.example".to_owned(), network, agent }
    }

    #[test]
    fn a_request_is_given_nothing_that_it_asks_for() {
        let key = KeyPair::generate().unwrap();
        let mut asked = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        asked.subject_alt_names.push(SanType::URI(id().to_string().try_into().unwrap()));
        asked.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = asked.serialize_request(&key).unwrap().pem().unwrap();
        let request = KeyRequest::read(&pem).unwrap();
        let (_, authority) = authority();
        let id = id();
        let issued = authority.issue_agent(&request, &id, Timestamp::now(), DAY).unwrap();
        let der = der_of(&issued.certificate).unwrap();
        assert_eq!(identity_of_certificate(&der).unwrap(), id);
        assert_eq!(key_of_certificate(&der).unwrap(), request.key_sha256);
        let certificate = parsed(&der).unwrap();
        assert!(!certificate.is_ca());
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_none() {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        let mut der = request.der().to_vec();
        let last = der.last_mut().unwrap();
        *last ^= 1;
        let pem = |der: &[u8]| {
            use base64::Engine;
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
        };
        assert!(KeyRequest::read(&pem(request.der())).is_ok());
        assert!(KeyRequest::read(&pem(&der)).is_err());
        assert!(KeyRequest::read(&pem(&der[..40])).is_err());
        for wrong in ["", "x", &key.serialize_pem(), &"A".repeat(REQUEST_MAX + 1)] {
            assert!(KeyRequest::read(wrong).is_err());
        }
    }

    #[test]
    fn an_identity_is_read_as_it_was_written_and_in_no_other_way() {
        let id = id();
        let text = id.to_string();
        assert_eq!(text.parse::<SpiffeId>().unwrap(), id);
        let upper = text.replace(&id.agent.to_string(), &id.agent.to_string().to_uppercase());
        for wrong in ["", "spiffe://", &upper, &format!("{text}/"), &text.replace("spiffe", "https")] {
            assert!(wrong.parse::<SpiffeId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn two_names_are_no_identity() {
        let key = KeyPair::generate().unwrap();
        let uri = || SanType::URI(id().to_string().try_into().unwrap());
        let mut two = CertificateParams::default();
        for names in [vec![uri(), uri()], vec![uri(), SanType::DnsName("a".try_into().unwrap())], vec![]] {
            two.subject_alt_names = names;
            let certificate = two.self_signed(&key).unwrap();
            assert!(identity_of_certificate(certificate.der()).is_err());
        }
    }
}
