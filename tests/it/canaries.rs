//! Secrets that are given everywhere where one can be given, and looked for everywhere where none may be.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use belay_proto::{
    agent::v1::GetInventoryRequest,
    v1::{
        CreateAccessKeyRequest, CreateTokenRequest, CreateUserRequest, ListHostsRequest, Role,
        SetPasswordRequest, StopAgentProcessRequest,
    },
};
use belay_tests::{Answer, Client, Fleet, HostSetup, Signer, Wire, basic, wait_for};
use http::{HeaderName, Method};
use serde_json::json;
use uuid::Uuid;

use crate::fleet;

/// How many secrets are given at least.
const PLANTED: usize = 200;

/// What begins each secret of the test. Nothing else holds it.
const MARK: &str = "cNrY";

/// Secrets, and where each was given.
#[derive(Debug, Default)]
struct Canaries {
    secrets: Vec<(String, String)>,
    /// What came back, to be looked through.
    told: String,
}

impl Canaries {
    /// A new secret.
    fn plant(&mut self, place: &str) -> String {
        let secret = format!("{MARK}{}", Uuid::new_v4().simple());
        self.keep(place, &secret);
        secret
    }

    /// A secret that was made elsewhere.
    fn keep(&mut self, place: &str, secret: &str) {
        self.secrets.push((place.to_owned(), secret.to_owned()));
    }

    /// A user's credentials as a header shows them, which are as good as the password.
    fn shown(&mut self, place: &str, name: &str) -> String {
        let password = self.plant(place);
        let header = basic(name, &password);
        self.keep(place, header.trim_start_matches("Basic "));
        password
    }

    fn hear(&mut self, answer: &Answer) {
        self.told.push_str(&format!("{:?}\n{}\n", answer.headers, answer.text));
    }

    fn refused<T>(&mut self, answer: Result<tonic::Response<T>, tonic::Status>) {
        if let Err(status) = answer {
            self.told.push_str(&format!("{status:?}\n{:?}\n", String::from_utf8_lossy(status.details())));
        }
    }

    /// Where secrets are in a text.
    fn found(&self, text: &str) -> Vec<String> {
        let hit = |(place, secret): &(String, String)| {
            let at = text.find(secret.as_str())?;
            let from = text.floor_char_boundary(at.saturating_sub(120));
            Some(format!("the one of {place}: ...{}", &text[from..text.ceil_char_boundary(at + 8)]))
        };
        self.secrets.iter().filter_map(hit).collect()
    }
}

/// Every file below a folder, but for those where a secret is at home.
fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    const AT_HOME: &[&str] = &[
        "fleet.token",
        "admin.password",
        "access-keys.seal",
        "audit.key",
        "host-1.toml",
        "secret-file",
        "tls.pem",
    ];
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() && !AT_HOME.contains(&name.as_str()) && !name.starts_with("authority-") {
            found.push(path);
        }
    }
}

/// Processes with secrets in their arguments and their environment.
fn told(canaries: &mut Canaries) -> HostSetup {
    let mut setup = HostSetup::new();
    for number in 0..4 {
        let place = |form: &str| format!("an argument, as {form}");
        let mut plant = |form: &str| canaries.plant(&place(form));
        let arguments = vec![
            "--port".to_owned(),
            "8080".to_owned(),
            format!("--password={}", plant("--password=X")),
            "--token".to_owned(),
            plant("--token X"),
            format!("-p{}", plant("-pX")),
            format!("postgres://kim:{}@localhost/db", plant("userinfo")),
            format!("http://localhost/?a=1&api_key={}&b=2", plant("a query")),
            "-H".to_owned(),
            format!("Authorization: Bearer {}", plant("a header")),
            format!("DB_PASSWD={}", plant("NAME=X")),
            format!("{{\"clientSecret\": \"{}\"}}", plant("JSON")),
            format!("exec x --password '{}' -v", plant("a command")),
        ];
        let environment = ["DB_PASSWORD", "TOKEN", "PLAIN", "URL"];
        let environment = environment.map(|name| {
            let secret = canaries.plant(&format!("the environment, as {name}"));
            (name.to_owned(), if name == "URL" { format!("amqp://u:{secret}@h") } else { secret })
        });
        setup = setup.told(&format!("told{number}"), arguments, BTreeMap::from(environment));
    }
    setup
}

