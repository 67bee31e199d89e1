use axum::{body::Body, extract::FromRequest};
use belay_proto::{Problem, Reason, v1::BatchOrder};
use http::{Request, header};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{is_told, wait_for};
use crate::extract::{
    AccessKeyBody, ApproveBody, BatchBody, CreateHostsBody, CreateTokenBody, CreateUserBody, DeleteHostsBody,
    IdcBody, Json, LabelsBody, MaintenanceBody, OrderBody, PasswordBody, PlanBody, ProfileBody,
    ReferenceBody, RestartBody, StopBody, Terms,
};

/// The body of a request and, in a line before it, a letter for its type and its media type. What is read of it says no more than
/// it says itself: nothing never comes to mean all.
pub fn bodies(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let Some(at) = rest.iter().position(|byte| *byte == b'\n') else { return };
    let sent = Sent { media_type: rest[..at].trim_ascii(), bytes: &rest[at + 1..] };
    match kind {
        b'a' => {
            if let Some(body) = sent.read::<OrderBody>() {
                assert!(body.dry_run.is_none() || sent.says("dryRun"));
                assert!(body.reason().is_empty() || sent.says("reason"));
            }
        }
        b'b' => {
            let Some(body) = sent.read::<RestartBody>() else { return };
            told(Terms::default().not_started_after(body.not_started_after.as_deref()));
            assert!(body.reason().is_empty() || sent.says("reason"));
        }
        b'c' => {
            let Some(wave) = sent.read::<ApproveBody>().and_then(|body| told(body.wave())) else { return };
            assert_eq!(wave != 0, sent.says("wave"));
        }
        b'd' => {
            let Some(body) = sent.read::<StopBody>() else { return };
            assert!(!body.force() || sent.says("force"));
        }
        b'e' => drop(sent.read::<LabelsBody>()),
        b'f' => {
            let Some(body) = sent.read::<MaintenanceBody>() else { return };
            assert_eq!(body.on.is_some(), sent.says("on"));
            assert_eq!(body.duration_seconds.is_some(), sent.says("durationSeconds"));
        }
        b'g' => {
            let Some(mut body) = sent.read::<CreateUserBody>() else { return };
            assert!(told(body.roles()).is_none_or(|roles| !roles.contains(&0)));
            assert!(told(body.take_grants()).is_none_or(|grants| grants.iter().all(|grant| grant.role != 0)));
        }
        b'h' => drop(sent.read::<PasswordBody>()),
        b'i' => {
            let lifetime = sent.read::<CreateTokenBody>().and_then(|body| told(body.lifetime_seconds()));
            assert!(lifetime.is_none_or(|lifetime| (lifetime != 0) == sent.says("lifetimeSeconds")));
        }
        b'j' => {
            let user = sent.read::<AccessKeyBody>().and_then(|body| told(body.user()));
            assert!(user.is_none_or(|user| !user.is_empty() == sent.says("user")));
        }
        b'k' => {
            if let Some(order) = sent.read::<BatchBody>().and_then(|body| told(body.order())) {
                check_batch(&order);
            }
        }
        b'l' => {
            if let Some((_, order)) = sent.read::<PlanBody>().and_then(|body| told(body.plan())) {
                check_batch(&order);
            }
        }
        b'm' => {
            let Some(order) = sent.read::<CreateHostsBody>().and_then(|body| told(body.order())) else {
                return;
            };
            assert!(sent.says("credentialId") || order.credential_id == 0);
            assert!(!sent.says("sshPort") || order.ssh_port != 0);
            assert!(!sent.says("agentPort") || order.agent_port != 0);
        }
        b'n' => {
            let Some(order) = sent.read::<DeleteHostsBody>().and_then(|body| told(body.order())) else {
                return;
            };
            let (hosts, force, _) = order;
            assert!(!hosts.is_empty() && (!force || sent.says("force")));
        }
        b'o' => drop(sent.read::<ProfileBody>()),
        b'p' => drop(sent.read::<ReferenceBody>()),
        b'q' => drop(sent.read::<IdcBody>()),
        b's' => keeps_the_secret(sent.bytes),
        _ => {}
    }
}

struct Sent<'a> {
    media_type: &'a [u8],
    bytes: &'a [u8],
}

impl Sent<'_> {
    /// Reads it; `None` where it is refused.
    fn read<T: DeserializeOwned>(&self) -> Option<T> {
        told(read(self.media_type, self.bytes.to_vec()))
    }

    /// Whether it has this key, with a value.
    fn says(&self, key: &str) -> bool {
        let value = serde_json::from_slice::<Value>(self.bytes).unwrap_or_default();
        value.get(key).is_some_and(|value| !value.is_null())
    }
}

fn read<T: DeserializeOwned>(media_type: &[u8], bytes: Vec<u8>) -> Result<T, Problem> {
    let request = Request::post("/").header(header::CONTENT_TYPE, media_type).body(Body::from(bytes));
    // HTTP itself refuses what is no header.
    let request = request.map_err(|_| Problem::new(Reason::UnsupportedMediaType, "no header"))?;
    let read = wait_for(Json::<T>::from_request(request, &()));
    read.map(|Json(body)| body).map_err(|refusal| refusal.problem().clone())
}

fn told<T>(read: Result<T, Problem>) -> Option<T> {
    read.inspect_err(is_told).ok()
}

fn check_batch(order: &BatchOrder) {
    let BatchOrder { host_ids, selector, rerun_of, plan_id, policy, confirm_hosts: _, reason: _, terms: _ } =
        order;
    let ways = [!host_ids.is_empty(), !selector.is_empty(), *rerun_of != 0, !plan_id.is_empty()];
    assert_eq!(ways.into_iter().filter(|said| *said).count(), 1, "{order:?}");
    let Some(policy) = policy else { return };
    assert!(!policy.waves.contains(&String::new()));
    for duration in [policy.healthy_for, policy.absent_wait].into_iter().flatten() {
        assert!(duration.seconds >= 0 && (0..1_000_000_000).contains(&duration.nanos), "{duration:?}");
    }
}

/// Whatever stands where a password should be, a refusal says nothing of it.
fn keeps_the_secret(bytes: &[u8]) {
    let Ok(secret) = serde_json::from_slice::<Value>(bytes) else { return };
    let refusal = |secret: &Value| {
        let body = json!({ "password": secret }).to_string().into_bytes();
        read::<PasswordBody>(b"application/json", body).map(|body| body.password)
    };
    match (refusal(&secret), refusal(&json!(1))) {
        (Ok(read), _) => assert_eq!(json!(read), secret),
        (Err(problem), known) => assert_eq!(Err(problem), known, "{secret}"),
    }
}
