//! Finds out whether a process is ready, and whether it goes on working.
//!
//! When to ask, and what the answers mean, is decided here; what asks is a [`Prober`]. Nothing here looks at the process
//! itself: whoever sees that it is gone drops these futures.

mod notified;

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};

pub(crate) use self::notified::{Notification, Notifications, Said};
use crate::config::{LiveCheck, LiveConfig, ProbeCommand, ReadyConfig, ReadyWhen};

/// Asks one living instance. A future of it may be dropped at any point: what it runs then ends too.
pub(crate) trait Prober: Sync {
    /// Connects to an address, within this time. An error says why that failed.
    fn tcp(&self, address: SocketAddr, limit: Duration) -> impl Future<Output = Result<(), String>> + Send {
        tcp(address, limit)
    }

    /// Runs a program on behalf of the instance and kills it when this time is over. An error says how it ended.
    fn exec(
        &self,
        command: &ProbeCommand,
        limit: Duration,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Ends when the output of the instance holds this text, whenever it was written.
    fn output_holds(&self, text: &str) -> impl Future<Output = ()> + Send;

    /// Ends when the instance has said that it is ready.
    fn notified(&self) -> impl Future<Output = ()> + Send;
}

/// Connects to an address, within this time. That somebody listens there says nothing of who it is.
pub(crate) async fn tcp(address: SocketAddr, limit: Duration) -> Result<(), String> {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("cannot connect to {address}: {error}")),
        Err(_) => Err(format!("cannot connect to {address}: no answer within {limit:?}")),
    }
}

/// Ends when the process is ready, or can not be expected to become so any more.
pub(crate) async fn until_ready(config: &ReadyConfig, prober: &impl Prober) -> Result<(), String> {
    let ReadyConfig { when, timeout } = config;
    let end = Instant::now() + *timeout;
    let waits_for = match when {
        ReadyWhen::Tcp(address) => {
            let ask = |left: Duration| prober.tcp(*address, left.min(ONE_CONNECTION));
            return until_yes(end, *timeout, ask).await;
        }
        ReadyWhen::Exec(command) => {
            return until_yes(end, *timeout, |left| prober.exec(command, left)).await;
        }
        ReadyWhen::Output(text) => match timeout_at(end, prober.output_holds(text)).await {
            Ok(()) => return Ok(()),
            Err(_) => format!("its output does not hold {text:?}"),
        },
        ReadyWhen::Notify => match timeout_at(end, prober.notified()).await {
            Ok(()) => return Ok(()),
            Err(_) => "it has not sent `READY=1` to its `NOTIFY_SOCKET`".to_owned(),
        },
    };
    Err(format!("not ready within {timeout:?}: {waits_for}"))
}

/// Ends when the process does not work any more, and tells why.
pub(crate) async fn watch_live(config: &LiveConfig, prober: &impl Prober) -> String {
    let LiveConfig { check, interval, timeout, failures } = config;
    let mut failed = 0;
    loop {
        sleep(*interval).await;
        let answer = match check {
            LiveCheck::Tcp(address) => prober.tcp(*address, *timeout).await,
            LiveCheck::Exec(command) => prober.exec(command, *timeout).await,
        };
        match answer {
            Ok(()) => failed = 0,
            Err(why) => {
                failed += 1;
                if failed >= *failures {
                    let times =
                        if failed == 1 { "once".to_owned() } else { format!("{failed} times in a row") };
                    return format!("its check failed {times}: {why}");
                }
            }
        }
    }
}

