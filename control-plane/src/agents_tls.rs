//! TLS of the listener that agents dial: its own certificate, and whose certificates it takes.
//!
//! Both come from the authorities in the database, which every replica looks at: the oldest issues the listener's
//! certificate, since every agent trusts that one, and certificates of agents are taken from all. A certificate is not
//! asked for by TLS itself, because one who joins has none; each route but those asks for it.
//!
//! Invariant: TLS 1.3 only; both ends are ours.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bmi_auth::{AuthorityError, MasterKey};
use bmi_db::{Db, authority};
use bmi_types::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

use crate::app::Enrolling;
use crate::app::authority::{make, open};
use crate::error::AppError;

/// How often the authorities are looked at; a new one issues only after several looks.
const LOOK: Duration = Duration::from_secs(1);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum AgentsTlsError {
    /// The database, or an authority in it.
    #[error("the authority of agents cannot be used")]
    App(#[from] AppError),
    /// A certificate.
    #[error("the listener's certificate cannot be issued")]
    Issue(#[from] AuthorityError),
    /// What was issued cannot be used.
    #[error("the listener's certificate cannot be used")]
    Unusable(#[from] rustls::Error),
    /// The authorities are none.
    #[error("an authority of agents is not one: {0}")]
    Authority(String),
}

/// What is in force: with which authorities, and until when.
struct Current {
    authorities: Vec<bmi_types::AuthorityId>,
    renew_at: Timestamp,
    key: Arc<CertifiedKey>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// The listener's TLS.
pub struct AgentsTls {
    db: Db,
    master_key: MasterKey,
    enrolling: Enrolling,
    names: Vec<String>,
    current: ArcSwap<Current>,
}

impl std::fmt::Debug for AgentsTls {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "AgentsTls({:?})", self.names)
    }
}

fn unusable(error: impl std::fmt::Display) -> AgentsTlsError {
    AgentsTlsError::Authority(error.to_string())
}

/// Makes what is in force with some authorities.
fn made(
    records: &[authority::Record],
    master_key: &MasterKey,
    life: Duration,
    names: &[String],
) -> Result<Current, AgentsTlsError> {
    let oldest = records.first().ok_or_else(|| unusable("there is none"))?;
    let now = Timestamp::now();
    let (issued, key) = open(master_key, oldest)?.issue_server(names, now, life)?;
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).map_err(unusable)?];
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(unusable)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = CertifiedKey::from_der(chain, key, &provider)?;
    let mut roots = RootCertStore::empty();
    for record in records {
        roots.add(CertificateDer::from_pem_slice(record.certificate.as_bytes()).map_err(unusable)?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(unusable)?;
    let authorities = records.iter().map(|record| record.id).collect();
    Ok(Current { authorities, renew_at: now.plus(life * 2 / 3), key: Arc::new(key), verifier })
}

impl AgentsTls {
    /// Issues the first certificate.
    ///
    /// # Errors
    /// When an authority cannot be used, or a name is none.
    pub fn new(
        db: Db,
        master_key: MasterKey,
        enrolling: Enrolling,
        names: Vec<String>,
        records: &[authority::Record],
    ) -> Result<Arc<Self>, AgentsTlsError> {
        let first = made(records, &master_key, enrolling.certificate_life, &names)?;
        let current = ArcSwap::from_pointee(first);
        Ok(Arc::new(Self { db, master_key, enrolling, names, current }))
    }

    /// How the listener speaks TLS.
    ///
    /// # Errors
    /// When the cryptography does not have what TLS needs.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let verifier = Arc::<Self>::clone(self);
        Ok(builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::<Self>::clone(self)))
    }

    /// What every identity begins with.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.enrolling.trust_domain
    }

    async fn look(&self) -> Result<(), AgentsTlsError> {
        let records = self.db.system_read(|tx| Ok::<_, AppError>(authority::list(tx)?)).await?;
        let current = self.current.load();
        let same = records.iter().map(|record| record.id).eq(current.authorities.iter().copied());
        if same && Timestamp::now() < current.renew_at {
            return Ok(());
        }
        let next = made(&records, &self.master_key, self.enrolling.certificate_life, &self.names)?;
        self.current.store(Arc::new(next));
        tracing::info!(authorities = records.len(), "the agents' listener has a new certificate");
        Ok(())
    }

    /// Keeps the certificate fresh and the authorities as the database has them, for ever.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.look().await {
                let error = bmi_types::chain(&error);
                tracing::warn!(error, "the agents' authorities could not be looked at; what was known stays");
            }
        }
    }
}

impl ResolvesServerCert for AgentsTls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

impl ClientCertVerifier for AgentsTls {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Agents have one certificate, and need no hint which to show.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.current.load().verifier.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current.load().verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current.load().verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current.load().verifier.supported_verify_schemes()
    }
}

/// The authorities of a database; the first is made where there is none yet. There is one writer at a time, so replicas
/// that start at once make one.
///
/// # Errors
/// When the database fails.
pub async fn authorities_ensure(
    db: &Db,
    key: &MasterKey,
    enrolling: &Enrolling,
) -> Result<Vec<authority::Record>, AppError> {
    let found = db.system_read(|tx| Ok::<_, AppError>(authority::list(tx)?)).await?;
    if !found.is_empty() {
        return Ok(found);
    }
    let (key, trust_domain) = (key.clone(), enrolling.trust_domain.clone());
    db.system_write(move |tx| {
        let found = authority::list(tx)?;
        if !found.is_empty() {
            return Ok(found);
        }
        let made = make(tx, &key, &trust_domain, Timestamp::now())?;
        tracing::info!(authority.id = %made.id, spki_sha256 = made.spki_sha256, "the authority of agents was made");
        Ok::<_, AppError>(vec![made])
    })
    .await
}
