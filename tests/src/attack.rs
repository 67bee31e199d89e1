//! Attacks on a listener: what a peer can do with the bytes of HTTP/2 and of HTTP/1 alone, most of it without credentials.
//!
//! All of it is written by hand, since a proper client refuses to. An attack goes on for a given time, with a given number of
//! connections, from an address of its own ([`ATTACKER`]), so that it is a peer of its own for whom it attacks; where it is
//! cut it comes again. [`Storm`] says what became of it.

mod aims;
mod bystander;
mod frame;
mod http1;
mod http2;

use std::{
    fmt::{self, Display, Formatter},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

pub use self::{
    aims::Aim,
    bystander::{Bystander, Call, Wait},
};

/// Where attacks come from: an address of the loopback network that nobody else has.
pub const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 13, 13, 13);

/// How long a connection may take to be made. Whoever is refused by the system waits for its own retries otherwise.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an attacker waits before it comes again.
const AGAIN: Duration = Duration::from_millis(20);

/// A listener to attack.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it is.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub http2: bool,
    /// The path of a call that needs no body, and credentials for it where it needs some.
    pub path: String,
    /// The value of `authorization`.
    pub authorization: String,
}

/// What a peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attack {
    /// Connects, and says nothing.
    HalfOpen,
    /// Says the beginning of HTTP and is idle.
    Idle,
    /// Says the first bytes one by one.
    SlowStart,
    /// Opens streams and resets them at once (CVE-2023-44487).
    RapidReset,
    /// Has the target reset its streams, by errors on them (CVE-2025-8671).
    MadeReset,
    /// A head that never ends, in small pieces (CVE-2024-27316).
    Continuation,
    /// Pieces of a body without a byte in them (CVE-2019-9518).
    EmptyData,
    /// Settings without an end (CVE-2019-9515).
    Settings,
    /// Pings without an end, whose answers nobody reads (CVE-2019-9512).
    Pings,
    /// Priorities without an end (CVE-2019-9513).
    Priorities,
    /// Windows that grow byte by byte, of streams that are long over.
    Windows,
    /// A head of a few bytes that is a large one when it is unpacked.
    HeaderBomb,
    /// Ten thousand small headers.
    ManyHeaders,
    /// A head that comes byte by byte.
    SlowHead,
    /// Bodies that come byte by byte.
    SlowBody,
    /// Calls whose answers have no window, of a peer that answers every ping (CVE-2019-9517).
    Unread,
    /// Requests one after the other, whose answers nobody reads.
    Pipelined,
    /// A head of a gigabyte.
    HugeHead,
    /// A body in chunks of one byte.
    SmallChunks,
}

impl Attack {
    /// All that can be done to a listener of HTTP/2.
    pub const HTTP2: [Self; 16] = [
        Self::HalfOpen,
        Self::Idle,
        Self::SlowStart,
        Self::RapidReset,
        Self::MadeReset,
        Self::Continuation,
        Self::EmptyData,
        Self::Settings,
        Self::Pings,
        Self::Priorities,
        Self::Windows,
        Self::HeaderBomb,
        Self::ManyHeaders,
        Self::SlowHead,
        Self::SlowBody,
        Self::Unread,
    ];

    /// All that can be done to a listener of HTTP/1.
    pub const HTTP1: [Self; 8] = [
        Self::HalfOpen,
        Self::Idle,
        Self::SlowHead,
        Self::SlowBody,
        Self::Pipelined,
        Self::HugeHead,
        Self::ManyHeaders,
        Self::SmallChunks,
    ];

    /// All that can be done to this one.
    pub fn on(target: &Target) -> &'static [Self] {
        if target.http2 { &Self::HTTP2 } else { &Self::HTTP1 }
    }

    /// Whether it takes many connections that hardly do anything, not a few that do much.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::HalfOpen | Self::Idle | Self::SlowStart | Self::SlowHead | Self::SlowBody)
    }

    /// Whether a target has to hang up at once, whatever its settings.
    pub fn ends_at_once(self, http2: bool) -> bool {
        match self {
            Self::RapidReset | Self::MadeReset | Self::Continuation | Self::EmptyData => true,
            Self::HeaderBomb | Self::HugeHead => true,
            Self::ManyHeaders => !http2,
            _ => false,
        }
    }
}

