//! The fleet's token: where plain text is spoken, who calls must show it, and so does the agent when it calls. And for which
//! agent a call is meant.

use std::hint::black_box;

use belay_proto::{Problem, Reason};
use secrecy::{ExposeSecret, SecretString};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

const AUTHORIZATION: &str = "authorization";
/// Names the agent that a call is meant for.
const MEANT_FOR: &str = "belay-agent";
const SCHEME: &str = "Bearer ";

/// Lets only calls through that show the fleet's token, and are not meant for another agent.
#[derive(Clone)]
pub(crate) struct RequireToken {
    /// `None` where the handshake has let only the server through.
    token: Option<SecretString>,
    identity: String,
}

impl RequireToken {
    /// Requires this token, for the agent of this identity.
    pub(crate) fn new(token: Option<SecretString>, identity: String) -> Self {
        Self { token, identity }
    }
}

impl Interceptor for RequireToken {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            let shown = request.metadata().get(AUTHORIZATION);
            let shown = shown.and_then(|value| value.as_bytes().strip_prefix(SCHEME.as_bytes()));
            match shown {
                Some(shown) if are_equal(shown, token.expose_secret().as_bytes()) => {}
                Some(_) => return Err(refused("the fleet's token is wrong")),
                None => return Err(refused("the fleet's token is missing")),
            }
        }
        match request.metadata().get(MEANT_FOR) {
            Some(other) if other.as_bytes() != self.identity.as_bytes() => Err(wrong_agent()),
            _ => Ok(request),
        }
    }
}

/// Shows the fleet's token with every call.
#[derive(Clone)]
pub(crate) struct ShowToken {
    value: Option<MetadataValue<Ascii>>,
}

impl ShowToken {
    /// Shows this token, where there is one. One that metadata can not carry is not shown, and the server says so.
    pub(crate) fn new(token: Option<&SecretString>) -> Self {
        let value = token.and_then(|token| format!("{SCHEME}{}", token.expose_secret()).parse().ok());
        let value = value.map(|mut value: MetadataValue<Ascii>| {
            value.set_sensitive(true);
            value
        });
        Self { value }
    }
}

impl Interceptor for ShowToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.value {
            request.metadata_mut().insert(AUTHORIZATION, value.clone());
        }
        Ok(request)
    }
}

fn wrong_agent() -> Status {
    Problem::new(Reason::WrongAgent, "this is the agent of another host; nothing was done")
        .hint("two agents report the same address: give each its own `advertise`")
        .into()
}

fn refused(what: &str) -> Status {
    Problem::new(Reason::Unauthenticated, what)
        .hint("send `authorization: Bearer TOKEN` with the token that all parts of the fleet share")
        .into()
}

/// Compares in a time that tells nothing but the length.
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    let different = one.iter().zip(other).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
    one.len() == other.len() && different == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(authorization: Option<&str>, allowed: bool) {
        let mut request = Request::new(());
        if let Some(value) = authorization {
            let value = value.parse().unwrap();
            request.metadata_mut().insert(AUTHORIZATION, value);
        }
        let result = RequireToken::new(Some("secret".into()), "a".into()).call(request);
        assert_eq!(result.is_ok(), allowed, "{authorization:?}");
        if let Err(status) = result {
            let problem = Problem::from_status(&status).unwrap();
            assert_eq!(problem.reason, Reason::Unauthenticated);
        }
    }

    #[test]
    fn only_the_token_opens() {
        check(Some("Bearer secret"), true);
        for wrong in ["Bearer secre", "Bearer secrets", "Bearer ", "secret", "Basic secret"] {
            check(Some(wrong), false);
        }
        check(None, false);
    }

    #[test]
    fn what_is_shown_opens() {
        let token = SecretString::from("secret");
        let request = ShowToken::new(Some(&token)).call(Request::new(())).unwrap();
        assert!(RequireToken::new(Some(token), "a".into()).call(request).is_ok());
    }

    /// Hazard A12, and the second thing that must always hold: an order for one host never has an effect on another.
    #[test]
    fn a_call_for_another_agent_is_refused() {
        let token = SecretString::from("secret");
        for (meant_for, allowed) in [("a", true), ("b", false), ("", false)] {
            let mut request = ShowToken::new(Some(&token)).call(Request::new(())).unwrap();
            request.metadata_mut().insert(MEANT_FOR, meant_for.parse().unwrap());
            let result = RequireToken::new(Some(token.clone()), "a".into()).call(request);
            let reason =
                result.err().and_then(|status| Problem::from_status(&status)).map(|told| told.reason);
            assert_eq!(reason, (!allowed).then_some(Reason::WrongAgent), "{meant_for}");
        }
    }
}
