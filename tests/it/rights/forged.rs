//! Credentials that nobody was given: made up, changed, taken from another place, or of before.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use belay_proto::{
    Problem, Reason,
    v1::{CreateTokenRequest, ListHostsRequest, Role, host_service_client::HostServiceClient},
};
use belay_tests::{Client, Fleet, Signer, Wire, basic};
use http::StatusCode;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config as Cases, TestRunner},
};
use tokio::task::JoinSet;
use tonic::{
    Request, Status,
    metadata::{AsciiMetadataValue, MetadataValue},
    transport::Channel,
};

use super::{add_user, everywhere, password};
use crate::fleet;

const HOSTS: &str = "/api/v2/compute/hosts";

async fn list(channel: &Channel, values: &[AsciiMetadataValue]) -> Result<(), Status> {
    let mut request = Request::new(ListHostsRequest::default());
    for value in values {
        request.metadata_mut().append("authorization", value.clone());
    }
    HostServiceClient::new(channel.clone()).list_hosts(request).await.map(drop)
}

/// Refused before anything was looked up of what the call is about; guesses that are too many are not even tried.
#[track_caller]
fn check_refused(what: &str, ended: &Result<(), Status>) {
    let status = ended.as_ref().err().unwrap_or_else(|| panic!("accepted: {what}"));
    let problem = Problem::from_status(status);
    let reason = problem.as_ref().map(|problem| problem.reason);
    assert!(
        matches!(reason, Some(Reason::Unauthenticated | Reason::RateLimited | Reason::Overloaded)),
        "{what}: {status:?}"
    );
}

fn basic_of(bytes: &[u8]) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(bytes))
}

fn jwt(header: &str, claims: &str, signature: &str) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    format!("Bearer {header}.{claims}.{signature}")
}

/// A token that is good, another one, and an access key with its secret.
struct Good {
    token: String,
    id: String,
    key: String,
    secret: String,
}

async fn good(fleet: &Fleet, kim: &Wire) -> Good {
    let made = kim.users().create_token(CreateTokenRequest::default()).await.expect("made").into_inner();
    let client = fleet.anyone().user("kim", &password("kim"));
    let key = client.post("/api/v2/iam/accessKeys").await;
    let text = |name: &str| key.data()[name].as_str().expect("a text").to_owned();
    Good { token: made.token, id: made.token_id, key: text("id"), secret: text("secret") }
}

