//! An HTTP/1.1 client of a few lines, which checks what holds for every answer.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A connection to a gateway.
pub(crate) struct Connection {
    stream: TcpStream,
    address: SocketAddr,
}

/// An answer, its envelope checked.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Answer {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// What a program acts on; `OK` for success.
    pub(crate) fn reason(&self) -> &str {
        self.body["error"]["reason"].as_str().unwrap_or("OK")
    }
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        Self { stream, address }
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() && !head.contains("Transfer-Encoding") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        self.write(head.as_bytes()).await;
        self.write(body).await;
        self.answer().await
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("written");
    }

    /// Writes as much as the gateway takes.
    pub(crate) async fn try_write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Everything until the gateway closes the connection, or resets it.
    pub(crate) async fn try_rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Reads one answer. Hazard I18: whatever it says, it is a whole envelope that agrees with its status line.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).expect("UTF-8");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let mut answer = Answer { status, head, body: Value::Null };
        let length =
            answer.header("content-length").and_then(|length| length.parse().ok()).expect("a length");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.expect("a body");
        answer.body = serde_json::from_slice(&body).expect("JSON");
        answer.check();
        answer
    }

    /// Everything until the gateway closes the connection.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).await.expect("UTF-8");
        rest
    }

    /// Whether the gateway closed the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]).await, Ok(0) | Err(_))
    }
}

impl Answer {
    #[track_caller]
    fn check(&self) {
        let Self { status, body, .. } = self;
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"), "{self:?}");
        assert_eq!(body["status"], *status, "{self:?}");
        assert_eq!(body["successful"], *status == 200, "{self:?}");
        assert_eq!(body["server"], "127.0.0.1", "{self:?}");
        assert!(body["duration"].is_u64(), "{self:?}");
        assert!(body["timestamp"].as_str().is_some_and(|time| time.ends_with("+08:00")), "{self:?}");
        let trace = body["traceId"].as_str().unwrap_or_default();
        assert!(trace.len() == 16 && trace.bytes().all(|byte| byte.is_ascii_hexdigit()), "{self:?}");
        assert_eq!(body.get("error").is_some(), *status != 200, "{self:?}");
    }
}
