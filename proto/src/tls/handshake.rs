//! Why a handshake failed, in words that say what to do next.

use std::{error::Error, fmt, io, iter};

use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError};

use super::identity::BadCertificate;

/// Why whoever was called is not spoken with. It is inside an [`io::Error`].
#[derive(Debug)]
pub(super) struct NoHandshake {
    what: String,
    remedy: &'static str,
    is_another: bool,
}

impl fmt::Display for NoHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl Error for NoHandshake {}

const IS_PLAIN: &str =
    "where it speaks plain text (`tls.mode = \"off\"` in the server's settings), call it with `http://`";
const IS_OTHER: &str = "where it is of another fleet than the certificate of this part, join that fleet with a token of it \
                        (`belay host token create`); where certificates are your own, see `tls.ca` of both";

/// What whoever called makes of a handshake that failed.
pub(super) fn as_caller(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let mut is_another = false;
    let (what, remedy) = match cause {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            ("it does not speak TLS".to_owned(), IS_PLAIN)
        }
        None if hangs_up(error.kind()) => {
            ("it hung up in the handshake, so it may not speak TLS".to_owned(), IS_PLAIN)
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) => {
            is_another = matches!(why.downcast_ref(), Some(BadCertificate::Other { .. }));
            (format!("its certificate is refused: {why}"), IS_OTHER)
        }
        Some(rustls::Error::AlertReceived(alert)) => (refuses(*alert), IS_OTHER),
        _ => return error,
    };
    io::Error::new(error.kind(), NoHandshake { what, remedy, is_another })
}

/// Whether a connection failed because somebody else answered than was meant.
pub fn is_another(error: &(dyn Error + 'static)) -> bool {
    let mut causes = iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        // Its own source would be that of what it holds.
        Some(io) => io.get_ref().map(|held| held as _),
        None => error.source(),
    });
    causes.any(|cause| cause.downcast_ref().is_some_and(|failed: &NoHandshake| failed.is_another))
}

fn hangs_up(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn refuses(alert: AlertDescription) -> String {
    format!("it refuses the certificate of this part ({alert:?}); its log says why")
}

/// What whoever was called makes of it, for its log.
pub(super) fn as_called(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "it does not speak TLS; use `https://`".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) => {
            format!("its certificate is refused: {why}")
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("it refuses the certificate of this part ({alert:?})")
        }
        Some(rustls::Error::NoCertificatesPresented) => "it shows no certificate".to_owned(),
        _ => error.to_string(),
    }
}
