//! Hosts that come to the fleet, and leave it.

use belay_proto::{
    Problem, all,
    v1::{BatchDeleteHostsRequest, DeleteHostRequest},
};

use crate::{
    envelope::{Answer, Done},
    error,
    extract::{CreateHostsBody, DeleteHostsBody, HostPath, Json, Path, Query, documented_field},
    json::{Listed, TaskInstance},
    upstream::Call,
};

/// `POST /compute/hosts/batchCreate`
pub(super) async fn batch_create(call: Call, Json(body): Json<CreateHostsBody>) -> Answer {
    let request = call.request(body.order()?);
    let reply = call.enrolment().batch_create_hosts(request).await;
    let reply = reply.map_err(|status| in_documented_names(error::problem(&status)))?.into_inner();
    Done::with(&Listed {
        contents: reply.tasks.into_iter().map(|task| TaskInstance::new(task, call.zone())).collect(),
    })
}

/// `DELETE /compute/hosts/{hostId}`
pub(super) async fn delete(call: Call, Path(path): Path<HostPath>, query: Query) -> Answer {
    let (force, reason) = all((query.flag("force"), query.text(&["reason"])))?;
    let (host_id, force) = (path.host.get(), force.unwrap_or(false));
    let request = call.request(DeleteHostRequest { host_id, force, reason });
    call.enrolment().delete_host(request).await?;
    Done::without_data()
}

/// `POST /compute/hosts/batchDelete`
pub(super) async fn batch_delete(call: Call, Json(body): Json<DeleteHostsBody>) -> Answer {
    let (host_ids, force, reason) = body.order()?;
    let request = call.request(BatchDeleteHostsRequest { host_ids, force, reason });
    let reply = call.enrolment().batch_delete_hosts(request).await;
    reply.map_err(|status| in_documented_names(error::problem(&status)))?;
    Done::without_data()
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