/// Asks again and again, with growing pauses, until the answer is yes or the time is over.
async fn until_yes<A: Future<Output = Result<(), String>> + Send>(
    end: Instant,
    whole: Duration,
    ask: impl Fn(Duration) -> A,
) -> Result<(), String> {
    let mut pause = FIRST_PAUSE;
    loop {
        let Err(why) = ask(end.saturating_duration_since(Instant::now())).await else {
            return Ok(());
        };
        let left = end.saturating_duration_since(Instant::now());
        if left < LEAST_LEFT {
            return Err(format!("not ready within {whole:?}: {why}"));
        }
        // The last question is asked shortly before the end.
        sleep(pause.min(left - LEAST_LEFT / 2)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// With less time than this left, another question is not worth asking.
const LEAST_LEFT: Duration = Duration::from_millis(20);

/// How long one connection is tried: a packet that is lost is soon sent again.
const ONE_CONNECTION: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Mutex};

    use super::*;

    /// Answers as it is told to, and remembers when it was asked.
    struct Scripted {
        answer: fn(usize) -> Result<(), String>,
        began: Instant,
        asked: Mutex<Vec<Duration>>,
        says_at: Option<Duration>,
    }

    impl Scripted {
        fn new(answer: fn(usize) -> Result<(), String>) -> Self {
            Self { answer, began: Instant::now(), asked: Mutex::default(), says_at: None }
        }

        fn says_at(at: Duration) -> Self {
            Self { says_at: Some(at), ..Self::new(|_| Err("not asked".to_owned())) }
        }

        fn ask(&self) -> Result<(), String> {
            let mut asked = self.asked.lock().unwrap();
            asked.push(self.began.elapsed());
            (self.answer)(asked.len())
        }

        fn asked_ms(&self) -> Vec<u128> {
            self.asked.lock().unwrap().iter().map(Duration::as_millis).collect()
        }

        async fn say(&self) {
            match self.says_at {
                Some(at) => sleep(at).await,
                None => pending().await,
            }
        }
    }

    impl Prober for Scripted {
        async fn tcp(&self, _: SocketAddr, _: Duration) -> Result<(), String> {
            self.ask()
        }

        async fn exec(&self, command: &ProbeCommand, limit: Duration) -> Result<(), String> {
            assert_eq!(command.args, ["-q"]);
            assert!(limit <= secs(10));
            self.ask()
        }

        async fn output_holds(&self, text: &str) {
            assert_eq!(text, "up");
            self.say().await;
        }

        async fn notified(&self) {
            self.say().await;
        }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn refused() -> Result<(), String> {
        Err("connection refused".to_owned())
    }

    fn config<T>(text: &str, of: impl Fn(crate::ProcessConfig) -> Option<T>) -> T {
        let text = format!("[[process]]\nalias = \"x\"\ncommand = \"/x\"\n{text}");
        of(crate::Config::parse(&text).unwrap().processes.remove(0)).unwrap()
    }

    fn ready(text: &str) -> ReadyConfig {
        config(&format!("ready = {{ {text}, timeout = \"10s\" }}"), |process| process.ready)
    }

    fn live(text: &str) -> LiveConfig {
        config(&format!("live = {{ {text} }}"), |process| process.live)
    }

    const EXEC: &str = "exec = { command = \"/probe\", args = [\"-q\"] }";

    #[tokio::test(start_paused = true)]
    async fn pauses_between_questions_grow_to_a_second() {
        for when in ["tcp = 80", EXEC] {
            let prober = Scripted::new(|times| if times < 9 { refused() } else { Ok(()) });
            assert_eq!(until_ready(&ready(when), &prober).await, Ok(()));
            assert_eq!(prober.asked_ms(), [0, 20, 60, 140, 300, 620, 1260, 2260, 3260]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_ready_in_time_has_failed_for_the_last_reason() {
        let prober = Scripted::new(|_| refused());
        let told = until_ready(&ready("tcp = 80"), &prober).await;
        assert_eq!(told, Err("not ready within 10s: connection refused".to_owned()));
        assert_eq!(prober.asked_ms().last(), Some(&9_990));
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_so_is_ready() {
        for when in ["output = \"up\"", "notify = true"] {
            let prober = Scripted::says_at(secs(9));
            assert_eq!(until_ready(&ready(when), &prober).await, Ok(()));
            let told = until_ready(&ready(when), &Scripted::says_at(secs(11))).await.unwrap_err();
            assert!(told.starts_with("not ready within 10s: it"), "{told}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_count_in_a_row() {
        let prober = Scripted::new(|times| if times.is_multiple_of(3) { Ok(()) } else { refused() });
        let three = live("tcp = 80, interval = \"1s\", failures = 3");
        assert!(timeout(secs(60), watch_live(&three, &prober)).await.is_err());
        let prober = Scripted::new(|times| if times == 2 { Ok(()) } else { refused() });
        let two = live(&format!("{EXEC}, interval = \"1s\", failures = 2"));
        assert_eq!(watch_live(&two, &prober).await, "its check failed 2 times in a row: connection refused");
        assert_eq!(prober.asked_ms(), [1000, 2000, 3000, 4000]);
    }

    #[tokio::test]
    async fn a_port_answers_or_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(tcp(address, secs(10)).await, Ok(()));
        drop(listener);
        let told = tcp(address, secs(10)).await.unwrap_err();
        assert!(told.contains("refused"), "{told}");
    }
}
