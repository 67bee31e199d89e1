//! Hosts that come to the fleet, and leave it.

use belay_proto::{
    Problem, all,
    v1::{BatchCreateHostsRequest, BatchDeleteHostsRequest, DeleteHostRequest},
};

use super::preview_or;
use crate::{
    envelope::{Answer, Done},
    error,
    extract::{CreateHostsBody, DeleteHostsBody, HostPath, Json, Path, Query, Terms, documented_field},
    json::{Listed, TaskInstance},
    upstream::Call,
};

/// `POST /compute/hosts/batchCreate`
pub(super) async fn batch_create(call: Call, terms: Terms, Json(body): Json<CreateHostsBody>) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?.of_change()?;
    let request = call.request(BatchCreateHostsRequest { terms, ..body.order()? });
    let reply = call.enrolment().batch_create_hosts(request).await;
    let reply = reply.map_err(|status| in_documented_names(error::problem(&status)))?.into_inner();
    let task = |task| TaskInstance::new(task, call.zone());
    preview_or(reply.preview, || {
        Done::with(&Listed { contents: reply.tasks.into_iter().map(task).collect() })
    })
}

/// `DELETE /compute/hosts/{hostId}`
pub(super) async fn delete(call: Call, terms: Terms, Path(path): Path<HostPath>, query: Query) -> Answer {
    let (force, reason, terms) = all((query.flag("force"), query.text(&["reason"]), terms.of_change()))?;
    let (host_id, force) = (path.host.get(), force.unwrap_or(false));
    let request = call.request(DeleteHostRequest { host_id, force, reason, terms });
    let reply = call.enrolment().delete_host(request).await?.into_inner();
    preview_or(reply.preview, Done::without_data)
}

/// `POST /compute/hosts/batchDelete`
pub(super) async fn batch_delete(call: Call, terms: Terms, Json(body): Json<DeleteHostsBody>) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?.of_change()?;
    let (host_ids, force, reason) = body.order()?;
    let request = call.request(BatchDeleteHostsRequest { host_ids, force, reason, terms });
    let reply = call.enrolment().batch_delete_hosts(request).await;
    let reply = reply.map_err(|status| in_documented_names(error::problem(&status)))?.into_inner();
    preview_or(reply.preview, Done::without_data)
}

/// What is wrong, field by field, as the caller wrote the fields.
fn in_documented_names(problem: Problem) -> Problem {
    let Problem { message, fields, .. } = problem.clone();
    let renamed = |(name, what): (String, String)| (documented_field(&name), what);
    let in_message = |message: String, (name, _): &(String, String)| {
        message.replace(&format!("`{name}`"), &format!("`{}`", documented_field(name)))
    };
    Problem {
        message: fields.iter().fold(message, in_message),
        fields: fields.into_iter().map(renamed).collect(),
        ..problem
    }
}

#[cfg(test)]
mod tests {
    use belay_proto::Reason;

    use super::*;

    #[test]
    fn faults_are_told_in_the_names_of_the_documents() {
        let said =
            "invalid `hosts[1].inner_ip_address`: `x` is not an IP address, invalid `idc_id`: 0 is not an id";
        let problem = Problem::new(Reason::InvalidArgument, said)
            .field("hosts[1].inner_ip_address", "`x` is not an IP address")
            .field("idc_id", "0 is not an id");
        let told = in_documented_names(problem);
        assert_eq!(
            told.message,
            "invalid `hostBasicDataList[1].innerIpAddress`: `x` is not an IP address, invalid `idcId`: 0 is not an id"
        );
        let names: Vec<_> = told.fields.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, ["hostBasicDataList[1].innerIpAddress", "idcId"]);
        assert_eq!(documented_field("host_ids"), "hostIdList");
    }
}
