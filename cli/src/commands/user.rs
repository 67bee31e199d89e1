//! `belay user`.

use std::{
    io::{self, IsTerminal, Read},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use belay_gateway::json;
use belay_proto::v1::{
    CreateTokenRequest, CreateUserRequest, DeleteUserRequest, ListUsersRequest, Role as WireRole,
    SetPasswordRequest, User,
};
use clap::{Subcommand, ValueEnum};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json as object;

use super::Context;
use crate::{
    cli,
    failure::Failure,
    output::{Format, Table, say},
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
                      pass show belay | belay user add bob --role HOST_VIEWER --role TASK_VIEWER --password-stdin")]
    Add {
        /// The user's name.
        name: String,
        /// What the user may do; may be given more than once.
        #[arg(long = "role", required = true, value_enum, ignore_case = true, value_name = "ROLE")]
        roles: Vec<Role>,
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
    /// Make a bearer token for the calling user, and print it once.
    #[command(
        after_help = "Example:\n  umask 077; belay user token --lifetime 8h > token; belay --token-file token ..."
    )]
    Token {
        /// How long it is good for: from 1m to 8760h (a year). Default: a day.
        #[arg(long, value_parser = cli::duration, value_name = "DURATION")]
        lifetime: Option<Duration>,
    },
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Role {
    /// Everything.
    Admin,
    /// Reads and orders hosts, agents and processes; reads tasks.
    HostManager,
    /// Reads hosts, agents and processes.
    HostViewer,
    /// Reads and orders tasks.
    TaskManager,
    /// Reads tasks.
    TaskViewer,
}

/// Does it.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List => list(context).await,
        Command::Add { name, roles, password_stdin } => add(name, roles, password_stdin, context).await,
        Command::Delete { name } => delete(name, context).await,
        Command::Password { name, password_stdin } => set_password(name, password_stdin, context).await,
        Command::Token { lifetime } => token(lifetime, context).await,
    }
}

impl From<Role> for WireRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::HostManager => Self::HostManager,
            Role::HostViewer => Self::HostViewer,
            Role::TaskManager => Self::TaskManager,
            Role::TaskViewer => Self::TaskViewer,
        }
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

async fn add(name: String, roles: Vec<Role>, stdin: bool, context: &Context) -> Result<(), Failure> {
    let password = Password::choose(stdin)?;
    let request = CreateUserRequest {
        name,
        roles: roles.into_iter().map(|role| WireRole::from(role) as i32).collect(),
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

async fn token(lifetime: Option<Duration>, context: &Context) -> Result<(), Failure> {
    let seconds = lifetime.map_or(0, |lifetime| lifetime.as_secs().max(1));
    let lifetime_seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let made = context.client().await?.create_token(CreateTokenRequest { lifetime_seconds }).await?;
    if context.format == Format::Table {
        say(&format!("good until {}; it is not shown again\n", words::time(made.expire_time.as_ref())));
    }
    let text = format!("{}\n", made.token);
    context.answer(|zone| json::Token::new(made, zone), || text)
}

fn table(users: &[User]) -> String {
    let mut table = Table::new(["ID", "NAME", "ROLES", "CREATED"]);
    for user in users {
        let roles: Vec<_> = user.roles.iter().map(|role| words::role(*role)).collect();
        table.row([
            user.id.to_string(),
            user.name.clone(),
            roles.join(","),
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

    #[test]
    fn roles_are_called_as_everywhere() {
        for (role, name) in
            [(Role::Admin, "ADMIN"), (Role::HostManager, "HOST_MANAGER"), (Role::TaskViewer, "TASK_VIEWER")]
        {
            assert_eq!(role.to_possible_value().expect("a value").get_name(), name);
            assert_eq!(words::role(WireRole::from(role) as i32), name);
        }
    }
}
