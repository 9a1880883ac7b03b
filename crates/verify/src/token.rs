//! Time-stamp tokens (RFC 3161): somebody outside says when a checkpoint's note existed.
//!
//! The authority's certificate is pinned by the trust file; no chain of certificates is followed. What is checked: the token is
//! over SHA-256 of a checkpoint's note of the file, its signature is that certificate's, the certificate is one for time
//! stamps and was valid then.

use cms::{
    cert::CertificateChoices,
    content_info::ContentInfo,
    signed_data::{SignedData, SignerInfo},
};
use der::{
    Any, AnyRef, Decode, Encode, Sequence, Tag, Tagged,
    asn1::{Int, ObjectIdentifier, OctetString, OctetStringRef, Utf8StringRef},
};
use rsa::pkcs8::DecodePublicKey;
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::{Certificate, ext::pkix::ExtendedKeyUsage, spki::AlgorithmIdentifierOwned};

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const TIME_STAMPING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ECDSA_SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ECDSA_SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// Why a token says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not ASN.1 of a time-stamp token.
    #[error("it can't be read: {0}")]
    Asn1(der::Error),
    /// The authority refused the request.
    #[error("it holds the authority's refusal, no token")]
    Refused,
    /// Something that a token must have is missing or differs.
    #[error("{0}")]
    Form(&'static str),
    /// No certificate of the token is in the trust file.
    #[error("its authority is not in the trust file (`tsa` line): SHA-256 of its certificate is {0}")]
    Stranger(String),
    /// The token does not hold the authority's certificate.
    #[error("it does not hold the authority's certificate: ask for it when stamping (`openssl ts -query -cert`)")]
    NoCertificate,
    /// The signature does not verify.
    #[error("the authority's signature does not verify")]
    Signature,
    /// The certificate was not valid at the token's time.
    #[error("the authority's certificate was not valid at the token's time")]
    Expired,
}

impl TokenError {
    /// True if the token may be good, and this trust file can't tell.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Stranger(_) | Self::NoCertificate)
    }
}

impl From<der::Error> for TokenError {
    fn from(error: der::Error) -> Self {
        Self::Asn1(error)
    }
}

/// What a token says, once it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// SHA-256 of what was stamped.
    pub imprint: [u8; 32],
    /// When, seconds since 1970, by the authority's clock.
    pub time: u64,
    /// Name of the authority, by its certificate.
    pub authority: String,
}

#[derive(Sequence)]
struct Response<'a> {
    status: StatusInfo<'a>,
    #[asn1(optional = "true")]
    token: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct StatusInfo<'a> {
    status: u8,
    #[asn1(optional = "true")]
    text: Option<Vec<Utf8StringRef<'a>>>,
    #[asn1(optional = "true")]
    failure: Option<der::asn1::BitStringRef<'a>>,
}

#[derive(Sequence)]
struct Info<'a> {
    version: u8,
    policy: ObjectIdentifier,
    imprint: Imprint<'a>,
    serial: Int,
    time: AnyRef<'a>,
    #[asn1(optional = "true")]
    accuracy: Option<Accuracy>,
    #[asn1(default = "Default::default")]
    ordering: bool,
    #[asn1(optional = "true")]
    nonce: Option<Int>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    authority: Option<AnyRef<'a>>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    extensions: Option<x509_cert::ext::Extensions>,
}

#[derive(Sequence)]
struct Accuracy {
    #[asn1(optional = "true")]
    seconds: Option<Int>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    millis: Option<Int>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    micros: Option<Int>,
}

#[derive(Sequence)]
struct Imprint<'a> {
    algorithm: AlgorithmIdentifierOwned,
    hash: &'a OctetStringRef,
}

/// SHA-256 of what a token is over, without verifying anything: to find the note that it belongs to.
pub fn imprint(bytes: &[u8]) -> Result<[u8; 32], TokenError> {
    let content = content(&signed_data(bytes)?)?;
    Ok(stamped(&Info::from_der(&content)?)?.0)
}

