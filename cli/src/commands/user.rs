//! `belay user`.

mod grant; // what users may
mod token; // their bearer tokens

use std::io::{self, IsTerminal, Read};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use belay_gateway::json;
use belay_proto::v1::{
    CreateUserRequest, DeleteUserRequest, Grant, ListUsersRequest, SetPasswordRequest, User,
};
use clap::Subcommand;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json as object;

use self::grant::{On, Role};
use super::Context;
use crate::{
    failure::Failure,
    output::Table,
    target::{Origin, Target},
    up,
    up_file::UpFile,
    words,
};

/// How much of stdin is read: far more than any password may have, so that the server refuses what is too long instead
/// of a part of it becoming the password.
const LONGEST_INPUT: u64 = 4096;

/// What to do with users.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List all users.
    #[command(after_help = "Example:\n  belay user list")]
    List,
    /// Add a user. Without `--password-stdin` a random password is made, and printed once.
    #[command(after_help = "Examples:\n  belay user add alice --role HOST_MANAGER\n  \
                      pass show belay | belay user add bob --role HOST_VIEWER --role TASK_VIEWER --password-stdin\n  \
                      belay user add eve --role HOST_OPERATOR --select team=a")]
    Add {
        /// The user's name.
        name: String,
        /// What the user may do; may be given more than once.
        #[arg(long = "role", required = true, value_enum, ignore_case = true, value_name = "ROLE")]
        roles: Vec<Role>,
        #[command(flatten)]
        on: On,
        /// Read the password from stdin.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Delete a user and every token of it.
    #[command(after_help = "Example:\n  belay user delete bob")]
    Delete {
        /// The user's name.
        name: String,
    },
    /// Set a password. Without `--password-stdin` a random one is made, and printed once.
    #[command(after_help = "Example:\n  belay user password alice")]
    Password {
        /// The user's name.
        name: String,
        /// Read the password from stdin.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Give a role to a user, from the next call on.
    #[command(after_help = "Examples:\n  belay user grant alice --role TASK_VIEWER\n  \
                      belay user grant alice --role HOST_OPERATOR --select team=a")]
    Grant(grant::Which),
    /// Take a role from a user, said as it was given.
    #[command(after_help = "Example:\n  belay user revoke alice --role HOST_OPERATOR --select team=a")]
    Revoke(grant::Which),
    /// Make, list and revoke bearer tokens.
    #[command(subcommand)]
    Token(token::Command),
}

/// Does it.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List => list(context).await,
        Command::Add { name, roles, on, password_stdin } => {
            let grants = roles.into_iter().map(|role| on.grant(role)).collect::<Result<_, _>>()?;
            add(name, grants, password_stdin, context).await
        }
        Command::Delete { name } => delete(name, context).await,
        Command::Password { name, password_stdin } => set_password(name, password_stdin, context).await,
        Command::Grant(which) => grant::give(which, context).await,
        Command::Revoke(which) => grant::take(which, context).await,
        Command::Token(command) => token::run(command, context).await,
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let users = context.client().await?.list_users(ListUsersRequest {}).await?.users;
    let text = table(&users);
    context.answer(
        |zone| json::Listed { contents: users.into_iter().map(|user| json::User::new(user, zone)).collect() },
        || text,
    )
}

async fn add(name: String, grants: Vec<Grant>, stdin: bool, context: &Context) -> Result<(), Failure> {
    let password = Password::choose(stdin)?;
    let request = CreateUserRequest {
        name,
        roles: Vec::new(),
        grants,
        password: password.secret.expose_secret().to_owned(),
    };
    let user = context.client().await?.create_user(request).await?.user;
    let user = user.ok_or_else(|| Failure::unknown("the server does not say which user it added"))?;
    let text = table(std::slice::from_ref(&user)) + &password.text();
    context.answer(|zone| password.with(object!(json::User::new(user, zone))), || text)
}

async fn delete(name: String, context: &Context) -> Result<(), Failure> {
    context.client().await?.delete_user(DeleteUserRequest { name: name.clone() }).await?;
    context.answer(|_| object!({"name": name}), || format!("user `{name}` is deleted\n"))
}

async fn set_password(name: String, stdin: bool, context: &Context) -> Result<(), Failure> {
    let password = Password::choose(stdin)?;
    let target = context.target()?;
    let secret = password.secret.expose_secret().to_owned();
    context.client().await?.set_password(SetPasswordRequest { name: name.clone(), password: secret }).await?;
    let kept = keep(&target, &name, &password.secret);
    let text = format!("the password of `{name}` is set\n{}", password.text());
    let printed = context.answer(|_| password.with(object!({"name": name})), || text);
    kept.and(printed)
}

/// Keeps `belay --data DIR` and the next `belay up` working after a new password for the user that they call as.
fn keep(target: &Target, name: &str, password: &SecretString) -> Result<(), Failure> {
    let Origin::Up(data) = &target.origin else {
        return Ok(());
    };
    let up = UpFile::load(data)?;
    if up.user != name {
        return Ok(());
    }
    up::keep_password(data, password)?;
    let password = password.clone();
    UpFile { password, ..up }.store(data)
}

fn table(users: &[User]) -> String {
    let mut table = Table::new(["ID", "NAME", "ROLES", "CREATED"]);
    for user in users {
        let everywhere = user.roles.iter().map(|role| words::role(*role));
        let roles: Vec<_> = everywhere.chain(user.grants.iter().map(grant::shown)).collect();
        table.row([
            user.id.to_string(),
            user.name.clone(),
            roles.join(" "),
            words::time(user.create_time.as_ref()),
        ]);
    }
    table.render()
}

/// A password to set, and whether this program made it and so has to tell it.
struct Password {
    secret: SecretString,
    made: bool,
}

impl Password {
    /// Reads it, or makes one of 144 random bits.
    fn choose(stdin: bool) -> Result<Self, Failure> {
        if stdin {
            return Ok(Self { secret: read_password()?, made: false });
        }
        let mut bytes = [0; 18];
        getrandom::fill(&mut bytes)
            .map_err(|error| Failure::caused("the system gives no random bytes", &error))?;
        Ok(Self { secret: URL_SAFE_NO_PAD.encode(bytes).into(), made: true })
    }

    fn text(&self) -> String {
        match self.made {
            true => format!("password: {} (it is not shown again)\n", self.secret.expose_secret()),
            false => String::new(),
        }
    }

    fn with(&self, mut answer: serde_json::Value) -> serde_json::Value {
        if self.made {
            answer["password"] = self.secret.expose_secret().into();
        }
        answer
    }
}

fn read_password() -> Result<SecretString, Failure> {
    if io::stdin().is_terminal() {
        return Err(Failure::usage("the password would show while you type it").hint(
            "send it through a pipe or from a file: `belay user password NAME --password-stdin < FILE`",
        ));
    }
    let mut text = String::new();
    io::stdin()
        .take(LONGEST_INPUT)
        .read_to_string(&mut text)
        .map_err(|error| Failure::caused("cannot read the password from stdin", &error))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_password_is_told_once_and_long_enough() {
        let (one, other) = (Password::choose(false).expect("made"), Password::choose(false).expect("made"));
        assert_ne!(one.secret.expose_secret(), other.secret.expose_secret());
        assert_eq!(one.secret.expose_secret().len(), 24);
        assert!(one.text().contains(one.secret.expose_secret()));
        assert_eq!(one.with(object!({}))["password"], one.secret.expose_secret());
        let read = Password { secret: "typed".to_owned().into(), made: false };
        assert_eq!((read.text(), read.with(object!({}))), (String::new(), object!({})));
    }
}