/// Passwords: right ones, wrong ones, and such as stand beside something else that is wrong.
async fn passwords(fleet: &Fleet, canaries: &mut Canaries) {
    let wire = fleet.wire();
    for number in 0..6 {
        let name = format!("user{number}");
        let password = canaries.shown("a new user's password", &name);
        let roles = vec![Role::HostManager.into()];
        let user =
            CreateUserRequest { name: name.clone(), roles, password: password.clone(), grants: Vec::new() };
        wire.users().create_user(user).await.expect("added");
        let client = fleet.anyone().user(&name, &password);
        canaries.hear(&client.get("/api/v2/compute/hosts").await);
        canaries.hear(&client.get("/api/v2/iam/users").await);
        let next = canaries.shown("a changed password", &name);
        let body = json!({ "password": next }).to_string();
        let path = format!("/api/v2/iam/users/{name}/password");
        canaries.hear(&client.call(Method::POST, &path, body.into()).await);
        let foreign = canaries.plant("another user's password");
        let foreign = SetPasswordRequest { name: "admin".into(), password: foreign };
        let caller = fleet.wire_of(&name, &next);
        canaries.refused(caller.users().set_password(foreign).await);
        let wrong = canaries.shown("a wrong password", &name);
        canaries.hear(&fleet.anyone().user(&name, &wrong).get("/api/v2/compute/hosts").await);
        let wrong = canaries.shown("a wrong password", &name);
        let caller = fleet.wire_of(&name, &wrong);
        canaries.refused(caller.hosts().list_hosts(ListHostsRequest::default()).await);
    }
    for number in 0..12 {
        let secret = canaries.plant("a body with something wrong in it");
        let body = match number % 6 {
            0 => json!({"name": "a b", "roles": ["ADMIN"], "password": secret}),
            1 => json!({"name": "lee", "roles": ["KING"], "password": secret}),
            2 => json!({"name": "lee", "roles": [], "pasword": secret}),
            3 => json!({"name": "lee", "roles": ["ADMIN"], "password": [secret]}),
            4 => json!({"name": "admin", "roles": ["ADMIN"], "password": secret}),
            _ => json!({"name": "lee", "roles": ["ADMIN"], "password": format!("{secret}\n")}),
        };
        let mut body = body.to_string();
        if number >= 10 {
            body.truncate(body.len() - 2);
        }
        canaries.hear(&fleet.admin().call(Method::POST, "/api/v2/iam/users", body.into()).await);
        let secret = canaries.plant("a message with something wrong in it");
        let user =
            CreateUserRequest { name: "a b".into(), roles: vec![77], password: secret, grants: Vec::new() };
        canaries.refused(wire.users().create_user(user).await);
    }
}

/// Those of the authority and of the parts. One line of each tells it.
fn private_keys(fleet: &Fleet, canaries: &mut Canaries) {
    let folder = fleet.folder();
    let authorities = fs::read_dir(fleet.data().join("pki")).expect("a folder").flatten();
    let authorities = authorities.map(|entry| entry.path());
    let of_parts = ["host-1-state/tls.pem", "gateway-state/tls.pem"].map(|file| folder.join(file));
    let mut keys = 0;
    for file in authorities.chain(of_parts) {
        let text = fs::read_to_string(&file).expect("readable");
        if let Some((_, key)) = text.split_once("-----BEGIN PRIVATE KEY-----\n") {
            canaries.keep(&format!("the key in {}", file.display()), key.lines().next().expect("a line"));
            keys += 1;
        }
    }
    assert_eq!(keys, 3, "those of the authority, an agent and a gateway");
}

/// Tokens and keys: those that the server makes, and such as it does not know.
async fn tokens(fleet: &Fleet, canaries: &mut Canaries) {
    let wire = fleet.wire();
    for number in 0..8 {
        let made = wire.users().create_token(CreateTokenRequest::default()).await.expect("made").into_inner();
        canaries.keep("a token", &made.token);
        let bearer = fleet.wire_with(&format!("Bearer {}", made.token));
        bearer.hosts().list_hosts(ListHostsRequest::default()).await.expect("allowed");
        let unknown = canaries.plant("a wrong token");
        let header = format!("Bearer {unknown}");
        canaries.hear(&fleet.anyone().header("authorization", &header).get("/api/v2/compute/hosts").await);
        let caller = fleet.wire_with(&format!("Bearer {}", canaries.plant("a wrong token")));
        let request = StopAgentProcessRequest { host_id: number, ..Default::default() };
        canaries.refused(caller.processes().stop_agent_process(request).await);
        let agent = Wire::new(
            &format!("{}:9441", fleet.address()),
            &format!("Bearer {}", canaries.plant("an agent's token")),
        );
        canaries.refused(agent.orders().get_inventory(GetInventoryRequest::default()).await);
    }
    for _ in 0..4 {
        let made = wire.access_keys().create_access_key(CreateAccessKeyRequest::default()).await;
        let made = made.expect("made").into_inner();
        canaries.keep("an access key", &made.secret);
        let key = made.key.expect("a key").id;
        let signed = fleet.anyone().signed(Signer::new(&key, &made.secret));
        canaries.hear(&signed.get("/api/v2/compute/hosts").await);
        let wrong = Signer::new(&key, &canaries.plant("the secret of an access key"));
        canaries.hear(&fleet.anyone().signed(wrong).post("/api/v2/compute/hosts/1/agent/stop").await);
    }
}