/// Verifies a token, given as an authority's response or alone. `pinned`: SHA-256 of the certificates of authorities that
/// are trusted.
pub fn verify(bytes: &[u8], pinned: &[[u8; 32]]) -> Result<Stamp, TokenError> {
    let data = signed_data(bytes)?;
    let content = content(&data)?;
    let (imprint, time) = stamped(&Info::from_der(&content)?)?;
    let [signer] = data.signer_infos.0.as_slice() else {
        return Err(TokenError::Form("it has not exactly one signer"));
    };
    let certificate = pinned_certificate(&data, pinned)?;
    check_attributes(signer, &content)?;
    check_certificate(&certificate, time)?;
    let attributes = signer.signed_attrs.as_ref().ok_or(TokenError::Form("it has no signed attributes"))?;
    if !holds(&certificate, signer, &attributes.to_der()?)? {
        return Err(TokenError::Signature);
    }
    Ok(Stamp { imprint, time, authority: certificate.tbs_certificate().subject().to_string() })
}

fn signed_data(bytes: &[u8]) -> Result<SignedData, TokenError> {
    let info = match Response::from_der(bytes) {
        // 0 granted, 1 granted with modifications.
        Ok(Response { status: StatusInfo { status: 0 | 1, .. }, token: Some(token) }) => {
            ContentInfo::from_der(&token.to_der()?)?
        }
        Ok(_) => return Err(TokenError::Refused),
        Err(_) => ContentInfo::from_der(bytes)?,
    };
    if info.content_type != SIGNED_DATA {
        return Err(TokenError::Form("it is not signed data"));
    }
    Ok(info.content.decode_as()?)
}

/// The encoded `TSTInfo`.
fn content(data: &SignedData) -> Result<Vec<u8>, TokenError> {
    let inner = &data.encap_content_info;
    let content = inner.econtent.as_ref().filter(|_| inner.econtent_type == TST_INFO);
    let content = content.ok_or(TokenError::Form("it holds no time stamp"))?;
    Ok(content.decode_as::<OctetString>()?.into_bytes().into_vec())
}

fn stamped(info: &Info<'_>) -> Result<([u8; 32], u64), TokenError> {
    if info.version != 1 {
        return Err(TokenError::Form("its version is not 1"));
    }
    if info.imprint.algorithm.oid != SHA_256 {
        return Err(TokenError::Form("it is over another hash than SHA-256"));
    }
    let hash = info.imprint.hash.as_bytes().try_into().map_err(|_| TokenError::Form("its hash has not 32 bytes"))?;
    let time = generalized_time(&info.time).ok_or(TokenError::Form("its time can't be read"))?;
    Ok((hash, time))
}

/// RFC 3161 allows fractions of a second, which are cut off.
fn generalized_time(time: &AnyRef<'_>) -> Option<u64> {
    let text = std::str::from_utf8(time.value()).ok().filter(|_| time.tag() == Tag::GeneralizedTime)?;
    let digits = text.strip_suffix('Z')?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = whole.len() == 14 && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", whole).ok().filter(|_| plain && !fraction.is_empty())?;
    u64::try_from(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second()).ok()
}

fn pinned_certificate(data: &SignedData, pinned: &[[u8; 32]]) -> Result<Certificate, TokenError> {
    let mut first = None;
    for choice in data.certificates.iter().flat_map(|set| set.0.iter()) {
        let CertificateChoices::Certificate(certificate) = choice else { continue };
        let hash: [u8; 32] = Sha256::digest(certificate.to_der()?).into();
        if pinned.contains(&hash) {
            return Ok(certificate.clone());
        }
        first = first.or(Some(hash));
    }
    Err(first.map_or(TokenError::NoCertificate, |hash| TokenError::Stranger(hex::encode(hash))))
}

/// The signed attributes must name what is signed: the type and the digest of the content.
fn check_attributes(signer: &SignerInfo, content: &[u8]) -> Result<(), TokenError> {
    let attributes = signer.signed_attrs.as_ref().ok_or(TokenError::Form("it has no signed attributes"))?;
    let value = |oid: ObjectIdentifier| -> Option<&Any> {
        let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
        let one = found.next().filter(|attribute| attribute.values.len() == 1)?;
        if found.next().is_some() { None } else { one.values.get(0) }
    };
    let missing = TokenError::Form("its signed attributes lack content type or digest");
    let kind: ObjectIdentifier = value(CONTENT_TYPE).ok_or(missing.clone())?.decode_as()?;
    let stated: OctetString = value(MESSAGE_DIGEST).ok_or(missing)?.decode_as()?;
    let digest = digest(&signer.digest_alg.oid, content)?;
    if kind == TST_INFO && stated.as_bytes() == digest { Ok(()) } else { Err(TokenError::Signature) }
}

