//! Watching hosts and processes: first how they are, then what changes, for as long as somebody listens and may.

mod board;

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use belay_proto::{HostId, ProcessId, UserId, planted, v1};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::Status;
use tracing::Instrument;

use self::board::Board;
pub(crate) use self::board::{BoardId, Cursor, News};
use crate::{
    access::{LiveReach, Pass, Reach},
    app::App,
    convert::{host_to_watch, process_to_watch},
    error::Error,
};

/// Streams at a time: of all users, and of one.
const STREAMS: usize = 512;
const STREAMS_OF_USER: usize = 64;
/// Events under way to a watcher: one that does not read holds up nobody but itself.
const UNDER_WAY: usize = 16;
/// Events that are made for one watcher at once.
const AT_ONCE: usize = 100;
/// What happens within this is told as one change.
const PAUSE: Duration = Duration::from_millis(100);
/// What changes by time alone, say that an agent is silent, is seen within this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Boards of hosts whose processes are watched. Those that nobody watches any more make room.
const BOARDS: usize = 256;

type Hosts = Board<HostId, v1::Host>;
type Processes = Board<ProcessId, v1::AgentProcess>;

/// What is watched, and by how many.
#[derive(Debug)]
pub(crate) struct Watches {
    epoch: u64,
    boards: AtomicU64,
    hosts: Arc<Shared<Hosts>>,
    processes: Mutex<HashMap<HostId, Arc<Shared<Processes>>>>,
    seats: Arc<Semaphore>,
    of_users: Arc<Mutex<HashMap<UserId, usize>>>,
}

/// A board that watchers share.
#[derive(Debug)]
struct Shared<B>(Mutex<(B, Option<Instant>)>);

impl<B> Shared<B> {
    fn new(board: B) -> Arc<Self> {
        Arc::new(Self(Mutex::new((board, None))))
    }
}

impl Watches {
    /// Nobody watches yet. The epoch tells this life of the server from those before.
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            boards: AtomicU64::new(1),
            hosts: Shared::new(Board::new(BoardId { epoch, number: 0 })),
            processes: Mutex::default(),
            seats: Arc::new(Semaphore::new(STREAMS)),
            of_users: Arc::default(),
        }
    }

    fn board_id(&self) -> BoardId {
        BoardId { epoch: self.epoch, number: self.boards.fetch_add(1, Ordering::Relaxed) }
    }

    fn processes_of(&self, host: HostId) -> Arc<Shared<Processes>> {
        let mut boards = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(board) = boards.get(&host) {
            return board.clone();
        }
        if boards.len() >= BOARDS {
            boards.retain(|_, board| Arc::strong_count(board) > 1);
        }
        let board = Shared::new(Board::new(self.board_id()));
        boards.insert(host, board.clone());
        board
    }

    /// A place for one more stream of a user.
    ///
    /// # Errors
    /// Where there are too many, of that user or of all.
    pub(crate) fn seat(&self, user: UserId, name: &str) -> Result<Seat, Error> {
        let permit = self
            .seats
            .clone()
            .try_acquire_owned()
            .map_err(|_| Error::TooManyStreams { whose: "the server".into(), most: STREAMS })?;
        let mut of_users = self.of_users.lock().unwrap_or_else(PoisonError::into_inner);
        let own = of_users.entry(user).or_default();
        if *own >= STREAMS_OF_USER && !planted("streams-not-counted") {
            return Err(Error::TooManyStreams { whose: format!("user `{name}`"), most: STREAMS_OF_USER });
        }
        *own += 1;
        Ok(Seat { user, of_users: self.of_users.clone(), _permit: permit })
    }
}

/// One stream's place, until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    user: UserId,
    of_users: Arc<Mutex<HashMap<UserId, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut of_users = self.of_users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = of_users.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                of_users.remove(&self.user);
            }
        }
    }
}

/// A stream of which the rights are looked at as long as it lasts, and which is counted.
pub(crate) struct Lasting<T> {
    stream: Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>,
    ends: Pin<Box<dyn Future<Output = Error> + Send>>,
    seat: Option<Seat>,
}

impl<T> Lasting<T> {
    /// The same stream, which ends as soon as its caller may not have it any more.
    ///
    /// # Errors
    /// Where there are too many.
    pub(crate) fn new(
        app: &Arc<App>,
        pass: Pass,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Result<Self, Error> {
        let seat = app.watches.seat(pass.user().id, &pass.user().name)?;
        Ok(Self { stream: Box::pin(stream), ends: Box::pin(pass.ends(app.clone())), seat: Some(seat) })
    }
}

impl<T> Stream for Lasting<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.seat.is_none() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(why) = self.ends.as_mut().poll(context) {
            self.seat = None;
            return Poll::Ready(Some(Err(why.into())));
        }
        self.stream.as_mut().poll_next(context)
    }
}