/// What became of an attack.
#[derive(Debug, Clone, Copy, Default)]
pub struct Storm {
    /// Connections that were made.
    pub connections: u64,
    /// Those of them that the target ended.
    pub cut: u64,
    /// Connections that were refused, or could not be made in time.
    pub refused: u64,
    /// Bytes that were sent.
    pub sent: u64,
}

impl Display for Storm {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { connections, cut, refused, sent } = self;
        write!(
            f,
            "{connections:>6} connections, {cut:>6} cut, {refused:>6} refused, {:>7.1} MB",
            *sent as f64 / 1e6
        )
    }
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    cut: AtomicU64,
    refused: AtomicU64,
    sent: AtomicU64,
}

/// Why an attacker has no connection any more.
enum End {
    /// The target ended it.
    Cut,
    /// It could not be had.
    Refused,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Cut
    }
}

/// Attacks for this time, over so many connections at once.
pub async fn storm(attack: Attack, target: &Target, connections: usize, time: Duration) -> Storm {
    let counts = Arc::new(Counts::default());
    let mut attackers = JoinSet::new();
    let end = Instant::now() + time;
    for number in 0..connections {
        let (target, counts) = (target.clone(), counts.clone());
        attackers.spawn(async move {
            // Not all in the same moment, which only the system's own queue would feel.
            sleep(Duration::from_millis(number as u64 / 8)).await;
            while Instant::now() < end {
                let life = Attacker::open(&target, &counts);
                let life = async {
                    let attacker = life.await?;
                    match attacker.target.http2 {
                        true => http2::attack(attack, attacker).await,
                        false => http1::attack(attack, attacker).await,
                    }
                };
                match tokio::time::timeout_at(end, life).await {
                    Ok(Err(End::Refused)) => _ = counts.refused.fetch_add(1, Ordering::Relaxed),
                    Ok(Err(End::Cut) | Ok(())) => _ = counts.cut.fetch_add(1, Ordering::Relaxed),
                    Err(_) => break,
                }
                sleep(AGAIN).await;
            }
        });
    }
    attackers.join_all().await;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Storm {
        connections: read(&counts.connections),
        cut: read(&counts.cut),
        refused: read(&counts.refused),
        sent: read(&counts.sent),
    }
}

/// What an attack did to its target, and to somebody who called there meanwhile.
#[derive(Debug)]
pub struct Harm {
    /// What became of the attack.
    pub storm: Storm,
    /// How long a bystander waited.
    pub wait: Wait,
    /// By how much the target grew at the most, in MiB.
    pub grown: f64,
}

/// Attacks, and looks what that does.
pub async fn harm(attack: Attack, aim: &Aim, connections: usize, time: Duration) -> Harm {
    let before = aim.memory();
    let bystander = Bystander::start(aim.call.clone());
    let pid = aim.pid;
    let over = Arc::new(AtomicBool::new(false));
    let ends = over.clone();
    let memory = tokio::spawn(async move {
        let mut most = before;
        while !ends.load(Ordering::Relaxed) {
            most = most.max(aims::resident(pid));
            sleep(Duration::from_millis(20)).await;
        }
        most
    });
    let storm = storm(attack, &aim.target, connections, time).await;
    let wait = bystander.end().await;
    over.store(true, Ordering::Relaxed);
    let most = memory.await.expect("it measures").max(aim.memory());
    Harm { storm, wait, grown: most - before }
}

/// One connection of an attack.
struct Attacker<'a> {
    target: &'a Target,
    stream: TcpStream,
    counts: &'a Counts,
}

impl<'a> Attacker<'a> {
    async fn open(target: &'a Target, counts: &'a Counts) -> Result<Self, End> {
        let connect = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((ATTACKER, 0)))?;
            socket.connect(target.address).await
        };
        let stream = timeout(CONNECT, connect).await.map_err(|_| End::Refused)?.map_err(|_| End::Refused)?;
        counts.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Self { target, stream, counts })
    }

    /// Sends it all, or as much as the target takes until it hangs up. What the target says meanwhile is left unread.
    async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(written) => {
                    self.counts.sent.fetch_add(written as u64, Ordering::Relaxed);
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        // Others of this program are to have their turn, too.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// The same, and reads what there is. An error where the target has hung up.
    async fn send_and_hear(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hear()?;
        self.send(bytes).await
    }

    /// Reads what there is, and forgets it.
    fn hear(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the target to hang up, and reads whatever it says before.
    async fn wait_for_the_end(&mut self) -> Result<(), End> {
        loop {
            self.stream.readable().await?;
            self.hear()?;
        }
    }
}
