//! Hosts that are added, described and deleted, and agents that say who they are.

use std::{collections::BTreeSet, net::IpAddr};

use belay_proto::{HostId, HostTypeId, IdcId, Problem, Reason, agent::v1 as agent, all, v1};

use super::{
    address::is_nobodys,
    agent::{Hello, read_hello},
    inward::{host_id, reason},
    reference::{check_alias, check_description, check_line},
    terms::of_change,
};
use crate::{
    create::CreateOrder,
    delete::DeleteOrder,
    error::Error,
    host::{Facts, HostKind, Profile},
    profile::ProfileOrder,
    store::Declared,
    terms::Terms,
};

/// Where agents listen, and SSH services do, if nothing else is said.
const AGENT_PORT: u16 = 9441;
const SSH_PORT: u16 = 22;
/// How many hosts one order adds, and how many it deletes.
const MOST_CREATED: usize = 500;
const MOST_DELETED: usize = 2000;
const LONGEST_SERIAL_NUMBER: usize = 128;
/// How many ports a container publishes, and what an entry may have, in characters.
const MOST_PORTS: usize = 100;
const LONGEST_PORTS: usize = 200;
/// How many faults are told.
const MOST_FAULTS: usize = 50;

/// An agent as it says who it is.
#[derive(Debug, Clone)]
pub(crate) struct Introduced {
    pub(crate) facts: Facts,
    pub(crate) declared: Vec<Declared>,
    /// Where it is configured to report.
    pub(crate) server: String,
}

/// Reads who an agent is.
pub(crate) fn introduced(answer: agent::IntroduceResponse) -> Result<Introduced, Error> {
    let agent::IntroduceResponse { hello, server } = answer;
    let hello = hello.ok_or_else(|| Error::invalid("hello", "it is missing"))?;
    let Hello { facts, declared, .. } = read_hello(hello)?;
    let server = server.chars().filter(|letter| !letter.is_control()).take(LONGEST_PORTS).collect();
    Ok(Introduced { facts, declared, server })
}

/// Reads which hosts to add, with all that is wrong with that.
pub(crate) fn create_order(message: v1::BatchCreateHostsRequest) -> Result<(CreateOrder, Terms), Error> {
    let v1::BatchCreateHostsRequest {
        hosts,
        kind: of_kind,
        ssh_port,
        publish_ports,
        idc_id,
        type_id,
        credential_id,
        alias,
        description,
        agent_port,
        reason: why,
        terms,
    } = message;
    let mut faults = Faults::default();
    faults.check("hosts", check_count(hosts.len(), MOST_CREATED));
    let many = hosts.len() > 1;
    let (mut read, mut seen) = (Vec::with_capacity(hosts.len()), BTreeSet::new());
    for (place, v1::HostToCreate { inner_ip_address, serial_number }) in hosts.into_iter().enumerate() {
        let field = |name: &str| format!("hosts[{place}].{name}");
        match address(&inner_ip_address) {
            Ok(ip) if !seen.insert(ip) => {
                faults.check(&field("inner_ip_address"), Err(format!("{ip} is there twice")));
            }
            Ok(ip) => read.push((ip, serial_number.clone())),
            Err(what) => faults.check(&field("inner_ip_address"), Err(what)),
        }
        faults.check(&field("serial_number"), check_line(&serial_number, LONGEST_SERIAL_NUMBER));
    }
    let kind = kind(of_kind);
    if kind.is_none() {
        faults.check("kind", Err("it is missing, or no kind of host".into()));
    }
    let is_container = kind == Some(HostKind::Container);
    faults.check("publish_ports", check_ports(&publish_ports, is_container));
    let ssh_port = faults.port("ssh_port", ssh_port, SSH_PORT);
    let agent_port = faults.port("agent_port", agent_port, AGENT_PORT);
    let idc = IdcId::try_from(idc_id);
    let host_type = HostTypeId::try_from(type_id);
    faults.check("idc_id", idc.map(drop).map_err(|invalid| invalid.to_string()));
    faults.check("type_id", host_type.map(drop).map_err(|invalid| invalid.to_string()));
    if credential_id < 0 {
        faults.check("credential_id", Err(format!("{credential_id} is below 1")));
    }
    faults.check("alias", check_alias(&alias));
    if many && !alias.is_empty() {
        faults.check("alias", Err("it can be that of one host alone; leave it out where it is many".into()));
    }
    faults.check("description", check_description(&description));
    let reason = reason(why);
    if let Err(error) = &reason {
        faults.check("reason", Err(error.to_string()));
    }
    let terms = of_change(terms);
    if let Err(error) = &terms {
        faults.check("terms", Err(error.to_string()));
    }
    faults.end()?;
    // None of them failed.
    let (Ok(idc), Ok(host_type)) = (idc, host_type) else {
        return Err(Error::invalid("idc_id", "it is no id"));
    };
    let profile = Profile {
        alias,
        description,
        serial_number: String::new(),
        kind,
        ssh_port: Some(ssh_port),
        publish_ports,
        credential: Some(credential_id).filter(|id| *id > 0),
    };
    let order = CreateOrder { hosts: read, agent_port, idc, host_type, profile, reason: reason? };
    Ok((order, terms?))
}

