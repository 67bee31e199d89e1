//! Bodies of requests: read whole, so that no route has to and none can forget to, but bounded in size, in time, and in what
//! all of them together keep in memory.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, Bytes, HttpBody as _};
use belay_proto::{Problem, Reason};
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// How much of a body that is too large is read and thrown away. A client that is still sending when its connection is
/// closed loses the answer with it.
const DISCARD: usize = 64 << 20;
/// A body of so many bytes always has room: there are only so many connections. Nearly all orders are smaller.
const SMALL: usize = 8 << 10;
/// What all larger bodies together may have, in bytes. Not more at a time than 32 of the largest by default.
const ALL: usize = 32 << 20;
/// The room is counted in pieces of so many bytes.
const PIECE: usize = 8 << 10;

/// The room that there is for bodies. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    largest: usize,
    room: Arc<Semaphore>,
}

/// A body, and the room that it takes for as long as this lives.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    /// Takes bodies of at most `largest` bytes.
    pub(crate) fn new(largest: usize) -> Self {
        let room = ALL.max(largest).div_ceil(PIECE).min(Semaphore::MAX_PERMITS);
        Self { largest, room: Arc::new(Semaphore::new(room)) }
    }

    /// Reads a body. `waits`: the client sends it only when it is asked to.
    pub(crate) async fn read(&self, body: Body, waits: bool) -> Result<Read, Problem> {
        timeout(BODY_TIME, self.gather(body, waits)).await.unwrap_or_else(|_| {
            Err(Problem::new(Reason::InvalidArgument, "the body did not arrive in time")
                .chinese("请求体没有及时到达", "请检查网络后重新发送请求"))
        })
    }

    async fn gather(&self, mut body: Body, waits: bool) -> Result<Read, Problem> {
        let Self { largest, room } = self;
        let too_large = || {
            Problem::new(Reason::BodyTooLarge, "the body is too large")
                .hint(format!("send at most {largest} bytes"))
                .chinese("请求体过大", format!("请求体最多 {largest} 字节"))
        };
        if waits && body.size_hint().lower() > *largest as u64 {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        let mut taken: Option<OwnedSemaphorePermit> = None;
        let mut length = 0_usize;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                Problem::new(Reason::InvalidArgument, "the body could not be read")
                    .chinese("无法读取请求体", "请重新发送请求")
            })?;
            let Ok(data) = frame.into_data() else { continue };
            length += data.len();
            if length <= *largest {
                let needed = length.saturating_sub(SMALL).div_ceil(PIECE);
                let has = taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
                if let Some(more) = needed.checked_sub(has).filter(|more| *more > 0) {
                    let more = u32::try_from(more).map_err(|_| no_room())?;
                    let more = room.clone().try_acquire_many_owned(more).map_err(|_| no_room())?;
                    match &mut taken {
                        Some(taken) => taken.merge(more),
                        None => taken = Some(more),
                    }
                }
                bytes.extend_from_slice(&data);
            } else if length > DISCARD {
                break;
            } else {
                // What came so far is of no use any more.
                (bytes, taken) = (Vec::new(), None);
            }
        }
        if length > *largest {
            return Err(too_large());
        }
        Ok(Read { bytes: bytes.into(), _room: taken })
    }
}

fn no_room() -> Problem {
    Problem::new(Reason::AtCapacity, "the gateway reads as many large bodies as it may; nothing was ordered")
        .hint("try again in a second")
        .chinese("网关正在读取的大请求体已达上限，没有执行任何操作", "请在一秒后重试")
        .retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazard L08: large bodies share their room, and small ones always have some.
    #[tokio::test]
    async fn large_bodies_share_a_bounded_room() {
        let bodies = Bodies::new(1 << 20);
        let large = || Body::from(vec![b' '; 1 << 20]);
        let mut held = Vec::new();
        let refused = loop {
            match bodies.read(large(), false).await {
                Ok(read) => held.push(read),
                Err(problem) => break problem,
            }
        };
        assert_eq!(refused.reason, Reason::AtCapacity);
        assert!((30..=34).contains(&held.len()), "{}", held.len());
        let small = bodies.read(Body::from(vec![b' '; SMALL]), false).await.expect("there is always room");
        assert_eq!(small.bytes.len(), SMALL);
        held.pop();
        held.pop();
        bodies.read(large(), false).await.expect("there is room again");
        drop(held);
        assert_eq!(bodies.room.available_permits() * PIECE, ALL);
    }

    /// Hazard L04: neither a body that stops nor one that comes byte by byte is waited for.
    #[tokio::test(start_paused = true)]
    async fn a_body_has_to_arrive_in_time() {
        for pause in [Duration::from_secs(5), Duration::from_secs(3600)] {
            let bytes = tokio_stream::StreamExt::throttle(
                tokio_stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(" "))),
                pause,
            );
            let begun = tokio::time::Instant::now();
            let read = Bodies::new(1 << 20).read(Body::from_stream(bytes), false).await;
            assert_eq!(read.expect_err("it is late").reason, Reason::InvalidArgument);
            assert_eq!(begun.elapsed().as_secs(), BODY_TIME.as_secs());
        }
    }

    #[tokio::test]
    async fn the_largest_body_has_room_however_large_it_may_be() {
        let bodies = Bodies::new(ALL * 2);
        let read = bodies.read(Body::from(vec![b' '; ALL * 2]), false).await.expect("it may be so large");
        assert_eq!(read.bytes.len(), ALL * 2);
        let larger = bodies.read(Body::from(vec![b' '; ALL * 2 + 1]), false).await;
        assert_eq!(larger.expect_err("too large").reason, Reason::BodyTooLarge);
    }
}