/// Where nobody asked for one: headers, queries, and bodies of orders.
async fn strays(fleet: &Fleet, canaries: &mut Canaries) {
    let admin = fleet.admin();
    let header = |client: Client, name: &'static str, value: String| client.header(name, &value);
    for name in ["cookie", "x-api-key", "proxy-authorization", "x-auth-token", "x-ocp-origin"] {
        assert!(HeaderName::from_static(name).as_str() == name);
        for path in ["/api/v2/compute/hosts", "/api/v2/nothing", "/api/v2/compute/hosts/999"] {
            let secret = canaries.plant(&format!("the header {name}"));
            canaries.hear(&header(admin.clone(), name, secret).get(path).await);
        }
    }
    for scheme in ["Digest", "Token", "Basic", "OCP-ACCESS-KEY-HMACSHA1", ""] {
        let secret = canaries.plant(&format!("`authorization` with {scheme}"));
        canaries.keep("its base 64", &BASE64_STANDARD.encode(&secret));
        let value = format!("{scheme} {secret}");
        canaries.hear(&header(fleet.anyone(), "authorization", value).get("/api/v2/compute/hosts").await);
    }
    for name in ["password", "token", "access_token", "signature"] {
        for path in ["/api/v2/compute/hosts", "/api/v2/nothing", "/api/v2/compute/hosts/x", "/"] {
            let secret = canaries.plant(&format!("the query's {name}"));
            canaries.hear(&admin.get(&format!("{path}?{name}={secret}")).await);
        }
    }
    let process = fleet.process_path(0, "told0").await;
    for order in ["stop", "start", "restart", "nothing"] {
        for body in ["password", "Secret"] {
            let secret = canaries.plant("the body of an order");
            let body = json!({ body: secret, "reason": "x" }).to_string();
            canaries.hear(&admin.call(Method::POST, &format!("{process}/{order}"), body.into()).await);
        }
    }
}

/// The command line, whose credentials come from the environment, from files and from its input.
fn command_line(fleet: &Fleet, canaries: &mut Canaries) {
    let file = fleet.folder().join("secret-file");
    let run = |canaries: &mut Canaries, arguments: &[&str], password: &str, input: &str| {
        let mut child = Command::new(fleet.program())
            .args(arguments)
            .env("BELAY_SERVER", fleet.server_address())
            .env("BELAY_CA_FILE", fleet.ca_file())
            .env("BELAY_USER", "admin")
            .env("BELAY_PASSWORD", password)
            .env("RUST_LOG", "debug")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut stdin = child.stdin.take().expect("its input");
        // It need not read all of it.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("ended");
        canaries.told.push_str(&String::from_utf8_lossy(&output.stdout));
        canaries.told.push_str(&String::from_utf8_lossy(&output.stderr));
    };
    let right = fleet.password();
    for (number, arguments) in
        [["host", "list"], ["process", "list"], ["audit", "list"], ["user", "list"]].iter().enumerate()
    {
        let wrong = canaries.plant("BELAY_PASSWORD");
        run(canaries, arguments, &wrong, "");
        run(canaries, arguments, right, "");
        fs::write(&file, canaries.plant("a token's file")).expect("written");
        let path = file.display().to_string();
        run(canaries, &[arguments[0], arguments[1], "--token-file", &path], right, "");
        let added = canaries.plant("`--password-stdin`");
        let name = if number % 2 == 0 { format!("cli{number}") } else { "a b".to_owned() };
        let add = ["user", "add", &name, "--role", "HOST_VIEWER", "--password-stdin"];
        run(canaries, &add, right, &format!("{added}\n"));
    }
    run(canaries, &["process", "list", "--host", "host-1", "-o", "json"], right, "");
    run(canaries, &["process", "get", "--host", "host-1", "told1"], right, "");
    run(canaries, &["process", "why", "--host", "host-1", "told1"], right, "");
}

