//! What a browser gets, and what it is kept from.

use std::io::Read as _;

use flate2::read::GzDecoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::testing::Running;

/// The head and the body of an answer without an envelope.
async fn get(gateway: &Running, path: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(gateway.address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let mut body = answer.split_off(end + 4);
    if head.contains("content-encoding: gzip") {
        let mut plain = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("gzip");
        body = plain;
    }
    (head, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn the_description_is_served_as_it_is() {
    let gateway = Running::start().await;
    for path in ["/api/v2/openapi.json", "/openapi.json"] {
        let (head, body) = get(&gateway, path).await;
        assert!(
            head.starts_with("http/1.1 200") && head.contains("content-type: application/json"),
            "{head}"
        );
        let served: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(served, crate::openapi());
    }
    assert!(gateway.fake.take_seen().is_empty(), "the server is not asked");
}

/// The pages take nothing from elsewhere, and a browser is told not to even where they would.
#[tokio::test]
async fn the_pages_ask_nobody_else() {
    let gateway = Running::start().await;
    let (head, _) = get(&gateway, "/docs").await;
    assert!(head.starts_with("http/1.1 303") && head.contains("location: /docs/"), "{head}");
    let (head, page) = get(&gateway, "/docs/").await;
    assert!(head.contains("default-src 'none'; script-src 'self'"), "{head}");
    let taken: Vec<_> = page
        .split('"')
        .zip(page.split('"').skip(1))
        .filter_map(|(before, value)| {
            (before.ends_with("src=") || before.ends_with("href=")).then_some(value)
        })
        .collect();
    assert!(taken.len() >= 5, "{page}");
    for file in taken {
        assert!(!file.contains("//"), "{file}");
        let file = file.trim_start_matches("./");
        let (head, body) = get(&gateway, &format!("/docs/{file}")).await;
        assert!(head.starts_with("http/1.1 200") && !body.is_empty(), "{file}: {head}");
        assert!(head.contains("connect-src 'self'"), "{file}: {head}");
    }
    let (_, script) = get(&gateway, "/docs/swagger-initializer.js").await;
    assert!(
        script.contains("\"/api/v2/openapi.json\"") && script.contains("\"validatorUrl\": \"none\""),
        "{script}"
    );
    assert!(!script.contains("http"), "{script}");
    // What is no page is answered as ever.
    assert_eq!(gateway.get("/docs/nothing").await.reason(), "ROUTE_UNKNOWN");
    assert_eq!(gateway.get("/docs/..%2fCargo.toml").await.reason(), "ROUTE_UNKNOWN");
}

#[tokio::test]
async fn they_can_be_switched_off() {
    let gateway = Running::with(|config| config.docs = false).await;
    for path in ["/docs", "/docs/", "/docs/index.html", "/api/v2/openapi.json", "/openapi.json"] {
        assert_eq!(gateway.get(path).await.reason(), "ROUTE_UNKNOWN", "{path}");
    }
}
