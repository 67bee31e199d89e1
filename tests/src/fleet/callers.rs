//! Where the parts of a fleet are reached, and callers of them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use belay_proto::tls::{Connector, Expected, LivePapers, Papers, papers_file, read_certificates};
use tonic::transport::{Channel, Endpoint};

use super::{FIRST_AGENT_PORT, Fleet, GATEWAY_PORT, SERVER_PORT};
use crate::{Client, Wire, basic};

impl Fleet {
    /// A REST caller without credentials.
    pub fn anyone(&self) -> Client {
        Client::new(&self.rest())
    }

    /// The beginning of every URL of the REST API.
    pub fn rest(&self) -> String {
        format!("http://{}:{GATEWAY_PORT}", self.address)
    }

    /// A REST caller who may do everything.
    pub fn admin(&self) -> Client {
        self.anyone().user("admin", &self.password)
    }

    /// A gRPC caller who may do everything.
    pub fn wire(&self) -> Wire {
        self.wire_of("admin", &self.password)
    }

    /// A gRPC caller who is this user.
    pub fn wire_of(&self, name: &str, password: &str) -> Wire {
        self.wire_with(&basic(name, password))
    }

    /// A gRPC caller with this value of `authorization`.
    pub fn wire_with(&self, authorization: &str) -> Wire {
        match self.tls {
            true => Wire::secure(&self.server_address(), authorization, &self.ca_file()),
            false => Wire::new(&self.server_address(), authorization),
        }
    }

    /// A connection to the server as users have one, made when it is first used.
    pub fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.server_address()));
        let endpoint = endpoint.expect("an address");
        if !self.tls {
            return endpoint.connect_lazy();
        }
        let authorities = read_certificates(&self.ca_file()).expect("authorities");
        endpoint.connect_with_connector_lazy(Connector::user(&authorities).expect("they can be believed"))
    }

    /// The same as the part that keeps its certificate in this folder of state, as in `gateway-state`.
    pub fn channel_of(&self, state: &str) -> Channel {
        let papers =
            Papers::load(&papers_file(&self.folder().join(state))).expect("readable").expect("there");
        let endpoint = Endpoint::from_shared(format!("http://{}", self.server_address()));
        let connector = Connector::member(&LivePapers::new(papers), Expected::Server);
        endpoint.expect("an address").connect_with_connector_lazy(connector)
    }

    /// The authorities that users of the server believe.
    pub fn ca_file(&self) -> PathBuf {
        self.data.join("pki/ca.pem")
    }

    /// A gRPC caller who orders the agent of a host, as the server does in plain text.
    pub fn agent_wire(&self, host: usize) -> Wire {
        Wire::new(&self.agent_address(host).to_string(), &format!("Bearer {}", self.token()))
    }

    /// The address of the agent of a host.
    pub fn agent_address(&self, host: usize) -> SocketAddr {
        let port = FIRST_AGENT_PORT + u16::try_from(host).expect("few hosts");
        SocketAddr::from((self.address, port))
    }

    /// `HOST:PORT` of the server.
    pub fn server_address(&self) -> String {
        format!("{}:{SERVER_PORT}", self.address)
    }

    /// The address that every part listens on.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }
}