/// Reads which hosts to delete.
pub(crate) fn delete_order(
    hosts: Vec<i64>,
    force: bool,
    why: String,
    terms: Option<v1::OrderTerms>,
) -> Result<(DeleteOrder, Terms), Error> {
    check_count(hosts.len(), MOST_DELETED).map_err(|what| Error::invalid("host_ids", what))?;
    let hosts = hosts.into_iter().map(host_id).collect::<Result<BTreeSet<_>, _>>()?;
    let (reason, terms) = all((reason(why), of_change(terms)))?;
    Ok((DeleteOrder { hosts, force, reason }, terms))
}

/// Reads what is said of a host.
pub(crate) fn profile_order(
    message: v1::UpdateHostProfileRequest,
) -> Result<(HostId, ProfileOrder, Terms), Error> {
    let v1::UpdateHostProfileRequest {
        host_id: host,
        idc_id,
        type_id,
        alias,
        description,
        reason: why,
        terms,
    } = message;
    let mut faults = Vec::new();
    if (idc_id, type_id, &alias, &description) == (None, None, &None, &None) {
        faults.push(("idc_id", "nothing is said of the host; say at least one thing".to_owned()));
    }
    let idc = idc_id.map(|id| (id != 0).then(|| IdcId::try_from(id)).transpose());
    let host_type = type_id.map(|id| (id != 0).then(|| HostTypeId::try_from(id)).transpose());
    if let Some(Err(invalid)) = idc {
        faults.push(("idc_id", invalid.to_string()));
    }
    if let Some(Err(invalid)) = host_type {
        faults.push(("type_id", invalid.to_string()));
    }
    faults.extend(alias.as_deref().and_then(|text| check_alias(text).err()).map(|what| ("alias", what)));
    let described = description.as_deref().and_then(|text| check_description(text).err());
    faults.extend(described.map(|what| ("description", what)));
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    let order = ProfileOrder {
        idc: idc.and_then(Result::ok),
        host_type: host_type.and_then(Result::ok),
        alias,
        description,
        reason: reason(why)?,
    };
    Ok((host_id(host)?, order, of_change(terms)?))
}

/// What is wrong with a request, field by field.
#[derive(Debug, Default)]
struct Faults(Vec<(String, String)>);

impl Faults {
    fn check(&mut self, field: &str, checked: Result<(), String>) {
        self.0.extend(checked.err().map(|what| (field.to_owned(), what)));
    }

    fn port(&mut self, field: &str, port: i32, usual: u16) -> u16 {
        match u16::try_from(port) {
            Ok(0) => usual,
            Ok(port) => port,
            Err(_) => {
                self.check(field, Err(format!("{port} is not from 1 to 65535")));
                usual
            }
        }
    }

    fn end(self) -> Result<(), Error> {
        let Self(faults) = self;
        if faults.is_empty() {
            return Ok(());
        }
        let shown = faults.iter().take(MOST_FAULTS);
        let told: Vec<_> = shown.clone().map(|(name, what)| format!("invalid `{name}`: {what}")).collect();
        let problem = Problem::new(Reason::InvalidArgument, told.join(", "))
            .hint("correct the request and send it again; no host was added");
        let each = |problem: Problem, (name, what): &(String, String)| problem.field(name, what);
        Err(Error::Refused(shown.fold(problem, each)))
    }
}

fn check_count(count: usize, most: usize) -> Result<(), String> {
    match count {
        0 => Err("no host is named, and nothing never means all".into()),
        count if count > most => Err(format!("{count} hosts are more than {most}")),
        _ => Ok(()),
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    let shown: String = text.chars().filter(|letter| !letter.is_control()).take(64).collect();
    match text.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) if is_nobodys(ip) => Err(format!("`{shown}` is the address of no host")),
        Ok(ip) => Ok(ip),
        Err(_) => Err(format!("`{shown}` is not an IP address")),
    }
}

fn kind(kind: i32) -> Option<HostKind> {
    match v1::HostKind::try_from(kind) {
        Ok(v1::HostKind::DedicatedPhysicalMachine) => Some(HostKind::PhysicalMachine),
        Ok(v1::HostKind::DedicatedContainer) => Some(HostKind::Container),
        Ok(v1::HostKind::DedicatedEcs) => Some(HostKind::Ecs),
        Ok(v1::HostKind::Unspecified) | Err(_) => None,
    }
}

