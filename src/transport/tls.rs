//! TLS 1.3 between two Ed25519 keys: raw public keys (RFC 7250) on both sides, both proven by signature.
//!
//! Deliberately absent: certificates, names, TLS 1.2, resumption, early data.

use std::sync::{Arc, OnceLock};

use ed25519_dalek::{SigningKey, pkcs8::EncodePrivateKey};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
        ring::{cipher_suite, kx_group, sign::any_eddsa_type},
    },
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

use super::{limits, public_key, reset::ResetKey};
use crate::wire::PeerId;

/// The protocol that both sides must name.
pub(super) const ALPN: &[u8] = b"edge/1";

/// Our key, ready to be shown and to sign.
#[derive(Clone)]
pub(super) struct Identity {
    /// Who we are.
    pub(super) peer: PeerId,
    /// What is shown and signs.
    pub(super) certified: Arc<CertifiedKey>,
    /// What lets peers notice that we were started anew.
    pub(super) reset: ResetKey,
}

impl Identity {
    /// Loads `key` into TLS.
    ///
    /// # Errors
    /// What TLS says of a key it can not use.
    pub(super) fn new(key: &SigningKey) -> Result<Self, Error> {
        let peer = PeerId::from_bytes(key.verifying_key().to_bytes());
        let shown = CertificateDer::from(public_key::to_spki(&peer));
        let certified = Arc::new(CertifiedKey::new(vec![shown], signing_key(key)?));
        Ok(Self { peer, certified, reset: ResetKey::new(key.as_bytes()) })
    }

    /// How we answer: whoever proves a key is let in, and nobody else.
    pub(super) fn server_tls(&self) -> Result<ServerConfig, Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(ClientKeys))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.certified.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// How we dial: `verifier` says whose key is accepted.
    pub(super) fn client_tls(&self, verifier: Arc<ServerKey>) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                self.certified.clone(),
            )));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// QUIC's side of [`Identity::server_tls`].
pub(super) fn server(tls: ServerConfig) -> Result<quinn::ServerConfig, Error> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|e| Error::General(e.to_string()))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(limits::connections()));
    // A token for the next visit would let an onlooker tie two visits together.
    server.validation_token.sent(0);
    limits::incoming(&mut server);
    Ok(server)
}

/// QUIC's side of [`Identity::client_tls`].
pub(super) fn client(tls: ClientConfig) -> Result<quinn::ClientConfig, Error> {
    let crypto = QuicClientConfig::try_from(tls).map_err(|e| Error::General(e.to_string()))?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::new(limits::connections())).token_store(Arc::new(quinn::NoneTokenStore));
    Ok(client)
}

/// The key in PKCS#8, which is how ring takes it.
pub(super) fn signing_key(key: &SigningKey) -> Result<Arc<dyn rustls::sign::SigningKey>, Error> {
    // The document wipes itself; ring keeps a copy for as long as the endpoint lives, as it must.
    let document = key.to_pkcs8_der().map_err(|e| Error::General(e.to_string()))?;
    any_eddsa_type(&PrivatePkcs8KeyDer::from(document.as_bytes()))
}

/// One key exchange, two ciphers, and no signature but those that [`check_signed`] checks: what certificates are made of
/// (RSA, NIST's curves) is not even in the program. ChaCha20 comes first: most Pis have no AES instructions, and where
/// they are it is fast enough. QUIC's first packets need AES-128.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
        ],
        kx_groups: vec![kx_group::X25519],
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
        secure_random: &System,
        key_provider: &System,
    })
}

/// The system's random numbers; and no way to a key but [`signing_key`].
#[derive(Debug)]
struct System;

impl SecureRandom for System {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::fill(bytes).map_err(|_| GetRandomFailed)
    }
}

impl KeyProvider for System {
    fn load_private_key(
        &self,
        _: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn rustls::sign::SigningKey>, Error> {
        Err(Error::General("a node has one key, and no file is read for it".into()))
    }
}

/// Judges the key of whom we dial, before we show ours. One for each dialling.
#[derive(Debug)]
pub(super) struct ServerKey {
    own: PeerId,
    expected: Option<PeerId>,
    proven: OnceLock<PeerId>,
}

impl ServerKey {
    /// Accepts `expected`, or anybody where that is not known, but never ourselves.
    pub(super) fn new(own: PeerId, expected: Option<PeerId>) -> Self {
        Self { own, expected, proven: OnceLock::new() }
    }

    /// Whose key was proven by signature, whether we wanted it or not.
    pub(super) fn proven(&self) -> Option<PeerId> {
        self.proven.get().copied()
    }
}

impl ServerCertVerifier for ServerKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_shown(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let found = check_signed(message, cert, dss)?;
        let found = *self.proven.get_or_init(|| found);
        if found == self.own || self.expected.is_some_and(|expected| expected != found) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Judges the keys of those who dial us: any, but it must be shown and proven.
#[derive(Debug)]
pub(super) struct ClientKeys;

impl ClientCertVerifier for ClientKeys {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_shown(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signed(message, cert, dss).map(|_| HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn check_shown(key: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), Error> {
    if !more.is_empty() || public_key::from_spki(key).is_none() {
        return Err(CertificateError::BadEncoding.into());
    }
    Ok(())
}

fn check_signed(
    message: &[u8],
    key: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<PeerId, Error> {
    if signed.scheme != SignatureScheme::ED25519 {
        return Err(CertificateError::BadSignature.into());
    }
    public_key::signer(key, message, signed.signature()).ok_or(CertificateError::BadSignature.into())
}

fn tls12() -> Error {
    PeerIncompatible::Tls13RequiredForQuic.into()
}
