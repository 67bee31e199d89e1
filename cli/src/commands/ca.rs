//! `belay ca`: the authority that vouches for the parts of the fleet, and its replacement.

use belay_proto::v1::{Authorities, AuthorityPhase, GetAuthoritiesRequest, RotateAuthorityRequest};
use clap::Subcommand;
use serde_json::{Value, json as object};

use super::Context;
use crate::{
    failure::Failure,
    output::{Table, fields},
    words,
};

/// What to do with the authority of the fleet.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show who vouches for the parts of the fleet, and how far the replacement is.
    #[command(after_help = "Examples:\n  belay ca status\n  belay ca status --pem > ca.pem")]
    Status {
        /// Print only the certificates that users are to believe, in PEM.
        #[arg(long)]
        pem: bool,
    },
    /// Take the next step of replacing the authority; three of them replace it: a new one is believed beside the old one, the
    /// new one vouches, the old one is forgotten. Each is refused while it would cut a part off.
    #[command(after_help = "Example:\n  belay ca rotate --reason \"yearly\"")]
    Rotate {
        /// Also where parts are cut off by it: each must join again then.
        #[arg(long)]
        force: bool,
        /// Why, for the audit trail.
        #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
        reason: String,
    },
}

/// Does it.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let (authorities, pem) = match command {
        Command::Status { pem } => (client.get_authorities(GetAuthoritiesRequest {}).await?.authorities, pem),
        Command::Rotate { force, reason } => {
            (client.rotate_authority(RotateAuthorityRequest { force, reason }).await?.authorities, false)
        }
    };
    let authorities =
        authorities.ok_or_else(|| Failure::unknown("the server does not say how the authorities stand"))?;
    if pem {
        let all = authorities.authorities.iter().map(|one| &one.certificate[..]).collect::<String>();
        return context.answer(|_| object!({"pem": all.clone()}), || all.clone());
    }
    context.answer(|_| json(&authorities), || text(&authorities))
}

fn phase(authorities: &Authorities) -> (&'static str, &'static str) {
    match AuthorityPhase::try_from(authorities.phase) {
        Ok(AuthorityPhase::One) => ("ONE", "`belay ca rotate` introduces a new one, which cuts nobody off"),
        Ok(AuthorityPhase::Introduced) => (
            "INTRODUCED",
            "give users the new file (`belay ca status --pem`); then `belay ca rotate` lets the new one vouch",
        ),
        Ok(AuthorityPhase::Switched) => ("SWITCHED", "`belay ca rotate` forgets the old one"),
        Ok(AuthorityPhase::Unspecified) | Err(_) => ("UNKNOWN", "bring this program up to date"),
    }
}

fn text(authorities: &Authorities) -> String {
    let (phase, next) = phase(authorities);
    let behind = match authorities.behind_count {
        0 => "nobody".to_owned(),
        count => {
            let some: Vec<_> = authorities.behind.iter().take(10).map(String::as_str).collect();
            let more = if count > 10 { ", ..." } else { "" };
            format!("{count}: {}{more}", some.join(", "))
        }
    };
    let told = fields([
        ("fleet", authorities.trust_domain.clone()),
        ("phase", phase.to_owned()),
        ("next", next.to_owned()),
        ("waits for", behind),
    ]);
    let mut table = Table::new(["FINGERPRINT (SHA-256)", "VOUCHES", "SINCE", "UNTIL"]);
    for one in &authorities.authorities {
        table.row([
            one.fingerprint.clone(),
            if one.signs { "yes" } else { "no" }.to_owned(),
            words::time(one.begin_time.as_ref()),
            words::time(one.end_time.as_ref()),
        ]);
    }
    format!("{told}\n{}", table.render())
}

fn json(authorities: &Authorities) -> Value {
    let all: Vec<_> = authorities
        .authorities
        .iter()
        .map(|one| object!({"fingerprint": one.fingerprint, "signs": one.signs, "certificate": one.certificate}))
        .collect();
    object!({
        "phase": phase(authorities).0,
        "trustDomain": authorities.trust_domain,
        "authorities": all,
        "behind": authorities.behind,
        "behindCount": authorities.behind_count,
    })
}
