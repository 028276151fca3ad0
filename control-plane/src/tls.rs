//! TLS of the REST API: a certificate that is loaded again when its file changes.
//!
//! Invariants: a renewed certificate that cannot be used leaves the old one in force; TLS 1.2 and 1.3 only, as rustls
//! has no others.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::Deserialize;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Where certificate and key are, in PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate, and those between it and the root.
    pub certificate_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// It has no certificate.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    /// Certificate and key do not go together, or are of an unknown kind.
    #[error("the certificate in {path} cannot be used with its key")]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

fn load(settings: &TlsSettings) -> Result<CertifiedKey, TlsError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Read { path, source }
    };
    let file = &settings.certificate_file;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(file)
        .map_err(read(file))?
        .collect::<Result<_, _>>()
        .map_err(read(file))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(file.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&settings.key_file).map_err(read(&settings.key_file))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|source| TlsError::Unusable { path: file.clone(), source })
}

/// The certificate in force.
#[derive(Debug)]
pub struct Certificate {
    settings: TlsSettings,
    current: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Certificate {
    /// Loads the certificate.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn load(settings: TlsSettings) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(load(&settings)?);
        Ok(Arc::new(Self { settings, current }))
    }

    /// How the server speaks TLS.
    ///
    /// # Errors
    /// When the cryptography does not have what TLS needs.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(builder.with_no_client_auth().with_cert_resolver(Arc::<Self>::clone(self)))
    }

    fn stamp(&self) -> Vec<Option<(std::time::SystemTime, u64)>> {
        [&self.settings.certificate_file, &self.settings.key_file]
            .map(|path| {
                let metadata = std::fs::metadata(path).ok()?;
                Some((metadata.modified().ok()?, metadata.len()))
            })
            .to_vec()
    }

    /// Loads the certificate again whenever a file changes, for ever.
    pub async fn watch(self: Arc<Self>) {
        let mut seen = self.stamp();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.stamp();
            if now == seen {
                continue;
            }
            seen = now;
            match load(&self.settings) {
                Ok(key) => {
                    self.current.store(Arc::new(key));
                    tracing::info!("the renewed certificate is in force");
                }
                Err(error) => {
                    // Certificate and key are two files: the other one may follow in a moment.
                    tracing::error!(
                        error = bmi_types::chain(&error),
                        "the renewed certificate cannot be used; the old one stays"
                    );
                }
            }
        }
    }
}