/// What might be taken for a credential, each with what is wrong with it.
fn forged(fleet: &Fleet, good: &Good) -> Vec<(&'static str, String)> {
    let Good { token, id, key, secret } = good;
    let password = password("kim");
    let claims = r#"{"sub":"admin","iss":"belay","exp":4102444800,"roles":["ADMIN"]}"#;
    let reversed: String = token.chars().rev().collect();
    let (half, rest) = token.split_at(token.len() / 2);
    let other_case: String = token
        .chars()
        .map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
        .collect();
    let signed = Signer::new(key, secret);
    let (right, _) = signed.signed_text("GET", "belay", HOSTS);
    let (wrong, _) = Signer::new(key, "0123456789abcdef0123456789abcdef").signed_text("GET", "belay", HOSTS);
    let fleet_token = fleet.token();
    vec![
        ("nothing", String::new()),
        ("a blank", " ".into()),
        ("a scheme alone", "Basic".into()),
        ("a scheme and a blank", "Basic ".into()),
        ("a scheme alone", "Bearer".into()),
        ("a scheme and a blank", "Bearer ".into()),
        ("no scheme", token.clone()),
        ("another scheme", format!("Token {token}")),
        ("another scheme", format!("Digest username=\"kim\", response=\"{token}\"")),
        ("another scheme", format!("Negotiate {token}")),
        ("another scheme", format!("Belay {token}")),
        ("two schemes", format!("Basic Bearer {token}")),
        ("two schemes", format!("Bearer Bearer {token}")),
        ("no blank", format!("Bearer{token}")),
        ("a comma", format!("Bearer, {token}")),
        ("a list", format!("Bearer {token}, Bearer {token}")),
        ("twice", format!("Bearer {token} {token}")),
        ("quoted", format!("Bearer \"{token}\"")),
        ("as a parameter", format!("Bearer token={token}")),
        ("in base64", format!("Bearer {}", BASE64_STANDARD.encode(token))),
        ("escaped", format!("Bearer %62{}", &token[1..])),
        ("backwards", format!("Bearer {reversed}")),
        ("in the other case", format!("Bearer {other_case}")),
        ("the first half", format!("Bearer {half}")),
        ("the second half", format!("Bearer {rest}")),
        ("turned round", format!("Bearer {rest}{half}")),
        ("without its last letter", format!("Bearer {}", &token[..token.len() - 1])),
        ("without its first letter", format!("Bearer {}", &token[1..])),
        ("with a letter more", format!("Bearer {token}A")),
        ("with a letter before", format!("Bearer A{token}")),
        ("without its prefix", format!("Bearer {}", token.trim_start_matches("belay_"))),
        ("the prefix alone", "Bearer belay_".into()),
        ("its id", format!("Bearer {id}")),
        ("its id with the prefix", format!("Bearer belay_{id}")),
        ("a pattern", "Bearer %".into()),
        ("a pattern", "Bearer belay_%".into()),
        ("SQL", "Bearer ' OR '1'='1".into()),
        ("SQL", format!("Bearer {token}' --")),
        ("a path", "Bearer ../../server/fleet.token".into()),
        ("the fleet's token", format!("Bearer {fleet_token}")),
        ("the secret of a key", format!("Bearer {secret}")),
        ("a key", format!("Bearer {key}")),
        ("key and secret", format!("Bearer {key}:{secret}")),
        ("very long", format!("Bearer {}", "a".repeat(4000))),
        ("too long", format!("Bearer {}", "a".repeat(8000))),
        ("a JWT without a signature", jwt(r#"{"alg":"none"}"#, claims, "")),
        ("a JWT without a signature", jwt(r#"{"alg":"None","typ":"JWT"}"#, claims, "")),
        ("a JWT with a weak key", jwt(r#"{"alg":"HS256"}"#, claims, "c2VjcmV0")),
        ("a JWT of the wrong kind", jwt(r#"{"alg":"RS256"}"#, claims, &"A".repeat(342))),
        ("a JWT with a path", jwt(r#"{"alg":"HS256","kid":"../../dev/null"}"#, claims, "AAAA")),
        ("a JWT with SQL", jwt(r#"{"alg":"HS256","kid":"x' UNION SELECT 'k"}"#, claims, "AAAA")),
        (
            "a JWT with a key elsewhere",
            jwt(r#"{"alg":"RS256","jku":"http://127.0.0.1:1/k"}"#, claims, "AAAA"),
        ),
        (
            "a JWT with its key",
            jwt(r#"{"alg":"RS256","jwk":{"kty":"RSA","n":"AQ","e":"AQ"}}"#, claims, "AAAA"),
        ),
        ("a JWT with two subjects", jwt(r#"{"alg":"none"}"#, r#"{"sub":"kim","sub":"admin"}"#, "")),
        ("no colon", basic_of(b"kim")),
        ("no password", basic_of(b"kim:")),
        ("no name", basic_of(format!(":{password}").as_bytes())),
        ("neither", basic_of(b":")),
        ("nothing", basic_of(b"")),
        ("another's password", basic("admin", &password)),
        ("another's password", basic("kim", fleet.password())),
        ("a token as a password", basic("kim", token)),
        ("a token as a name", basic(token, "")),
        ("a secret as a password", basic("kim", secret)),
        ("a key and its secret", basic(key, secret)),
        ("in the other case", basic("KIM", &password)),
        ("a blank in the name", basic("kim ", &password)),
        ("a NUL in the name", basic("kim\0", &password)),
        ("a NUL in the password", basic("kim", &format!("{password}\0"))),
        ("a line more", basic("kim", &format!("{password}\n"))),
        ("a password that begins so", basic("kim", &format!("{password}x"))),
        ("a password cut short", basic("kim", &password[..password.len() - 1])),
        ("a name that looks so", basic("kіm", &password)),
        ("no UTF-8", basic_of(&[0xff, 0xfe, b':', b'x'])),
        ("no base64", "Basic kim:password".into()),
        ("other base64", format!("Basic {}", BASE64_URL_SAFE_NO_PAD.encode(format!("kim:{password}?>")))),
        ("a blank in base64", basic("kim", &password).replace("Basic a2lt", "Basic a2lt ")),
        ("not filled up", basic("kim", &password).trim_end_matches('=').to_owned()),
        ("a pattern", basic("%", &password)),
        ("SQL", basic("kim' --", &password)),
        ("a signature round the gateway", right.clone()),
        ("a wrong signature", wrong),
        ("a signature without a key", "OCP-ACCESS-KEY-HMACSHA1 :AAAA".into()),
        ("a key without a signature", format!("OCP-ACCESS-KEY-HMACSHA1 {key}:")),
        ("a key alone", format!("OCP-ACCESS-KEY-HMACSHA1 {key}")),
        ("another kind of signature", right.replace("HMACSHA1", "HMACSHA256")),
        ("no kind of signature", right.replace("HMACSHA1", "NONE")),
        ("two signatures", format!("{right}, {right}")),
    ]
}

/// Hazards S01, S02 and S03.
#[tokio::test]
async fn what_nobody_was_given_is_not_accepted() {
    let fleet = fleet(vec![]).await;
    let kim = add_user(&fleet, "kim", vec![everywhere(Role::Admin)]).await;
    let good = good(&fleet, &kim).await;
    let channel = fleet.channel();
    let value = |text: &str| AsciiMetadataValue::try_from(text.as_bytes()).expect("a value");
    let bearer = format!("Bearer {}", good.token);
    list(&channel, &[value(&bearer)]).await.expect("it is good");
    let forged = forged(&fleet, &good);
    assert!(forged.len() >= 60, "{}", forged.len());
    for (what, authorization) in &forged {
        check_refused(what, &list(&channel, &[value(authorization)]).await);
    }
    // Two are none, also where one of them, or each, is good.
    let both = [value(&bearer), value(&bearer)];
    check_refused("two", &list(&channel, &both).await);
    check_refused("none", &list(&channel, &[]).await);
    let raw = MetadataValue::try_from(&b"Bearer \xff\xfe"[..]).expect("a value");
    check_refused("no text", &list(&channel, &[raw]).await);
    list(&channel, &[value(&bearer)]).await.expect("it is good still");

    // The same through the gateway; the admin of agents is no user, and a user is no agent.
    for (what, authorization) in &forged {
        let Ok(header) = http::HeaderValue::from_str(authorization) else { continue };
        let client = fleet.anyone().header("authorization", header.to_str().unwrap_or_default());
        let answer = client.get(HOSTS).await;
        assert!(
            [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS].contains(&answer.status)
                || is_for_the_gateway(&answer.status, authorization),
            "{what}: {}",
            answer.text
        );
    }
}

/// The gateway refuses heads that are too large by itself.
fn is_for_the_gateway(status: &StatusCode, authorization: &str) -> bool {
    *status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE && authorization.len() > 4096
}

/// One change of a text of letters that may be in it: one put in the place of another, added, taken out, or two that change
/// places.
fn changed() -> impl Strategy<Value = (u8, usize, usize, char)> {
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').chain('0'..='9').chain("_-+/=.:".chars()).collect();
    (0..4_u8, any::<usize>(), any::<usize>(), proptest::sample::select(letters))
}

fn change(text: &str, (how, at, other, letter): (u8, usize, usize, char)) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let (at, other) = (at % letters.len(), other % letters.len());
    match how {
        0 => letters[at] = letter,
        1 => letters.insert(at, letter),
        2 => drop(letters.remove(at)),
        _ => letters.swap(at, other),
    }
    letters.into_iter().collect()
}

/// So many credentials are tried at a time.
const AT_ONCE: usize = 32;

/// 10,000 credentials that differ from a good one by one to three letters: none is accepted (hazard S03).
#[tokio::test]
async fn what_is_changed_is_not_accepted() {
    let fleet = fleet(vec![]).await;
    let kim = add_user(&fleet, "kim", vec![everywhere(Role::Admin)]).await;
    let good = good(&fleet, &kim).await;
    let mut runner = TestRunner::new_with_rng(
        Cases::default(),
        prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    let mut mutate = |text: &str| loop {
        let changes =
            prop::collection::vec(changed(), 1..=3).new_tree(&mut runner).expect("changes").current();
        let mutated = changes.into_iter().fold(text.to_owned(), |text, how| change(&text, how));
        if mutated != text {
            return mutated;
        }
    };
    let name_and_password = BASE64_STANDARD.encode(format!("kim:{}", password("kim")));
    let mut guesses: Vec<String> = (0..8_400).map(|_| format!("Bearer {}", mutate(&good.token))).collect();
    guesses.extend((0..600).map(|_| format!("Basic {}", mutate(&name_and_password))));
    let keys: Vec<Signer> = (0..1_000)
        .map(|number| match number % 2 {
            0 => Signer::new(&mutate(&good.key).replace(':', "0"), &good.secret),
            _ => Signer::new(&good.key, &mutate(&good.secret)),
        })
        .collect();
    assert_eq!(guesses.len() + keys.len(), 10_000);

    let channel = fleet.channel();
    for some in guesses.chunks(AT_ONCE) {
        let mut calls = JoinSet::new();
        for guess in some {
            let (channel, guess) = (channel.clone(), guess.clone());
            calls.spawn(async move {
                let value = AsciiMetadataValue::try_from(guess.as_bytes()).expect("a value");
                let ended = list(&channel, &[value]).await;
                (guess, ended)
            });
        }
        for (guess, ended) in calls.join_all().await {
            check_refused(&guess, &ended);
        }
    }
    for some in keys.chunks(AT_ONCE) {
        let mut calls = JoinSet::new();
        for signer in some {
            let client: Client = fleet.anyone().signed(signer.clone());
            calls.spawn(async move { client.get(HOSTS).await });
        }
        for answer in calls.join_all().await {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text);
        }
    }
    let signed = fleet.anyone().signed(Signer::new(&good.key, &good.secret)).get(HOSTS).await;
    assert_eq!(signed.status, StatusCode::OK, "what they were made of is good: {}", signed.text);
    let bearer = fleet.wire_with(&format!("Bearer {}", good.token));
    bearer.hosts().list_hosts(ListHostsRequest::default()).await.expect("and so is this");
}
