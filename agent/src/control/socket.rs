//! The socket in the state folder: who may call, and how many at a time.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use belay_proto::{Problem, Reason, agent::v1::control_service_server::ControlServiceServer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::UnixListenerStream};
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{
        Server,
        server::{Connected, UdsConnectInfo},
    },
};

use super::Control;

/// The name of the socket in the state folder.
const NAME: &str = "control.sock";

/// How many connections there may be at a time; further ones wait.
const CONNECTIONS: usize = 32;

/// How many calls one connection may have open.
const CALLS_PER_CONNECTION: usize = 16;

/// The largest message that is taken in: an order is a few dozen bytes.
const LARGEST_MESSAGE: usize = 64 << 10;

/// How long it may take to find out what the agent's own user is called: a network may be asked.
const NAME_PATIENCE: Duration = Duration::from_secs(1);

/// The socket. It is removed when this is dropped.
pub(crate) struct Socket {
    path: PathBuf,
    listener: Option<UnixListener>,
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Say `local:root`.
    pub principal: String,
}

impl Socket {
    /// Listens in the state folder, which the caller holds: a socket that is there is of an agent that has crashed.
    pub(crate) fn bind(folder: &Path) -> io::Result<Self> {
        let path = folder.join(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { path, listener: Some(listener) })
    }

    /// Answers until `shutdown`, and what was asked by then.
    pub(crate) async fn serve(
        mut self,
        control: Control,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let Some(listener) = self.listener.take() else {
            return Ok(());
        };
        let service = ControlServiceServer::new(control)
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(crate::LARGEST_MESSAGE);
        let seats = Arc::new(Semaphore::new(CONNECTIONS));
        let guests = UnixListenerStream::new(listener).then(move |stream| {
            let seats = seats.clone();
            async move {
                let seat = seats.acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>(Guest { stream: stream?, _seat: seat })
            }
        });
        Server::builder()
            .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
            .max_concurrent_streams(u32::try_from(CALLS_PER_CONNECTION).ok())
            .add_service(InterceptedService::new(service, Gate::new().await))
            .serve_with_incoming_shutdown(guests, shutdown)
            .await
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.path);
    }
}

/// Lets only root and the agent's own user through. The kernel says who calls; the rights of the file alone would depend
/// on nobody ever having changed them.
#[derive(Clone)]
struct Gate {
    own_uid: u32,
    own_name: String,
}

impl Gate {
    async fn new() -> Self {
        let own_uid = rustix::process::geteuid().as_raw();
        let name = tokio::task::spawn_blocking(move || {
            let user = uzers::get_user_by_uid(own_uid)?;
            Some(user.name().to_string_lossy().into_owned())
        });
        let name = timeout(NAME_PATIENCE, name).await.ok().and_then(Result::ok).flatten();
        Self { own_uid, own_name: name.unwrap_or_else(|| own_uid.to_string()) }
    }

    fn admit(&self, uid: Option<u32>) -> Result<Caller, Problem> {
        let name = match uid {
            Some(uid) if uid == self.own_uid => &self.own_name,
            Some(0) => "root",
            Some(_) | None => {
                let own = &self.own_name;
                let who =
                    uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("the user with id {uid}"));
                return Err(Problem::new(
                    Reason::PermissionDenied,
                    format!("{who} may not tell this agent anything"),
                )
                .hint(format!("run it as root, or as `{own}`, as whom the agent runs")));
            }
        };
        Ok(Caller { principal: format!("local:{name}") })
    }
}

impl Interceptor for Gate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let peer = request.extensions().get::<UdsConnectInfo>().and_then(|peer| peer.peer_cred);
        let caller = self.admit(peer.map(|peer| peer.uid()))?;
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}

/// A connection, and its place among those that there may be.
struct Guest {
    stream: UnixStream,
    _seat: OwnedSemaphorePermit,
}

impl Connected for Guest {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_agents_own_user_are_let_in() {
        let gate = Gate { own_uid: 990, own_name: "belay".to_owned() };
        let admitted = |uid| gate.admit(uid).map(|caller| caller.principal);
        assert_eq!(admitted(Some(0)).unwrap(), "local:root");
        assert_eq!(admitted(Some(990)).unwrap(), "local:belay");
        for stranger in [Some(65534), None] {
            let refused = admitted(stranger).unwrap_err();
            assert_eq!(refused.reason, Reason::PermissionDenied);
            assert!(refused.hint.contains("`belay`"), "{refused:?}");
        }
    }

    /// Hazard A04: what a dead agent left is replaced, whatever its rights.
    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_the_own_one_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = Socket::bind(dir.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(socket);
        assert!(!path.exists());
    }
}
