//! Simulated agents: thousands of them in this one process, without processes of their own, speaking the real protocols
//! with a real server. Each has an identity, an incarnation, a connection to the server and a listener for orders, and does
//! with an order what the agent would: it remembers it by its operation id, joins the work where it comes again, refuses a
//! lower epoch, and reports what changed. What it makes of an order is for the test to say ([`Script`]), and every order is
//! in a ledger that all share ([`Orders`]).

mod agent;
mod listen;
mod operations;
mod orders;
mod report;

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use self::{
    agent::SimulatedAgent,
    orders::{Entry, Kind, Orders},
};
pub use belay_agent::pause_before_connecting;

/// What a simulated agent makes of orders that arrive from now on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Script {
    /// Does it at once.
    #[default]
    AtOnce,
    /// Does it, which takes so long.
    After(Duration),
    /// Fails, with this stable reason and this message, and changes nothing.
    Fails(belay_proto::Reason, String),
    /// Takes the order and never comes to an end with it.
    Never,
}

/// How many agents, and what they say.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// How many agents.
    pub agents: usize,
    /// The address on which each of them listens, on a port of its own.
    pub address: Ipv4Addr,
    /// The processes of each of them, all workers, all running at the start.
    pub processes: Vec<String>,
    /// What the agent of a number says of its host: keys and values.
    pub labels: fn(usize) -> Vec<(String, String)>,
    /// How long to wait before the attempt to connect after so many that failed in a row.
    pub pause: fn(u32) -> Duration,
}

impl Simulation {
    /// So many agents, each with one process, that come back to a server as agents do.
    pub fn new(agents: usize, address: Ipv4Addr) -> Self {
        Self {
            agents,
            address,
            processes: vec!["obstat2".to_owned()],
            labels: |_| Vec::new(),
            pause: pause_before_connecting,
        }
    }
}

/// Simulated agents that report to one server. All of them end when it is dropped.
#[derive(Debug)]
pub struct SimulatedFleet {
    agents: Vec<SimulatedAgent>,
    shared: Arc<Shared>,
}

/// What the agents have in common.
#[derive(Debug)]
struct Shared {
    simulation: Simulation,
    /// `HOST:PORT` of the server.
    server: String,
    token: String,
    orders: Orders,
    connections: Mutex<Connections>,
}

/// What was done to be connected.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    /// When each hello was sent.
    pub hellos: Vec<Instant>,
    /// When each of them was welcomed.
    pub welcomes: Vec<Instant>,
    /// When an attempt failed, whether it came to a hello or not.
    pub failures: Vec<Instant>,
}

impl SimulatedFleet {
    /// Lets agents listen and report to the server at `HOST:PORT`, with the fleet's token.
    ///
    /// # Panics
    /// Where the system has not so many sockets.
    pub async fn start(server: &str, token: &str, simulation: Simulation) -> Self {
        allow_files(simulation.agents as u64 * 4 + 1000);
        let count = simulation.agents;
        let shared = Arc::new(Shared {
            simulation,
            server: server.to_owned(),
            token: token.to_owned(),
            orders: Orders::default(),
            connections: Mutex::default(),
        });
        let mut agents = Vec::with_capacity(count);
        for number in 0..count {
            agents.push(SimulatedAgent::start(number, shared.clone()).await);
        }
        Self { agents, shared }
    }

    /// The agent of this number, from 0.
    pub fn agent(&self, number: usize) -> &SimulatedAgent {
        &self.agents[number]
    }

    /// All of them.
    pub fn agents(&self) -> &[SimulatedAgent] {
        &self.agents
    }

    /// What each of them makes of orders from now on.
    pub fn play(&self, script: &Script) {
        self.agents.iter().for_each(|agent| agent.play(script.clone()));
    }

    /// Every order that any of them got.
    pub fn orders(&self) -> &Orders {
        &self.shared.orders
    }

    /// What was done to be connected since this was last called.
    pub fn take_connections(&self) -> Connections {
        std::mem::take(&mut lock(&self.shared.connections))
    }

    /// The same, and it is not forgotten.
    pub fn connections(&self) -> Connections {
        lock(&self.shared.connections).clone()
    }

    /// How many of them are welcomed at the moment.
    pub fn connected(&self) -> usize {
        self.agents.iter().filter(|agent| agent.host().is_some()).count()
    }
}

/// Lets this process, and the programs that it starts from now on, have so many files open, as far as the system lets it.
///
/// # Panics
/// Where it does not let it have nearly as many.
pub fn allow_files(wanted: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    assert!(allowed >= wanted / 4 * 3, "{wanted} files are to be open, and the system allows {allowed}");
    setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }).expect("a higher limit");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