/// One thing that a watcher hears, with how far it has heard then.
pub(crate) type Heard<K, V> = (Cursor, News<K, V>);

/// What a watcher is told.
pub(crate) type Told<K, V> = ReceiverStream<Result<Heard<K, V>, Error>>;

/// Every host in reach, then what changes. Goes on after `heard` where that is possible: whoever has not every host in reach
/// has a board of its own, from which a host goes that leaves its reach, and so begins anew each time.
pub(crate) fn hosts(app: &Arc<App>, reach: LiveReach, heard: Option<Cursor>) -> Told<HostId, v1::Host> {
    let is_shared = reach.now().is_whole() || planted("watched-out-of-reach");
    let board = match is_shared {
        true => app.watches.hosts.clone(),
        false => Shared::new(Board::new(app.watches.board_id())),
    };
    let look = move |app: &App| {
        // Others hear of what is seen for one who shares a board.
        let reach = if is_shared { Arc::new(Reach::WHOLE) } else { reach.now() };
        Ok(app.fleet.all(&reach).iter().map(|view| (view.host.id, host_to_watch(view))).collect())
    };
    watch(app, board, heard, look)
}

/// The same with the processes of a host.
///
/// # Errors
/// Where there is no such host.
pub(crate) fn processes(
    app: &Arc<App>,
    host: HostId,
    heard: Option<Cursor>,
) -> Result<Told<ProcessId, v1::AgentProcess>, Error> {
    app.fleet.host(host)?;
    let look = move |app: &App| {
        let processes = app.fleet.processes(host)?;
        Ok(processes.iter().map(|process| (process.id, process_to_watch(process))).collect())
    };
    Ok(watch(app, app.watches.processes_of(host), heard, look))
}

fn watch<K, V>(
    app: &Arc<App>,
    shared: Arc<Shared<Board<K, V>>>,
    mut heard: Option<Cursor>,
    look: impl Fn(&App) -> Result<BTreeMap<K, V>, Error> + Send + 'static,
) -> Told<K, V>
where
    K: Copy + Ord + Send + Sync + 'static,
    V: Clone + PartialEq + Send + Sync + 'static,
{
    let (send, told) = mpsc::channel(UNDER_WAY);
    let this = app.clone();
    let pass_on = async move {
        let mut changes = this.fleet.changes();
        loop {
            // Marked as seen before the look, so that no change in between is missed.
            let change = *changes.borrow_and_update();
            let news = match shared.next(heard, change, || look(&this)) {
                Ok(news) => news,
                Err(error) => {
                    // Whoever watches may be gone.
                    let _ = send.send(Err(error)).await;
                    return;
                }
            };
            let is_all = news.is_empty();
            for (cursor, news) in news {
                heard = Some(cursor);
                tokio::select! {
                    sent = send.send(Ok((cursor, news))) => if sent.is_err() { return },
                    () = this.shutdown.cancelled() => break,
                }
            }
            if this.shutdown.is_cancelled() {
                // As above; and one that does not read is not waited for.
                let _ = send.try_send(Err(Error::ShuttingDown));
                return;
            }
            if !is_all {
                continue;
            }
            tokio::select! {
                // An error means that the fleet is gone, and this with it.
                _ = timeout(LOOK_EVERY, changes.changed()) => {}
                () = send.closed() => return,
                () = this.shutdown.cancelled() => continue,
            }
            sleep(PAUSE).await;
        }
    };
    app.background.spawn(pass_on.in_current_span());
    ReceiverStream::new(told)
}

impl<K: Copy + Ord, V: Clone + PartialEq> Shared<Board<K, V>> {
    /// What comes next. The board is looked at anew where something has happened since, or some time has passed: once for
    /// all of its watchers.
    fn next(
        &self,
        heard: Option<Cursor>,
        change: u64,
        look: impl FnOnce() -> Result<BTreeMap<K, V>, Error>,
    ) -> Result<Vec<Heard<K, V>>, Error> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (board, looked) = &mut *shared;
        let is_fresh = board.has_seen(change) && looked.is_some_and(|at| at.elapsed() < LOOK_EVERY);
        if !is_fresh {
            board.look(Some(change), look()?);
            *looked = Some(Instant::now());
        }
        Ok(board.next(heard, AT_ONCE))
    }
}
