//! TLS between the check and a server.
//!
//! Without verification the certificate is not even parsed: the auto-made ones of MySQL and of how-tos are X.509 v1,
//! or name nobody, and a signature of an unknown key proves nothing. MySQL's `--ssl-mode=REQUIRED` does the same.

use std::{path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{Connect, TlsConnector};

use crate::health::plan::{Plan, Tls};

/// How to make a TLS connection.
#[derive(Clone)]
pub(super) struct Tlsing {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tlsing {
    /// As the plan says. Reads the file of authorities.
    pub(super) fn new(plan: &Plan) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let name = plan.tls_name.clone().unwrap_or_else(|| "mysql".to_owned());
        let name = ServerName::try_from(name).map_err(|_| "`tls_name` is no name of a host".to_owned())?;
        let judge = match plan.tls {
            Tls::Verify => {
                let path = plan.tls_ca.as_deref().ok_or("`tls = \"verify\"` needs `tls_ca`")?;
                let roots = roots(path).map_err(|error| format!("{}: {error}", path.display()))?;
                let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                Judge::Chain { inner, any_name: plan.tls_name.is_none() }
            }
            Tls::Off | Tls::Prefer | Tls::Require => {
                Judge::Anybody(provider.signature_verification_algorithms.supported_schemes())
            }
        };
        let config = builder.dangerous().with_custom_certificate_verifier(Arc::new(judge)).with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Begins the handshake.
    pub(super) fn connect(&self, stream: TcpStream) -> Connect<TcpStream> {
        self.connector.connect(self.name.clone(), stream)
    }
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(roots) }
}

/// Who is believed.
#[derive(Debug)]
enum Judge {
    /// Everybody; these are the signatures that may be offered.
    Anybody(Vec<SignatureScheme>),
    /// A chain to our authorities, for any name if none is asked for: servers are known by their addresses here.
    Chain { inner: Arc<WebPkiServerVerifier>, any_name: bool },
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Self::Chain { inner, any_name } = self else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(end, chain, name, ocsp, now) {
            // The name is looked at last: the chain is good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if *any_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        end: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Self::Anybody(_) => Ok(HandshakeSignatureValid::assertion()),
            Self::Chain { inner, .. } => inner.verify_tls12_signature(message, end, signed),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        end: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Self::Anybody(_) => Ok(HandshakeSignatureValid::assertion()),
            Self::Chain { inner, .. } => inner.verify_tls13_signature(message, end, signed),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self {
            Self::Anybody(schemes) => schemes.clone(),
            Self::Chain { inner, .. } => inner.supported_verify_schemes(),
        }
    }
}
