//! Requests that are signed with an access key, as the documents have it: HMAC-SHA1 of a text that the gateway makes of the
//! request. Here is what the server checks of it by itself: the signature, the time, and that the text is of a request which
//! leads to the call that was made.

use std::{collections::HashMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use belay_proto::{LONGEST_STRING_TO_SIGN, SIGNATURE_SCHEME};
use blake2::{Blake2s256, Digest};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{
    SignedDuration, Timestamp,
    fmt::rfc2822::{DateTimeParser, DateTimePrinter},
};
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;

use super::verifier::NotVerified;

/// Bytes of a signature.
const LENGTH: usize = 20;
/// Characters of an access key's id at the most.
const LONGEST_ID: usize = 64;
/// The documented prefix of every path, which may be left out.
const PREFIX: &str = "/api/v2";

/// What an `authorization` says: with which key, and the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown<'a> {
    pub(crate) key: &'a str,
    signature: [u8; LENGTH],
}

impl<'a> Shown<'a> {
    /// Reads `OCP-ACCESS-KEY-HMACSHA1 KEY:SIGNATURE`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(authorization: &'a str) -> Result<Self, NotVerified> {
        let wrong = NotVerified::MalformedSignature;
        let (scheme, value) = authorization
            .split_once(' ')
            .ok_or(wrong("`authorization` must be `OCP-ACCESS-KEY-HMACSHA1 KEY:SIGNATURE`"))?;
        if scheme != SIGNATURE_SCHEME {
            return Err(wrong("the one algorithm is `HMACSHA1`, in capital letters"));
        }
        let (key, signature) =
            value.trim().split_once(':').ok_or(wrong("there must be `:` after the key"))?;
        let good = |letter: u8| letter.is_ascii_alphanumeric() || b"._-".contains(&letter);
        if key.is_empty() || key.len() > LONGEST_ID || !key.bytes().all(good) {
            return Err(wrong("what stands before the `:` is no access key"));
        }
        let signature = BASE64_STANDARD.decode(signature).ok().and_then(|bytes| bytes.try_into().ok());
        let signature = signature.ok_or(wrong("the signature must be 20 bytes in base64"))?;
        Ok(Self { key, signature })
    }

    /// What key and signature are known by, in whatever way they were written.
    pub(crate) fn digest(&self) -> String {
        let bytes = Blake2s256::new().chain_update(self.signature).chain_update(self.key).finalize();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether the signature is that of a text under a secret. Takes as long wherever they differ.
    pub(crate) fn is_of(&self, text: &[u8], secret: &SecretString) -> bool {
        // A key of any length will do for an HMAC.
        let Ok(mut mac) = <Hmac<Sha1> as KeyInit>::new_from_slice(secret.expose_secret().as_bytes()) else {
            return false;
        };
        mac.update(text);
        mac.verify_slice(&self.signature).is_ok()
    }
}

/// What is said of a request in the text that is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    pub(crate) method: &'a str,
    pub(crate) date: Timestamp,
    /// Without the query.
    pub(crate) path: &'a str,
}

impl<'a> Statement<'a> {
    /// Reads the text: method, digest of the body, media type, time, host, headers, path and query, each in a line, and for
    /// the headers none or many.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(text: &'a [u8]) -> Result<Self, NotVerified> {
        let wrong = NotVerified::MalformedSignature;
        if text.len() > LONGEST_STRING_TO_SIGN {
            return Err(wrong("the text to sign is too long: shorten the query or the `x-ocp-` headers"));
        }
        let text = std::str::from_utf8(text).map_err(|_| wrong("the text to sign is not UTF-8"))?;
        let lines: Vec<_> = text.split('\n').collect();
        let [method, _md5, _media_type, date, host, _headers @ .., path] = &lines[..] else {
            return Err(wrong("the text to sign is not whole"));
        };
        if lines.len() < 7 || host.is_empty() || !path.starts_with('/') {
            return Err(wrong("the text to sign is not whole"));
        }
        let date = DateTimeParser::new().parse_timestamp(date).map_err(|_| {
            wrong("`Date` or `x-ocp-date` must be a time such as `Tue, 17 Jan 2023 09:13:57 GMT`")
        })?;
        let path = path.split('?').next().unwrap_or_default();
        Ok(Self { method, date, path })
    }

    /// Refuses a time that is too far from the server's.
    ///
    /// # Errors
    /// [`NotVerified::Skewed`], with the server's time.
    pub(crate) fn check_time(&self, now: Timestamp, skew: Duration) -> Result<(), NotVerified> {
        let most = SignedDuration::try_from(skew).unwrap_or(SignedDuration::MAX);
        // Whole seconds are all that a `Date` can say.
        let apart = SignedDuration::from_secs(now.as_second() - self.date.as_second());
        match apart.abs() <= most {
            true => Ok(()),
            false => Err(NotVerified::Skewed { apart, now: spoken(now), most: skew }),
        }
    }
}

