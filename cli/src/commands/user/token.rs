//! `belay user token`.

use std::time::Duration;

use belay_gateway::json;
use belay_proto::v1::{CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, Token};
use clap::Subcommand;
use serde_json::json as object;

use super::{
    Context,
    grant::{self, On, Role},
};
use crate::{
    cli,
    failure::Failure,
    output::{Format, Table, say},
    words,
};

/// What to do with bearer tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a token for the calling user, and print it once.
    #[command(after_help = "Examples:\n  \
                      umask 077; belay user token create --lifetime 8h > token; belay --token-file token ...\n  \
                      belay user token create --name nightly --role HOST_OPERATOR --select team=a")]
    Create(Create),
    /// List tokens that have not ended, each with when it was last used.
    #[command(after_help = "Examples:\n  belay user token list\n  belay user token list --of alice")]
    List {
        /// Of this user, which needs ADMIN; without it, of the calling one.
        #[arg(long, value_name = "USER")]
        of: Option<String>,
    },
    /// End a token at once, with every stream that it opened.
    #[command(after_help = "Example:\n  belay user token revoke 0a1b2c3d4e5f6071")]
    Revoke {
        /// The token's id.
        id: String,
    },
}

/// The token to make.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// How long it is good for: from 1m to 8760h (a year). Default: a day.
    #[arg(long, value_parser = cli::duration, value_name = "DURATION")]
    lifetime: Option<Duration>,
    /// What it is for.
    #[arg(long, default_value_t)]
    name: String,
    /// What it may do, of what you may; may be given more than once. All of that where it is not given.
    #[arg(long = "role", value_enum, ignore_case = true, value_name = "ROLE")]
    roles: Vec<Role>,
    #[command(flatten)]
    on: On,
}

/// Does it.
pub(super) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Create(create) => make(create, context).await,
        Command::List { of } => list(of, context).await,
        Command::Revoke { id } => {
            context.client().await?.revoke_token(RevokeTokenRequest { token_id: id.clone() }).await?;
            context.answer(|_| object!({"id": id}), || format!("token `{id}` is revoked\n"))
        }
    }
}

async fn make(create: Create, context: &Context) -> Result<(), Failure> {
    let Create { lifetime, name, roles, on } = create;
    if roles.is_empty() && on.is_said() {
        return Err(Failure::usage("hosts are named, and no role")
            .hint("say with `--role` what the token may do there"));
    }
    let seconds = lifetime.map_or(0, |lifetime| lifetime.as_secs().max(1));
    let lifetime_seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let grants = roles.into_iter().map(|role| on.grant(role)).collect::<Result<_, _>>()?;
    let request = CreateTokenRequest { lifetime_seconds, name, grants };
    let made = context.client().await?.create_token(request).await?;
    if context.format == Format::Table {
        let (id, until) = (&made.token_id, words::time(made.expire_time.as_ref()));
        say(&format!("token {id}, good until {until}; it is not shown again\n"));
    }
    let text = format!("{}\n", made.token);
    context.answer(|zone| json::NewToken::new(made, zone), || text)
}

async fn list(of: Option<String>, context: &Context) -> Result<(), Failure> {
    let request = ListTokensRequest { user: of.unwrap_or_default() };
    let tokens = context.client().await?.list_tokens(request).await?.tokens;
    let text = table(&tokens);
    let one = |token, zone: &_| json::Token::new(token, zone);
    context.answer(
        |zone| json::Listed { contents: tokens.into_iter().map(|token| one(token, zone)).collect() },
        || text,
    )
}

fn table(tokens: &[Token]) -> String {
    let mut table = Table::new(["ID", "USER", "NAME", "MAY", "CREATED", "ENDS", "LAST USED"]);
    for token in tokens {
        let may: Vec<_> = token.grants.iter().map(grant::shown).collect();
        table.row([
            token.id.clone(),
            token.user.clone(),
            if token.name.is_empty() { "-".to_owned() } else { token.name.clone() },
            if token.narrowed { may.join(" ") } else { "all that its user may".to_owned() },
            words::time(token.create_time.as_ref()),
            words::time(token.expire_time.as_ref()),
            words::time(token.last_used_time.as_ref()),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use belay_proto::v1::{Grant, Role as WireRole};

    use super::*;

    #[test]
    fn a_token_is_shown_with_what_it_may() {
        let grants = vec![Grant { role: WireRole::HostViewer.into(), host_ids: vec![7], ..Grant::default() }];
        let narrowed = Token {
            id: "0a1b2c3d4e5f6071".into(),
            user: "kim".into(),
            narrowed: true,
            grants,
            ..Token::default()
        };
        let text = table(&[narrowed]);
        let row: Vec<_> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row, ["0a1b2c3d4e5f6071", "kim", "-", "HOST_VIEWER@7", "-", "-", "-"], "{text}");
    }
}
