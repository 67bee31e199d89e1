//! `belay key`.

use belay_gateway::json;
use belay_proto::v1::{
    AccessKey, CreateAccessKeyRequest, DeleteAccessKeyRequest, DisableAccessKeyRequest,
    EnableAccessKeyRequest, ListAccessKeysRequest,
};
use clap::Subcommand;
use serde_json::json as object;

use super::Context;
use crate::{
    failure::Failure,
    output::{Format, Table, say},
    words,
};

/// What to do with the keys that REST requests are signed with.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a key, and print it with its secret, which is not shown again.
    #[command(after_help = "Examples:\n  belay key create\n  umask 077; belay -o json key create > key.json")]
    Create(Whose),
    /// List keys, each with when it was last used.
    #[command(after_help = "Examples:\n  belay key list\n  belay key list --of alice")]
    List(Whose),
    /// Refuse what is signed with a key from now on.
    #[command(after_help = "Example:\n  belay key disable 0a1b2c3d4e5f6071")]
    Disable(Which),
    /// Let a disabled key be used again.
    #[command(after_help = "Example:\n  belay key enable 0a1b2c3d4e5f6071")]
    Enable(Which),
    /// Delete a key for good.
    #[command(after_help = "Example:\n  belay key delete 0a1b2c3d4e5f6071")]
    Delete(Which),
}

/// Whose keys.
#[derive(Debug, clap::Args)]
pub(crate) struct Whose {
    /// Of this user, which needs ADMIN; without it, of the calling one.
    #[arg(long, value_name = "USER")]
    of: Option<String>,
}

/// Which key.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The key's id.
    id: String,
}

/// Does it.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Create(whose) => create(whose, context).await,
        Command::List(whose) => list(whose, context).await,
        Command::Disable(Which { id }) => {
            let request = DisableAccessKeyRequest { access_key_id: id };
            changed(context.client().await?.disable_access_key(request).await?.key, context)
        }
        Command::Enable(Which { id }) => {
            let request = EnableAccessKeyRequest { access_key_id: id };
            changed(context.client().await?.enable_access_key(request).await?.key, context)
        }
        Command::Delete(Which { id }) => {
            let request = DeleteAccessKeyRequest { access_key_id: id.clone() };
            context.client().await?.delete_access_key(request).await?;
            context.answer(|_| object!({"id": id}), || format!("access key `{id}` is deleted\n"))
        }
    }
}

async fn create(Whose { of }: Whose, context: &Context) -> Result<(), Failure> {
    let request = CreateAccessKeyRequest { user: of.unwrap_or_default() };
    let made = context.client().await?.create_access_key(request).await?;
    let key = made.key.ok_or_else(|| Failure::unknown("the server does not say which key it made"))?;
    if context.format == Format::Table {
        say("the secret is not shown again\n");
    }
    let text = format!("id      {}\nuser    {}\nsecret  {}\n", key.id, key.user, made.secret);
    context.answer(|zone| json::NewAccessKey::new(key, made.secret, zone), || text)
}

async fn list(Whose { of }: Whose, context: &Context) -> Result<(), Failure> {
    let request = ListAccessKeysRequest { user: of.unwrap_or_default() };
    let keys = context.client().await?.list_access_keys(request).await?.keys;
    let text = table(&keys);
    let one = |key, zone: &_| json::AccessKey::new(key, zone);
    context.answer(
        |zone| json::Listed { contents: keys.into_iter().map(|key| one(key, zone)).collect() },
        || text,
    )
}

fn changed(key: Option<AccessKey>, context: &Context) -> Result<(), Failure> {
    let key = key.ok_or_else(|| Failure::unknown("the server does not say how the key is now"))?;
    let text = table(std::slice::from_ref(&key));
    context.answer(|zone| json::AccessKey::new(key, zone), || text)
}

fn table(keys: &[AccessKey]) -> String {
    let mut table = Table::new(["ID", "USER", "ENABLED", "CREATED", "LAST USED"]);
    for key in keys {
        table.row([
            key.id.clone(),
            key.user.clone(),
            if key.enabled { "yes" } else { "no" }.to_owned(),
            words::time(key.create_time.as_ref()),
            words::time(key.last_used_time.as_ref()),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_with_when_it_was_last_used() {
        let key = AccessKey { id: "0a1b2c3d4e5f6071".into(), user: "kim".into(), ..AccessKey::default() };
        let text = table(&[key]);
        let row: Vec<_> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row, ["0a1b2c3d4e5f6071", "kim", "no", "-", "-"], "{text}");
    }
}
