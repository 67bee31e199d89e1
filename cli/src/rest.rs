//! One call of the REST API over a plain connection, as `curl` would make it.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{credentials::Credentials, failure::Failure};

/// How long a call may take, the proof of a stop included.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest answer that is read.
const LARGEST: u64 = 4 << 20;

/// The REST API of a gateway, called as someone.
#[derive(Debug)]
pub(crate) struct Rest {
    /// `HOST:PORT`.
    address: String,
    authorization: SecretString,
}

impl Rest {
    /// The API at a base such as `http://127.0.0.1:8080`.
    pub(crate) fn new(base: &str, credentials: &Credentials) -> Self {
        let address = base.trim_start_matches("http://").to_owned();
        Self { address, authorization: credentials.authorization() }
    }

    /// Makes a call. Answers with the HTTP status and the envelope.
    pub(crate) async fn call(&self, method: &str, path: &str) -> Result<(u16, Value), Failure> {
        let what = format!("{method} http://{}{path}", self.address);
        let exchanged = timeout(PATIENCE, self.exchange(method, path)).await;
        let answer = exchanged
            .map_err(|_| Failure::unknown(format!("no answer to `{what}` within {} s", PATIENCE.as_secs())))?
            .map_err(|error| {
                Failure::unknown(Failure::caused(format!("cannot call `{what}`"), &error).message)
            })?;
        read(&answer).ok_or_else(|| Failure::failed(format!("the answer to `{what}` is not JSON over HTTP")))
    }

    async fn exchange(&self, method: &str, path: &str) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(&self.address).await?;
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: {}\r\nAccept: application/json\r\n\
             Content-Length: 0\r\n\r\n",
            self.address,
            self.authorization.expose_secret()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LARGEST).read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

fn read(answer: &[u8]) -> Option<(u16, Value)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_slice(&answer[end + 4..]).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_json() {
        let answer = b"HTTP/1.0 409 Conflict\r\ncontent-type: application/json\r\n\r\n{\"status\":409}";
        assert_eq!(read(answer), Some((409, serde_json::json!({"status": 409}))));
        for broken in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0\r\n\r\n{}", b"HTTP/1.1 200 OK\r\n"] {
            assert_eq!(read(broken), None);
        }
    }
}
