use std::{fs, path::PathBuf};

use secrecy::ExposeSecret;

use super::*;
use crate::up_file::Lock;

/// A folder with a running `belay up`, a file of profiles and a file of a password.
struct Fixture {
    dir: tempfile::TempDir,
    _lock: Lock,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("belay");
        fs::create_dir(&data).expect("made");
        let lock = Lock::take(&data).expect("taken");
        UpFile {
            rest: "http://127.0.0.1:1".to_owned(),
            grpc: "127.0.0.1:1111".to_owned(),
            user: "admin".to_owned(),
            password: "of-up".to_owned().into(),
            host_id: 1,
            ca_file: None,
        }
        .store(&data)
        .expect("stored");
        let password = dir.path().join("password");
        fs::write(&password, "of-file\n").expect("written");
        let profiles = format!(
            "[prod]\nserver = \"127.0.0.1:2222\"\nuser = \"paula\"\npassword_file = \"{}\"\n\
             [bare]\nserver = \"127.0.0.1:2223\"\n[far]\nserver = \"belay.example.com:9440\"\nallow_plaintext = true\n",
            password.display()
        );
        fs::write(data.join("profiles.toml"), profiles).expect("written");
        Self { dir, _lock: lock }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `HOST:PORT as USER:PASSWORD`, or the exit code and the message.
    #[track_caller]
    fn check(&self, options: Connection, env: &[(&str, &str)], expected: &str) {
        let folder = self.dir.path().display().to_string();
        let lookup = |name: &str| match name {
            "XDG_DATA_HOME" | "XDG_CONFIG_HOME" => Some(folder.clone()),
            _ => env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
        };
        let told = match Target::choose(&options, &lookup) {
            Ok(Target { address, credentials: Credentials::Basic { user, password }, .. }) => {
                format!("{address} as {user}:{}", password.expose_secret())
            }
            Ok(Target { address, credentials: Credentials::Bearer(token), .. }) => {
                format!("{address} with {}", token.expose_secret())
            }
            Err(Failure { exit, message, .. }) => format!("{}: {message}", exit as u8),
        };
        assert!(told.contains(expected), "`{told}` should contain `{expected}`");
    }
}

fn none() -> Connection {
    Connection::default()
}

#[test]
fn explicit_beats_implicit() {
    let fixture = Fixture::new();
    let user = [("BELAY_USER", "eve"), ("BELAY_PASSWORD", "of-env")];
    let all = [("BELAY_SERVER", "127.0.0.1:3333"), user[0], user[1]];
    let server = Connection { server: Some("127.0.0.1:4444".to_owned()), ..none() };
    let named = Connection {
        user: Some("nina".to_owned()),
        password_file: Some(fixture.path("password")),
        ..server.clone()
    };
    let data = Connection { data: Some(fixture.path("belay")), ..none() };
    let profile = Connection { profile: Some("prod".to_owned()), ..none() };

    fixture.check(none(), &[], "127.0.0.1:1111 as admin:of-up");
    fixture.check(none(), &all, "127.0.0.1:3333 as eve:of-env");
    fixture.check(none(), &user, "127.0.0.1:1111 as eve:of-env");
    fixture.check(data, &all, "127.0.0.1:1111 as admin:of-up");
    fixture.check(profile, &all, "127.0.0.1:2222 as paula:of-file");
    fixture.check(server, &all, "127.0.0.1:4444 as eve:of-env");
    fixture.check(named, &all, "127.0.0.1:4444 as nina:of-file");
}

#[test]
fn a_token_and_a_password_of_the_environment() {
    let fixture = Fixture::new();
    let token = [("BELAY_SERVER", "127.0.0.1:3333"), ("BELAY_TOKEN", "t0ken")];
    fixture.check(none(), &token, "127.0.0.1:3333 with t0ken");
    let bare = Connection { profile: Some("bare".to_owned()), ..none() };
    fixture.check(bare, &token, "127.0.0.1:2223 with t0ken");
    let nina = Connection { user: Some("nina".to_owned()), ..none() };
    fixture.check(nina.clone(), &[("BELAY_PASSWORD", "x")], "as nina:x");
    fixture.check(nina, &token, "2: no password for `nina`");
}

/// The password of one server is never sent to another one.
#[test]
fn a_server_without_credentials_gets_none() {
    let fixture = Fixture::new();
    let server = Connection { server: Some("127.0.0.1:4444".to_owned()), ..none() };
    fixture.check(server, &[], "2: no credentials for the server at `127.0.0.1:4444`, named by an option");
    fixture.check(
        none(),
        &[("BELAY_SERVER", "127.0.0.1:3333")],
        "2: no credentials for the server at `127.0.0.1:3333`, named by the environment",
    );
}

#[test]
fn refuses_what_is_ambiguous_or_unsafe() {
    let fixture = Fixture::new();
    let env = [("BELAY_USER", "eve"), ("BELAY_PASSWORD", "of-env")];
    let server = |address: &str| Connection { server: Some(address.to_owned()), ..none() };
    let two = Connection { data: Some(fixture.path("belay")), ..server("127.0.0.1:1") };
    fixture.check(two, &env, "2: `--server` and `--data` name two servers");
    fixture.check(
        server("10.0.0.1:9440"),
        &env,
        "2: the server at `10.0.0.1:9440`, named by an option, is on another",
    );
    fixture.check(server("localhost.evil.example:1"), &env, "is on another machine");
    let allowed = Connection { allow_plaintext: true, ..server("10.0.0.1:9440") };
    fixture.check(allowed, &env, "10.0.0.1:9440 as eve");
    fixture.check(
        Connection { profile: Some("far".to_owned()), ..none() },
        &env,
        "belay.example.com:9440 as eve",
    );
    fixture.check(server("http://127.0.0.1:9440"), &env, "without a scheme");
    fixture.check(server("127.0.0.1"), &env, "it must be HOST:PORT");
    fixture.check(server("[::1]:9440"), &env, "[::1]:9440 as eve");
    fixture.check(Connection { profile: Some("nope".to_owned()), ..none() }, &[], "3: no profile `nope`");
    fixture.check(
        Connection { data: Some(fixture.path("elsewhere")), ..none() },
        &env,
        "6: `belay up --data",
    );
}

#[test]
fn secrets_are_never_shown() {
    let secret = Credentials::Basic { user: "eve".to_owned(), password: "s3cret".to_owned().into() };
    let shown = format!("{secret:?} {:?}", secret.authorization());
    assert!(!shown.contains("s3cret") && !shown.contains("ZXZl"), "{shown}");
}