/// Hazards X01 to X04: whatever is given anywhere is nowhere but where it belongs.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_anywhere_it_does_not_belong() {
    let mut canaries = Canaries::default();
    let setup = told(&mut canaries);
    let mut fleet = fleet(vec![setup]).await;
    canaries.keep("the fleet's token", &fleet.token());
    canaries.keep("the first password", fleet.password());
    canaries.keep("the first password", basic("admin", fleet.password()).trim_start_matches("Basic "));
    for key in ["server/audit.key", "server/access-keys.seal"] {
        let text = fs::read_to_string(fleet.folder().join(key)).expect("there");
        canaries.keep(key, text.trim());
    }

    private_keys(&fleet, &mut canaries);
    let token = fleet.join_token(0, "").await;
    canaries.keep("a join token", token.rsplit('.').next().expect("its secret"));

    passwords(&fleet, &mut canaries).await;
    tokens(&fleet, &mut canaries).await;
    strays(&fleet, &mut canaries).await;
    command_line(&fleet, &mut canaries);
    let admin = fleet.admin();
    let path = fleet.process_path(0, "told1").await;
    let shown = fleet.process(0, "told1").await["startCommand"].as_str().expect("a command").to_owned();
    assert!(shown.contains("--port 8080") && shown.contains("--password=***"), "{shown}");
    for order in ["stop", "start", "restart"] {
        canaries.hear(&admin.post(&format!("{path}/{order}")).await);
    }
    canaries.hear(&admin.get(&format!("{path}/detail")).await);
    let agent = fleet.agent_path(0).await;
    let task = admin.post(&format!("{agent}/stop")).await;
    canaries.hear(&task);
    fleet.wait_for_task(task.data()["id"].as_i64().expect("an id"), |task| task["status"] != "RUNNING").await;
    fleet.server.kill();
    fleet.server.start();
    fleet.wait_until_ready().await;
    fleet.agent(0).kill();
    fleet.agent(0).start();
    let host = fleet.host_id(0).await;
    fleet.wait_for_status(host, "AVAILABLE").await;
    canaries.hear(&admin.post(&format!("{agent}/start")).await);
    for path in ["audit/records", "tasks/instances", "iam/users", "iam/accessKeys", "compute/hosts"] {
        canaries.hear(&admin.get(&format!("/api/v2/{path}")).await);
    }
    wait_for("what was last seen is written down", async || {
        let seen = "SELECT observed FROM processes WHERE alias = 'told1' AND observed LIKE '%--port%'";
        let db = sea_orm::Database::connect(format!("sqlite://{}/server/belay.db", fleet.folder().display()));
        let db = db.await.map_err(|error| error.to_string())?;
        let statement =
            sea_orm::Statement::from_string(sea_orm::ConnectionTrait::get_database_backend(&db), seen);
        let row = sea_orm::ConnectionTrait::query_one_raw(&db, statement).await;
        db.close().await.map_err(|error| error.to_string())?;
        row.map_err(|error| error.to_string())?.map(drop).ok_or_else(|| "not yet".to_owned())
    })
    .await;

    assert!(canaries.secrets.len() >= PLANTED, "{}", canaries.secrets.len());
    // Where they are at home they are found.
    let settings = fs::read_to_string(fleet.folder().join("host-1.toml")).expect("there");
    assert!(canaries.found(&settings).len() >= 50, "the search finds nothing");
    let mut found: Vec<_> =
        canaries.found(&canaries.told).into_iter().map(|hit| format!("answered: {hit}")).collect();
    let mut all = Vec::new();
    files(fleet.folder(), &mut all);
    let names: Vec<_> = all.iter().map(|path| path.file_name().expect("a name").to_string_lossy()).collect();
    for looked_at in ["belay.db", "belay.db-wal", "server.log", "gateway.log", "host-1.log", "journal"] {
        assert!(names.iter().any(|name| *name == looked_at), "{looked_at} is not among {names:?}");
    }
    for path in &all {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        found.extend(canaries.found(&text).into_iter().map(|hit| format!("{}: {hit}", path.display())));
    }
    assert!(found.is_empty(), "{} of {}: {found:#?}", found.len(), canaries.secrets.len());
}
