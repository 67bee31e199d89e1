//! Bad certificates: each is refused (hazards S16 to S18, S20, S22). The good ones beside them are taken, so that it is the
//! fault that is refused.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, UnixTime};

use super::{Expected, Identity, NewKey, Papers, TrustDomain, read, verify};
use crate::HostId;

/// 2026-06-01: all that is good is good then.
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_780_272_000));

/// An authority with its key.
struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")
}

fn authority(name: &str, edit: impl Fn(&mut CertificateParams)) -> Authority {
    let mut parameters = CertificateParams::default();
    parameters.not_before = date_time_ymd(2026, 1, 1);
    parameters.not_after = date_time_ymd(2036, 1, 1);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    edit(&mut parameters);
    let key = key();
    let certificate = parameters.self_signed(&key).expect("made").der().clone();
    let issuer = Issuer::new(parameters, key);
    Authority { certificate, issuer }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().expect("ASCII"))
}

/// What is good for the agent of host 20 in its third generation.
fn parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.not_before = date_time_ymd(2026, 5, 1);
    parameters.not_after = date_time_ymd(2026, 7, 1);
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters.subject_alt_names = vec![uri("spiffe://fleet/host/20/3")];
    parameters.distinguished_name = DistinguishedName::new();
    parameters
}

fn leaf(by: &Authority, edit: impl Fn(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut parameters = parameters();
    edit(&mut parameters);
    parameters.signed_by(&key(), &by.issuer).expect("made").der().clone()
}

fn fleet() -> TrustDomain {
    TrustDomain::parse("fleet").expect("a domain")
}

fn host(id: i64, generation: u64) -> Identity {
    Identity::Host { id: HostId::try_from(id).expect("an id"), generation }
}

fn names(names: &'static [&'static str]) -> impl Fn(&mut CertificateParams) {
    move |parameters| parameters.subject_alt_names = names.iter().map(|name| uri(name)).collect()
}

fn server(parameters: &mut CertificateParams) {
    parameters.subject_alt_names = vec![uri("spiffe://fleet/server"), dns("belay.example")];
}