/// Each entry is ports joined by commas, each as `PORT` or `PORT:PORT`, as in the documented example.
fn check_ports(entries: &[String], is_container: bool) -> Result<(), String> {
    if entries.is_empty() {
        return match is_container {
            true => Err("it is missing: a container publishes ports".into()),
            false => Ok(()),
        };
    }
    if !is_container {
        return Err("only a container publishes ports; leave it out".into());
    }
    if entries.len() > MOST_PORTS {
        return Err(format!("{} entries are more than {MOST_PORTS}", entries.len()));
    }
    // Decimal digits and nothing else: `parse` alone would let `+80` pass.
    let is_port = |text: &str| {
        let digits = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
        digits && text.parse::<u16>().is_ok()
    };
    let is_published = |part: &str| match part.split_once(':') {
        Some((outer, inner)) => is_port(outer) && is_port(inner),
        None => is_port(part),
    };
    let is_good = |entry: &&String| entry.len() <= LONGEST_PORTS && entry.split(',').all(is_published);
    match entries.iter().find(|entry| !is_good(entry)) {
        None => Ok(()),
        Some(_) => Err("an entry is not ports as in `8080:8080,8090`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(addresses: &[&str]) -> v1::BatchCreateHostsRequest {
        let host =
            |address: &&str| v1::HostToCreate { inner_ip_address: (*address).into(), ..Default::default() };
        v1::BatchCreateHostsRequest {
            hosts: addresses.iter().map(host).collect(),
            kind: v1::HostKind::DedicatedPhysicalMachine.into(),
            idc_id: 1,
            type_id: 1,
            ..Default::default()
        }
    }

    /// The fields that are wrong.
    #[track_caller]
    fn check(message: v1::BatchCreateHostsRequest, wrong: &[&str]) {
        let told: Vec<_> = match create_order(message) {
            Ok(_) => Vec::new(),
            Err(Error::Refused(problem)) => problem.fields.into_iter().map(|(name, _)| name).collect(),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(told, wrong);
    }

    #[test]
    fn every_field_that_is_wrong_is_named() {
        check(request(&["10.0.0.1", "fd00::1"]), &[]);
        check(request(&[]), &["hosts"]);
        check(
            request(&["10.0.0.1", "host-1", "10.0.0.1"]),
            &["hosts[1].inner_ip_address", "hosts[2].inner_ip_address"],
        );
        // Two ways to write one address.
        check(request(&["10.0.0.1", "::ffff:10.0.0.1"]), &["hosts[1].inner_ip_address"]);
        for nobody in ["0.0.0.0", "::", "224.0.0.1", "::ffff:224.0.0.1", "169.254.169.254"] {
            check(request(&[nobody]), &["hosts[0].inner_ip_address"]);
        }
        let bad = v1::BatchCreateHostsRequest {
            kind: 0,
            ssh_port: 70_000,
            agent_port: -1,
            idc_id: 0,
            type_id: -7,
            credential_id: -1,
            alias: "one".into(),
            description: "a\nb".into(),
            publish_ports: vec!["8080".into()],
            reason: "a\nb".into(),
            ..request(&["10.0.0.1", "10.0.0.2"])
        };
        check(
            bad,
            &[
                "kind",
                "publish_ports",
                "ssh_port",
                "agent_port",
                "idc_id",
                "type_id",
                "credential_id",
                "alias",
                "description",
                "reason",
            ],
        );
    }

    #[test]
    fn ports_are_those_of_containers() {
        let container = |ports: &[&str]| v1::BatchCreateHostsRequest {
            kind: v1::HostKind::DedicatedContainer.into(),
            publish_ports: ports.iter().map(|&port| port.into()).collect(),
            ..request(&["10.0.0.1"])
        };
        // As the documents print it.
        check(container(&["8080:8080,8090,8090"]), &[]);
        check(container(&["8080:8080", "8090"]), &[]);
        for bad in [&[][..], &[""], &["8080:"], &["0"], &["65536"], &["8080 "], &["+80"], &["080"]] {
            check(container(bad), &["publish_ports"]);
        }
    }

    /// Hazard I15: nothing is never all.
    #[test]
    fn nobody_is_deleted_by_chance() {
        assert!(delete_order(vec![], true, String::new(), None).is_err());
        assert!(delete_order(vec![1, 0], false, String::new(), None).is_err());
        assert!(delete_order(vec![1; 2001], false, String::new(), None).is_err());
        let (order, terms) = delete_order(vec![2, 1, 2], false, String::new(), None).expect("acceptable");
        assert_eq!((order.hosts.len(), order.force, terms.dry_run), (2, false, false));
        let wait = v1::OrderTerms { wait: Some(prost_types::Duration::default()), ..Default::default() };
        assert!(delete_order(vec![1], false, String::new(), Some(wait)).is_err());
    }

    #[test]
    fn what_is_not_said_of_a_host_stays() {
        let ask = |idc_id, alias: Option<&str>| v1::UpdateHostProfileRequest {
            host_id: 1,
            idc_id,
            alias: alias.map(str::to_owned),
            ..Default::default()
        };
        assert!(profile_order(ask(None, None)).is_err());
        assert!(profile_order(ask(Some(-1), None)).is_err());
        let (_, order, _) = profile_order(ask(Some(0), None)).expect("acceptable");
        assert_eq!((order.idc, order.host_type, order.alias), (Some(None), None, None));
    }
}
