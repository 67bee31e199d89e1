//! Hosts.

use belay_proto::v1::{GetHostRequest, ListHostsRequest};

use crate::{
    envelope::{Answer, Done},
    extract::{HostPath, Path, Query},
    json::{Host, Paged},
    upstream::{Call, told},
};

/// `GET /compute/hosts`
pub(super) async fn list(call: Call, query: Query) -> Answer {
    query.refuse(&["status", "keyword", "includedServiceType", "excludedServiceType", "sort"])?;
    let request = call.request(ListHostsRequest { page: query.page()?, size: query.size()? });
    let reply = call.hosts().list_hosts(request).await?.into_inner();
    Done::with(&Paged {
        contents: reply.hosts.into_iter().map(|host| Host::new(host, call.zone())).collect(),
        page: told(reply.page)?.into(),
    })
}

/// `GET /compute/hosts/{hostId}`
pub(super) async fn get(call: Call, Path(path): Path<HostPath>) -> Answer {
    let request = call.request(GetHostRequest { host_id: path.host.get() });
    let reply = call.hosts().get_host(request).await?.into_inner();
    Done::with(&Host::new(told(reply.host)?, call.zone()))
}