fn digest(algorithm: &ObjectIdentifier, bytes: &[u8]) -> Result<Vec<u8>, TokenError> {
    match *algorithm {
        SHA_256 => Ok(Sha256::digest(bytes).to_vec()),
        SHA_384 => Ok(Sha384::digest(bytes).to_vec()),
        SHA_512 => Ok(Sha512::digest(bytes).to_vec()),
        _ => Err(TokenError::Form("its digest is neither SHA-256, SHA-384 nor SHA-512")),
    }
}

fn check_certificate(certificate: &Certificate, time: u64) -> Result<(), TokenError> {
    let tbs = certificate.tbs_certificate();
    let usage = tbs.extensions().into_iter().flatten().find(|extension| extension.extn_id == EXTENDED_KEY_USAGE);
    let usage = usage.ok_or(TokenError::Form("its certificate is not one for time stamps"))?;
    let usage = ExtendedKeyUsage::from_der(usage.extn_value.as_bytes())?;
    if usage.0 != [TIME_STAMPING] {
        return Err(TokenError::Form("its certificate is not one for time stamps alone"));
    }
    let validity = tbs.validity();
    let (from, to) =
        (validity.not_before.to_unix_duration().as_secs(), validity.not_after.to_unix_duration().as_secs());
    if (from..=to).contains(&time) { Ok(()) } else { Err(TokenError::Expired) }
}

/// Whether the signature over `message` is that of the certificate's key.
fn holds(certificate: &Certificate, signer: &SignerInfo, message: &[u8]) -> Result<bool, TokenError> {
    use p256::ecdsa::signature::hazmat::PrehashVerifier as _;

    let key = certificate.tbs_certificate().subject_public_key_info();
    let algorithm = match signer.signature_algorithm.oid {
        RSA => signer.digest_alg.oid,
        RSA_SHA_256 | ECDSA_SHA_256 => SHA_256,
        RSA_SHA_384 | ECDSA_SHA_384 => SHA_384,
        RSA_SHA_512 | ECDSA_SHA_512 => SHA_512,
        _ => return Err(TokenError::Form("its signature algorithm is neither RSA (PKCS #1 1.5) nor ECDSA")),
    };
    let is_rsa = [RSA, RSA_SHA_256, RSA_SHA_384, RSA_SHA_512].contains(&signer.signature_algorithm.oid);
    let digest = digest(&algorithm, message)?;
    let signature = signer.signature.as_bytes();
    let unreadable = |_| TokenError::Form("its certificate's key can't be read");
    if is_rsa && key.algorithm.oid == RSA {
        let key = rsa::PublicKey::from_public_key_der(&key.to_der()?)
            .map_err(|_| TokenError::Form("its certificate's key can't be read"))?;
        let padding = match algorithm {
            SHA_256 => rsa::Pkcs1v15Sign::new::<Sha256>(),
            SHA_384 => rsa::Pkcs1v15Sign::new::<Sha384>(),
            _ => rsa::Pkcs1v15Sign::new::<Sha512>(),
        };
        return Ok(key.verify(padding, &digest, signature).is_ok());
    }
    let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
    match curve.filter(|_| !is_rsa && key.algorithm.oid == EC) {
        Some(P256) => {
            let key =
                p256::ecdsa::VerifyingKey::from_sec1_bytes(key.subject_public_key.raw_bytes()).map_err(unreadable)?;
            Ok(p256::ecdsa::Signature::from_der(signature).is_ok_and(|sig| key.verify_prehash(&digest, &sig).is_ok()))
        }
        Some(P384) => {
            let key =
                p384::ecdsa::VerifyingKey::from_sec1_bytes(key.subject_public_key.raw_bytes()).map_err(unreadable)?;
            Ok(p384::ecdsa::Signature::from_der(signature).is_ok_and(|sig| key.verify_prehash(&digest, &sig).is_ok()))
        }
        _ => Err(TokenError::Form("its key is neither RSA nor on the curves P-256 or P-384")),
    }
}