impl Statement<'_> {
    /// From when on [`Self::check_time`] refuses it for its age.
    pub(crate) fn expires(&self, skew: Duration) -> Timestamp {
        let skew = SignedDuration::try_from(skew).unwrap_or(SignedDuration::MAX);
        // The whole of the last second is good.
        let good = SignedDuration::from_secs(skew.as_secs().saturating_add(1));
        self.date.saturating_add(good).unwrap_or(Timestamp::MAX)
    }
}

/// A time as `Date` has it.
fn spoken(time: Timestamp) -> String {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap_or_else(|_| time.to_string())
}

/// What a dry run of these orders asks instead.
const PLAN: &str = "/belay.v1.BatchService/PlanBatch";
const PLANNED: [&str; 3] = [
    "/belay.v1.BatchService/BatchStopHostAgents",
    "/belay.v1.BatchService/BatchStartHostAgents",
    "/belay.v1.BatchService/BatchRestartHostAgents",
];

/// Which requests lead to which call, from the contract.
#[derive(Debug)]
pub(crate) struct Paths {
    of: HashMap<String, Vec<(String, String)>>,
}

impl Paths {
    /// Reads the `google.api.http` options of the contract.
    pub(crate) fn of(pool: &DescriptorPool) -> Self {
        let mut of: HashMap<_, Vec<_>> = HashMap::new();
        let extension = pool.get_extension_by_name("google.api.http");
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let options = method.options();
            let Some(extension) = extension.as_ref().filter(|extension| options.has_extension(extension))
            else {
                continue;
            };
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            if let Value::Message(rule) = options.get_extension(extension).into_owned() {
                read_rule(&rule, of.entry(path).or_default());
            }
        }
        let planned: Vec<_> = PLANNED.iter().filter_map(|order| of.get(*order)).flatten().cloned().collect();
        of.entry(PLAN.to_owned()).or_default().extend(planned);
        Self { of }
    }

    /// Whether the call at `rpc` may come of this request. An order must be exactly what the contract says of it; what only
    /// reads may be shown by longer paths too, and by those that the contract does not name.
    pub(crate) fn lead_to(&self, rpc: &str, order: bool, request: &Statement<'_>) -> bool {
        let Some(routes) = self.of.get(rpc) else { return !order };
        let method = if request.method == "HEAD" { "GET" } else { request.method };
        routes.iter().any(|(verb, pattern)| {
            let bare = pattern.strip_prefix(PREFIX).unwrap_or(pattern);
            verb == method
                && [pattern.as_str(), bare].iter().any(|pattern| matches(pattern, request.path, !order))
        })
    }
}

fn read_rule(rule: &DynamicMessage, routes: &mut Vec<(String, String)>) {
    for verb in ["get", "put", "post", "delete", "patch"] {
        if let Some(Value::String(path)) = rule.get_field_by_name(verb).map(|value| value.into_owned())
            && !path.is_empty()
        {
            routes.push((verb.to_ascii_uppercase(), path));
        }
    }
    if let Some(Value::List(more)) =
        rule.get_field_by_name("additional_bindings").map(|value| value.into_owned())
    {
        for rule in &more {
            if let Value::Message(rule) = rule {
                read_rule(rule, routes);
            }
        }
    }
}

