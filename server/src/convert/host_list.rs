//! Which hosts to list, and in which order.

use belay_proto::v1;

use super::{inward::selector, reference::check_line};
use crate::{
    error::Error,
    fleet::{HostFilter, HostSort, HostSortBy, ServiceType},
    host::HostStatus,
};

/// What a keyword may have, and what is repeated of a field that is not known, in characters.
const LONGEST: usize = 200;

/// Which hosts to list.
pub(crate) fn host_filter(message: &v1::ListHostsRequest) -> Result<HostFilter, Error> {
    let v1::ListHostsRequest {
        page: _,
        size: _,
        selector: selected,
        statuses,
        keyword,
        included_service_types,
        excluded_service_types,
        sort: _,
    } = message;
    check_line(keyword, LONGEST).map_err(|what| Error::invalid("keyword", what))?;
    let known = statuses.iter().map(|word| status(*word)).collect::<Result<Vec<_>, _>>()?;
    let services =
        |field, words: &[i32]| words.iter().map(|word| service(field, *word)).collect::<Result<Vec<_>, _>>();
    Ok(HostFilter {
        selector: selector(selected.clone())?,
        // Where all that are asked for are such that no host is ever in, none is meant.
        statuses: (!statuses.is_empty()).then(|| known.into_iter().flatten().collect()),
        keyword: keyword.to_lowercase(),
        included: services("included_service_types", included_service_types)?,
        excluded: services("excluded_service_types", excluded_service_types)?,
    })
}

/// `FIELD`, `FIELD,asc` or `FIELD,desc`.
pub(crate) fn host_sort(text: &str) -> Result<HostSort, Error> {
    if text.is_empty() {
        return Ok(HostSort { by: HostSortBy::Id, descending: false });
    }
    let (field, direction) = text.split_once(',').unwrap_or((text, "asc"));
    let descending = match direction {
        _ if direction.eq_ignore_ascii_case("asc") => false,
        _ if direction.eq_ignore_ascii_case("desc") => true,
        _ => {
            let what = "it must be FIELD, or FIELD and `asc` or `desc` after a comma";
            return Err(Error::invalid("sort", what));
        }
    };
    let unsortable = || Error::HostsUnsortable(field.chars().take(LONGEST).collect());
    Ok(HostSort { by: HostSortBy::parse(field).ok_or_else(unsortable)?, descending })
}

/// `None` for a documented state in which no host ever is.
fn status(status: i32) -> Result<Option<HostStatus>, Error> {
    match v1::HostStatus::try_from(status) {
        Ok(v1::HostStatus::New) => Ok(Some(HostStatus::New)),
        Ok(v1::HostStatus::Available) => Ok(Some(HostStatus::Available)),
        Ok(v1::HostStatus::Offline) => Ok(Some(HostStatus::Offline)),
        Ok(v1::HostStatus::Online | v1::HostStatus::Deleting) => Ok(None),
        // Never a default (hazard I15).
        Ok(v1::HostStatus::Unspecified) | Err(_) => {
            Err(Error::invalid("statuses", format!("{status} is not a state of a host")))
        }
    }
}

fn service(field: &'static str, service: i32) -> Result<ServiceType, Error> {
    match v1::ServiceType::try_from(service) {
        Ok(v1::ServiceType::OcpAgent) => Ok(ServiceType::Agent),
        Ok(
            v1::ServiceType::ObCluster
            | v1::ServiceType::ObProxy
            | v1::ServiceType::BackupAgent
            | v1::ServiceType::RestoreAgent
            | v1::ServiceType::BackupRestoreAgent
            | v1::ServiceType::Oms,
        ) => Ok(ServiceType::Other),
        Ok(v1::ServiceType::Unspecified) | Err(_) => {
            Err(Error::invalid(field, format!("{service} is not a type of a service")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_sort(text: &str, by: HostSortBy, descending: bool) {
        assert_eq!(host_sort(text).ok(), Some(HostSort { by, descending }), "{text}");
    }

    #[test]
    fn hosts_are_sorted_by_the_documented_names() {
        check_sort("", HostSortBy::Id, false);
        check_sort("id,asc", HostSortBy::Id, false);
        check_sort("name,DESC", HostSortBy::Name, true);
        check_sort("innerIpAddress", HostSortBy::Address, false);
        assert!(matches!(host_sort("sshPort,asc"), Err(Error::HostsUnsortable(field)) if field == "sshPort"));
        for bad in ["id,", "id,up", "id,asc,desc"] {
            assert!(matches!(host_sort(bad), Err(Error::Invalid(_))), "{bad}");
        }
    }

    /// Hazard I15: what can not be is never every host.
    #[test]
    fn a_filter_that_no_host_passes_is_not_every_host() {
        let ask = |statuses| v1::ListHostsRequest { statuses, ..Default::default() };
        assert_eq!(host_filter(&ask(vec![])).ok(), Some(HostFilter::default()));
        let online = host_filter(&ask(vec![v1::HostStatus::Online.into()])).expect("known");
        assert_eq!(online.statuses, Some(vec![]));
        for bad in [0, 99, -1] {
            assert!(host_filter(&ask(vec![bad])).is_err(), "{bad}");
        }
    }
}
