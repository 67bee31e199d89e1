//! `belay host token`: with what agents and gateways join.

use std::time::Duration;

use belay_proto::v1::{CreateJoinTokenRequest, JoinToken, ListJoinTokensRequest, RevokeJoinTokenRequest};
use clap::Subcommand;
use serde_json::{Value, json as object};

use super::super::Context;
use crate::{
    cli,
    failure::Failure,
    names,
    output::{Format, Table, say},
    words,
};

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a token with which an agent, or a gateway, joins the fleet once. It is not shown again.
    #[command(
        after_help = "Examples:\n  belay host token create\n  belay host token create --host web-1 --lifetime 10m\n  \
                      belay host token create --gateway edge-1"
    )]
    Create {
        /// For an agent that is to take the place of the one of this host, by id or name. Without it: for a new host.
        #[arg(long, value_name = "HOST", conflicts_with = "gateway")]
        host: Option<String>,
        /// For the gateway of this name, which needs ADMIN.
        #[arg(long, value_name = "NAME")]
        gateway: Option<String>,
        /// How long it is good. Default: 1h.
        #[arg(long, value_parser = cli::duration, value_name = "DURATION")]
        lifetime: Option<Duration>,
        /// Why, for the audit trail.
        #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
        reason: String,
    },
    /// List the tokens that are good still, without their secrets.
    #[command(after_help = "Example:\n  belay host token list")]
    List,
    /// Make a token worthless.
    #[command(after_help = "Example:\n  belay host token revoke 7")]
    Revoke {
        /// The token's id.
        id: i64,
        /// Why, for the audit trail.
        #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
        reason: String,
    },
}

/// Does it.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    match command {
        Command::Create { host, gateway, lifetime, reason } => {
            let host_id = match host {
                Some(host) => names::host(&client, Some(&host)).await?.id,
                None => 0,
            };
            let lifetime = lifetime.and_then(|lifetime| lifetime.try_into().ok());
            let request =
                CreateJoinTokenRequest { host_id, gateway: gateway.unwrap_or_default(), lifetime, reason };
            let made = client.create_join_token(request).await?;
            let known = made
                .join_token
                .ok_or_else(|| Failure::unknown("the server does not say which token it made"))?;
            if context.format == Format::Table {
                let until = words::time(known.expire_time.as_ref());
                say(&format!("good once, until {until}; it is not shown again\n"));
            }
            let mut told = json(&known);
            told["token"] = made.token.clone().into();
            context.answer(|_| told, || format!("{}\n", made.token))
        }
        Command::List => {
            let tokens = client.list_join_tokens(ListJoinTokensRequest {}).await?.join_tokens;
            let text = table(&tokens);
            context.answer(|_| object!({"contents": tokens.iter().map(json).collect::<Vec<_>>()}), || text)
        }
        Command::Revoke { id, reason } => {
            client.revoke_join_token(RevokeJoinTokenRequest { join_token_id: id, reason }).await?;
            context.answer(|_| object!({"id": id}), || format!("join token {id} is worthless now\n"))
        }
    }
}

fn whom(token: &JoinToken) -> String {
    match (token.host_id, &token.gateway[..]) {
        (0, "") => "a new host".to_owned(),
        (0, gateway) => format!("gateway {gateway}"),
        (host, _) => format!("host {host}"),
    }
}

fn table(tokens: &[JoinToken]) -> String {
    let mut table = Table::new(["ID", "FOR", "MADE BY", "CREATED", "UNTIL"]);
    for token in tokens {
        table.row([
            token.id.to_string(),
            whom(token),
            token.creator.clone(),
            words::time(token.create_time.as_ref()),
            words::time(token.expire_time.as_ref()),
        ]);
    }
    table.render()
}

fn json(token: &JoinToken) -> Value {
    object!({"id": token.id, "hostId": token.host_id, "gateway": token.gateway, "creator": token.creator})
}