/// Whether a path is one of a pattern such as `/a/{b}/c`; where `longer`, it may go on after that.
fn matches(pattern: &str, path: &str, longer: bool) -> bool {
    let mut parts = path.split('/');
    for wanted in pattern.split('/') {
        match parts.next() {
            Some(part) if part == wanted || (wanted.starts_with('{') && !part.is_empty()) => {}
            _ => return false,
        }
    }
    longer || parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "2fc0c299cc94c6be266f2ceece765d4d";

    fn shown(signature: &str) -> String {
        format!("OCP-ACCESS-KEY-HMACSHA1 0a1b2c3d4e5f6071:{signature}")
    }

    #[track_caller]
    fn check_signature(text: &str, secret: &str, signature: &str) {
        let authorization = shown(signature);
        let shown = Shown::read(&authorization).expect("a signature");
        assert_eq!(shown.key, "0a1b2c3d4e5f6071");
        assert!(shown.is_of(text.as_bytes(), &secret.into()));
        assert!(!shown.is_of(text.as_bytes(), &format!("{secret}x").into()));
        assert!(!shown.is_of(format!("{text} ").as_bytes(), &secret.into()));
    }

    /// The vectors that the documents print.
    #[test]
    fn documented_signatures_are_right() {
        check_signature(
            "POST\n186974DB33A090A16D3E2CA35F547B56\napplication/json\nTue, 17 Jan 2023 09:13:57 GMT\n\
             ocp.alibaba.net:8080\nx-ocp-data:A,1\n/api/v2/compute/idcs",
            SECRET,
            "XN8P+O+v3vUabB16ZCooq5wMJoY=",
        );
        check_signature(
            "GET\n\napplication/json;charset=utf-8\nTue, 17 Jan 2023 04:14:02 GMT\nocp.alibaba.net:8080\n\n\
             /api/v2/compute/idcs?size=100",
            SECRET,
            "TsQD6HDOuZuJ409m0wdnZPmijlc=",
        );
    }

    /// Hazards S01 and S03.
    #[test]
    fn what_is_no_signature_is_refused() {
        for wrong in [
            "OCP-ACCESS-KEY-HMACSHA1",
            "OCP-ACCESS-KEY-HMACSHA1 ",
            "OCP-ACCESS-KEY-hmacsha1 a:TsQD6HDOuZuJ409m0wdnZPmijlc=",
            "OCP-ACCESS-KEY-HMACMD5 a:TsQD6HDOuZuJ409m0wdnZPmijlc=",
            "OCP-ACCESS-KEY-NONE a:",
            "OCP-ACCESS-KEY-HMACSHA1 :TsQD6HDOuZuJ409m0wdnZPmijlc=",
            "OCP-ACCESS-KEY-HMACSHA1 a",
            "OCP-ACCESS-KEY-HMACSHA1 a:",
            "OCP-ACCESS-KEY-HMACSHA1 a:AAAA",
            "OCP-ACCESS-KEY-HMACSHA1 ../etc/passwd:TsQD6HDOuZuJ409m0wdnZPmijlc=",
            "OCP-ACCESS-KEY-HMACSHA1 a' OR 1=1:TsQD6HDOuZuJ409m0wdnZPmijlc=",
            "OCP-ACCESS-KEY-HMACSHA1 a:TsQD6HDOuZuJ409m0wdnZPmijlc=:b",
        ] {
            assert!(matches!(Shown::read(wrong), Err(NotVerified::MalformedSignature(_))), "{wrong}");
        }
    }

    /// Hazard S23: a signature that is written in another way is the same.
    #[test]
    fn a_signature_is_known_however_it_is_written() {
        let digest = |text: &str| Shown::read(text).map(|shown| shown.digest());
        let known = digest("OCP-ACCESS-KEY-HMACSHA1 a:TsQD6HDOuZuJ409m0wdnZPmijlc=").expect("a signature");
        for same in [
            "OCP-ACCESS-KEY-HMACSHA1  a:TsQD6HDOuZuJ409m0wdnZPmijlc=",
            "OCP-ACCESS-KEY-HMACSHA1 a:TsQD6HDOuZuJ409m0wdnZPmijlc= ",
        ] {
            assert_eq!(digest(same).expect("a signature"), known, "{same}");
        }
        // The last letter has two bits that are not of the signature.
        assert!(digest("OCP-ACCESS-KEY-HMACSHA1 a:TsQD6HDOuZuJ409m0wdnZPmijld=").is_err());
        assert!(digest("OCP-ACCESS-KEY-HMACSHA1 a:TsQD6HDOuZuJ409m0wdnZPmijlc").is_err());
        let other = digest("OCP-ACCESS-KEY-HMACSHA1 b:TsQD6HDOuZuJ409m0wdnZPmijlc=").expect("a signature");
        assert_ne!(other, known);
    }

    #[test]
    fn a_text_says_when_and_what() {
        let text = "POST\n\n\nTue, 17 Jan 2023 09:13:57 GMT\nh:80\nx-ocp-a:1\nx-ocp-b:2\n/api/v2/x?b=1";
        let statement = Statement::read(text.as_bytes()).expect("whole");
        assert_eq!((statement.method, statement.path), ("POST", "/api/v2/x"));
        assert_eq!(statement.date.to_string(), "2023-01-17T09:13:57Z");
        for wrong in [
            "",
            "POST",
            "POST\n\n\nTue, 17 Jan 2023 09:13:57 GMT\nh:80\n/api/v2/x",
            "POST\n\n\nTue, 17 Jan 2023 09:13:57 GMT\n\n\n/api/v2/x",
            "POST\n\n\nTue, 17 Jan 2023 09:13:57 GMT\nh:80\n\napi/v2/x",
            "POST\n\n\n2023-01-17T09:13:57Z\nh:80\n\n/api/v2/x",
            "POST\n\n\n\nh:80\n\n/api/v2/x",
        ] {
            assert!(Statement::read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let long = format!(
            "GET\n\n\nTue, 17 Jan 2023 09:13:57 GMT\nh:80\n\n/x?{}",
            "a".repeat(LONGEST_STRING_TO_SIGN)
        );
        assert!(Statement::read(long.as_bytes()).is_err());
    }

    /// Hazard T01: a time on either side is refused from the same distance on, and the server's is told.
    #[test]
    fn a_time_too_far_away_is_refused_with_the_servers_time() {
        let text = "GET\n\n\nTue, 17 Jan 2023 09:13:57 GMT\nh:80\n\n/x";
        let statement = Statement::read(text.as_bytes()).expect("whole");
        let skew = Duration::from_secs(900);
        let at = |seconds: i64| {
            let now = Timestamp::from_second(statement.date.as_second() + seconds).expect("a time");
            statement.check_time(now, skew).map_err(|error| error.to_string())
        };
        assert_eq!((at(0), at(900), at(-900)), (Ok(()), Ok(()), Ok(())));
        for seconds in [901, -901, 86_400 * 400] {
            let told = at(seconds).expect_err("too far");
            assert!(told.contains(" 2023 ") || told.contains(" 2024 "), "{told}");
        }
        // Until then at least its signature must be remembered.
        let expires = statement.expires(skew);
        assert!(statement.check_time(expires, skew).is_err());
        assert!(statement.check_time(expires - SignedDuration::from_nanos(1), skew).is_ok());
        assert!(at(901).expect_err("late").contains("Tue, 17 Jan 2023 09:28:58 GMT"), "{:?}", at(901));
    }

    /// Hazard S15: what was signed to read is of no use to order, and an order only for what it says.
    #[test]
    fn a_signature_is_of_the_call_that_is_made() {
        let pool = DescriptorPool::decode(belay_proto::FILE_DESCRIPTOR_SET).expect("our own contract");
        let paths = Paths::of(&pool);
        let leads = |rpc: &str, order: bool, method: &'static str, path: &'static str| {
            let date = Timestamp::UNIX_EPOCH;
            paths.lead_to(rpc, order, &Statement { method, date, path })
        };
        let stop = "/belay.v1.HostAgentService/StopHostAgent";
        assert!(leads(stop, true, "POST", "/api/v2/compute/hosts/20/agent/stop"));
        assert!(leads(stop, true, "POST", "/compute/hosts/20/agent/stop"));
        for (method, path) in [
            ("GET", "/api/v2/compute/hosts/20/agent/stop"),
            ("POST", "/api/v2/compute/hosts/20/agent/start"),
            ("POST", "/api/v2/compute/hosts/20/agent/stop/now"),
            ("POST", "/api/v2/compute/hosts//agent/stop"),
            ("GET", "/api/v2/compute/hosts/20"),
            ("POST", "/"),
        ] {
            assert!(!leads(stop, true, method, path), "{method} {path}");
        }
        for path in ["planBatch", "batchStopAgents", "batchStartAgents", "batchRestartAgents"] {
            let path = format!("/api/v2/compute/hosts/{path}").leak();
            assert!(leads(PLAN, false, "POST", path), "{path}: a dry run asks for the plan");
        }
        let task = "/belay.v1.TaskService/GetTask";
        assert!(leads(task, false, "GET", "/api/v2/tasks/instances/7"));
        assert!(leads(task, false, "HEAD", "/tasks/instances/7"));
        assert!(leads(task, false, "GET", "/api/v2/tasks/instances/7/batch"), "shows a part of it");
        assert!(!leads(task, false, "GET", "/api/v2/compute/hosts/7"));
        let watch = "/belay.v1.TaskService/WatchTask";
        assert!(leads(watch, false, "GET", "/api/v2/tasks/instances/7/watch"));
        assert!(!leads(watch, false, "GET", "/api/v2/tasks/instances/7"));
        assert!(
            leads("/belay.v1.TaskService/WatchSubtaskLog", false, "GET", "/anything"),
            "has no route in the contract"
        );
        assert!(!leads("/belay.v1.TaskService/Unknown", true, "POST", "/anything"));
    }
}