fn gateway(parameters: &mut CertificateParams) {
    parameters.subject_alt_names = vec![uri("spiffe://fleet/gateway/edge-1")];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

type Case = (&'static str, CertificateDer<'static>, Vec<CertificateDer<'static>>);

/// What is shown instead of what is good for host 20, generation 3.
fn bad(own: &Authority) -> Vec<Case> {
    let other = authority("other", |_| {});
    let same_name = authority("own", |_| {});
    let deep = authority("deep", |it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    // An authority below ours, which ours must not have.
    let below_key = key();
    let mut below = parameters();
    below.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    below.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    below.distinguished_name.push(DnType::CommonName, "below");
    let below_certificate = below.signed_by(&below_key, &own.issuer).expect("made").der().clone();
    let below = Authority { certificate: below_certificate, issuer: Issuer::new(below, below_key) };
    // A leaf that vouches as if it were an authority.
    let leaf_key = key();
    let mut leaf_parameters = parameters();
    leaf_parameters.distinguished_name.push(DnType::CommonName, "leaf");
    let leaf_certificate = leaf_parameters.signed_by(&leaf_key, &own.issuer).expect("made").der().clone();
    let vouching_leaf =
        Authority { certificate: leaf_certificate, issuer: Issuer::new(leaf_parameters, leaf_key) };

    let good = leaf(own, |_| {});
    let cut = |length: usize| CertificateDer::from(good[..length].to_vec());
    let flipped = |at: usize| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        CertificateDer::from(bytes)
    };
    let purposes =
        |purposes: Vec<ExtendedKeyUsagePurpose>| leaf(own, |it| it.extended_key_usages = purposes.clone());
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, EmailProtection, ServerAuth};
    let alone = |name, certificate| (name, certificate, Vec::new());
    vec![
        alone("ended", leaf(own, |it| it.not_after = date_time_ymd(2026, 5, 20))),
        alone(
            "ended long ago",
            leaf(own, |it| {
                it.not_before = date_time_ymd(1990, 1, 1);
                it.not_after = date_time_ymd(1991, 1, 1);
            }),
        ),
        alone("not yet good", leaf(own, |it| it.not_before = date_time_ymd(2026, 6, 20))),
        alone(
            "good in reverse",
            leaf(own, |it| {
                it.not_before = date_time_ymd(2026, 7, 1);
                it.not_after = date_time_ymd(2026, 5, 1);
            }),
        ),
        alone("of the server", leaf(own, server)),
        alone("of a gateway", leaf(own, gateway)),
        alone("of another host", leaf(own, names(&["spiffe://fleet/host/21/3"]))),
        alone("an older generation", leaf(own, names(&["spiffe://fleet/host/20/2"]))),
        alone("a later generation", leaf(own, names(&["spiffe://fleet/host/20/4"]))),
        alone("another fleet", leaf(own, names(&["spiffe://other/host/20/3"]))),
        alone("a fleet below", leaf(own, names(&["spiffe://x.fleet/host/20/3"]))),
        alone("a fleet in capitals", leaf(own, names(&["spiffe://FLEET/host/20/3"]))),
        alone("two URIs", leaf(own, names(&["spiffe://fleet/host/20/3", "spiffe://fleet/server"]))),
        alone(
            "the same URI twice",
            leaf(own, names(&["spiffe://fleet/host/20/3", "spiffe://fleet/host/20/3"])),
        ),
        alone("a URI of the web beside", leaf(own, names(&["spiffe://fleet/host/20/3", "https://x"]))),
        alone("no name", leaf(own, |it| it.subject_alt_names.clear())),
        alone("only a DNS name", leaf(own, |it| it.subject_alt_names = vec![dns("fleet")])),
        alone(
            "the name in the subject alone",
            leaf(own, |it| {
                it.subject_alt_names.clear();
                it.distinguished_name.push(DnType::CommonName, "spiffe://fleet/host/20/3");
            }),
        ),
        alone(
            "the URI as a DNS name",
            leaf(own, |it| it.subject_alt_names = vec![dns("spiffe://fleet/host/20/3")]),
        ),
        alone("a DNS name beside", leaf(own, |it| it.subject_alt_names.push(dns("belay.example")))),
        alone(
            "an address beside",
            leaf(own, |it| {
                it.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
            }),
        ),
        alone(
            "an e-mail beside",
            leaf(own, |it| {
                it.subject_alt_names.push(SanType::Rfc822Name("a@b.c".try_into().expect("ASCII")));
            }),
        ),
        alone("a wildcard of hosts", leaf(own, names(&["spiffe://fleet/host/*/3"]))),
        alone("a wildcard of generations", leaf(own, names(&["spiffe://fleet/host/20/*"]))),
        alone("a wildcard of fleets", leaf(own, names(&["spiffe://*/host/20/3"]))),
        alone("a slash more", leaf(own, names(&["spiffe://fleet/host/20/3/"]))),
        alone("a query", leaf(own, names(&["spiffe://fleet/host/20/3?x=1"]))),
        alone("a number in another spelling", leaf(own, names(&["spiffe://fleet/host/020/3"]))),
        alone("an escaped path", leaf(own, names(&["spiffe://fleet/host/2%30/3"]))),
        alone("an unknown role", leaf(own, names(&["spiffe://fleet/admin/20/3"]))),
        alone("no role", leaf(own, names(&["spiffe://fleet/20/3"]))),
        alone("another scheme", leaf(own, names(&["https://fleet/host/20/3"]))),
        alone("no purpose", purposes(vec![])),
        alone("for servers alone", purposes(vec![ServerAuth])),
        alone("for clients alone", purposes(vec![ClientAuth])),
        alone("for code", purposes(vec![CodeSigning])),
        alone("for more than its role", purposes(vec![ServerAuth, ClientAuth, EmailProtection])),
        alone("for anything", purposes(vec![Any])),
        alone("for anything beside", purposes(vec![ServerAuth, ClientAuth, Any])),
        alone(
            "a key for no signatures",
            leaf(own, |it| it.key_usages = vec![KeyUsagePurpose::KeyEncipherment]),
        ),
        alone("a key that vouches", leaf(own, |it| it.key_usages.push(KeyUsagePurpose::KeyCertSign))),
        alone("an authority", leaf(own, |it| it.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)))),
        alone(
            "an authority without bounds",
            leaf(own, |it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        alone("the authority itself", own.certificate.clone()),
        alone(
            "an unknown critical extension",
            leaf(own, |it| {
                let mut extension =
                    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
                extension.set_criticality(true);
                it.custom_extensions.push(extension);
            }),
        ),
        alone(
            "a second list of names",
            leaf(own, |it| {
                let again =
                    [0x30, 0x1b, 0x86, 0x19].into_iter().chain(*b"spiffe://fleet/host/20/3x").collect();
                it.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], again));
            }),
        ),
        alone("of another authority", leaf(&other, |_| {})),
        alone("of another authority of the same name", leaf(&same_name, |_| {})),
        ("of another authority, which is shown", leaf(&other, |_| {}), vec![other.certificate.clone()]),
        (
            "of an authority without bounds, which is shown",
            leaf(&deep, |_| {}),
            vec![deep.certificate.clone()],
        ),
        ("of an authority below ours", leaf(&below, |_| {}), vec![below.certificate.clone()]),
        ("of a leaf of ours", leaf(&vouching_leaf, |_| {}), vec![vouching_leaf.certificate.clone()]),
        alone("self-signed", {
            let parameters = parameters();
            parameters.self_signed(&key()).expect("made").der().clone()
        }),
        alone("self-signed with another kind of key", {
            let parameters = parameters();
            let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
            parameters.self_signed(&key).expect("made").der().clone()
        }),
        alone("nothing", CertificateDer::from(Vec::new())),
        alone("not DER", CertificateDer::from(b"-----BEGIN CERTIFICATE-----".to_vec())),
        alone("cut in half", cut(good.len() / 2)),
        alone("cut by a byte", cut(good.len() - 1)),
        alone("a byte more", CertificateDer::from([&good[..], &[0]].concat())),
        alone("another signature", flipped(good.len() - 1)),
        alone("another content", flipped(good.len() / 2)),
        alone("another version", flipped(12)),
    ]
}

/// Hazards S16 to S18.
#[test]
fn no_bad_certificate_is_taken() {
    let own = authority("own", |_| {});
    let authorities = [own.certificate.clone()];
    let meant = Expected::This(host(20, 3));
    for calls in [true, false] {
        let good = leaf(&own, |_| {});
        let taken = verify(&good, &[], &authorities, &fleet(), &meant, calls, NOW).expect("it is good");
        assert_eq!(taken.identity, host(20, 3));
        let cases = bad(&own);
        assert!(cases.len() >= 40, "{}", cases.len());
        for (name, certificate, others) in cases {
            let taken = verify(&certificate, &others, &authorities, &fleet(), &meant, calls, NOW);
            assert!(taken.is_err(), "`{name}` was taken (calls: {calls}): {taken:?}");
        }
    }
}

/// Hazards S14 and S17: one role is not another.
#[test]
fn a_role_is_taken_where_it_belongs_and_nowhere_else() {
    let own = authority("own", |_| {});
    let authorities = [own.certificate.clone()];
    let agent = |_: &mut CertificateParams| {};
    let check = |expected: &Expected, calls: bool, taken: [bool; 3]| {
        let shown = [leaf(&own, server), leaf(&own, gateway), leaf(&own, agent)];
        let got = shown.map(|one| verify(&one, &[], &authorities, &fleet(), expected, calls, NOW).is_ok());
        assert_eq!(got, taken, "{expected:?}, calls: {calls}");
    };
    check(&Expected::Server, true, [true, false, false]);
    check(&Expected::Server, false, [true, false, false]);
    check(&Expected::Member, true, [false, true, true]);
    check(&Expected::AnyHost, false, [false, false, true]);
    check(&Expected::This(host(20, 3)), false, [false, false, true]);
    check(&Expected::This(Identity::Server), false, [true, false, false]);
    let since = |id, generation| Expected::Since { host: HostId::try_from(id).expect("an id"), generation };
    for (meant, is_taken) in
        [(since(20, 3), true), (since(20, 0), true), (since(20, 4), false), (since(21, 3), false)]
    {
        check(&meant, false, [false, false, is_taken]);
    }
    // A gateway is never called.
    check(&Expected::Member, false, [false, false, true]);
}

/// Who shows the authority as well is told the same of another fleet.
#[test]
fn a_stranger_is_called_one() {
    let (own, other) = (authority("own", |_| {}), authority("other", |_| {}));
    let shown = leaf(&other, server);
    let authorities = [own.certificate];
    for others in [vec![], vec![other.certificate.clone()]] {
        let taken = verify(&shown, &others, &authorities, &fleet(), &Expected::Server, false, NOW);
        let told = taken.expect_err("refused").to_string();
        assert!(told.contains("it comes from another authority"), "{told}");
    }
}

/// Hazard S20: both are believed while one takes the place of the other, and then only that one.
#[test]
fn an_authority_is_believed_while_it_is_one() {
    let (old, new) = (authority("old", |_| {}), authority("new", |_| {}));
    let (of_old, of_new) = (leaf(&old, |_| {}), leaf(&new, |_| {}));
    let check = |authorities: &[&Authority], taken: [bool; 2]| {
        let authorities: Vec<_> = authorities.iter().map(|one| one.certificate.clone()).collect();
        let got = [&of_old, &of_new]
            .map(|one| verify(one, &[], &authorities, &fleet(), &Expected::Member, true, NOW).is_ok());
        assert_eq!(got, taken);
    };
    check(&[&old], [true, false]);
    check(&[&old, &new], [true, true]);
    check(&[&new], [false, true]);
    check(&[], [false, false]);
    let ended = authority("ended", |it| it.not_after = date_time_ymd(2026, 5, 10));
    check(&[&ended], [false, false]);
    let of_ended = leaf(&ended, |_| {});
    let taken = verify(&of_ended, &[], &[ended.certificate], &fleet(), &Expected::Member, true, NOW);
    assert!(taken.is_err(), "an authority that has ended vouches for nobody: {taken:?}");
}

/// 10,000 certificates with a few bytes changed, left out or repeated: none is taken.
#[test]
fn what_was_tampered_with_is_never_taken() {
    let own = authority("own", |_| {});
    let authorities = [own.certificate.clone()];
    let good = leaf(&own, |_| {});
    // A generator with a fixed seed: what fails once fails again.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).expect("small")).expect("small")
    };
    for round in 0..10_000 {
        let mut bytes = good.to_vec();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at] = u8::try_from(random(256)).expect("a byte"),
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, bytes[at]),
            }
        }
        if bytes == *good {
            continue;
        }
        let shown = CertificateDer::from(bytes);
        let _ = read(&shown);
        let taken = verify(&shown, &[], &authorities, &fleet(), &Expected::Member, true, NOW);
        assert!(taken.is_err(), "round {round}: {taken:?}");
    }
}

/// A certificate with the key of another one is found before it is shown.
#[test]
fn a_swapped_key_is_no_pair() {
    let own = authority("own", |_| {});
    let certificate = leaf(&own, |_| {});
    let other = NewKey::new().expect("a key").into_der();
    let told = Papers::new(vec![certificate], other, vec![own.certificate.clone()]).expect_err("no pair");
    assert!(told.to_string().contains("not that of the certificate"), "{told}");
}
