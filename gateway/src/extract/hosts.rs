//! What bodies say of hosts that are added, described or deleted, and of what hosts point to.

use belay_proto::{
    Problem,
    v1::{BatchCreateHostsRequest, HostKind, HostToCreate},
};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::invalid;
use crate::openapi::forms;

/// The hosts to add, as documented. What is missing or wrong is the server's to say, all of it at once.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CreateHostsBody {
    /// The hosts, each by its address.
    #[schema(required = true, nullable = false, min_items = 1, max_items = 500)]
    host_basic_data_list: Option<Vec<HostBasicData>>,
    /// Where SSH listens; 22 where it is not said.
    #[schema(minimum = 1, maximum = 65535)]
    ssh_port: Option<i32>,
    #[schema(required = true, schema_with = forms::host_kind)]
    kind: Option<String>,
    #[schema(schema_with = forms::maybe_ports)]
    publish_ports: Option<Ports>,
    /// The data centre in which they stand.
    #[schema(required = true, nullable = false, minimum = 1)]
    idc_id: Option<i64>,
    /// Their host type.
    #[schema(required = true, nullable = false, minimum = 1)]
    type_id: Option<i64>,
    /// The credential that OCP would use. Belay keeps its number and uses none.
    #[schema(minimum = 1)]
    credential_id: Option<i64>,
    #[schema(schema_with = forms::maybe_alias)]
    alias: Option<String>,
    #[schema(schema_with = forms::maybe_description)]
    description: Option<String>,
    /// The same, as the documents misspell it.
    #[serde(rename = "descripiton")]
    #[schema(schema_with = forms::maybe_description)]
    misspelt_description: Option<String>,
    /// Ours: where the agents listen; 9441 where it is not said.
    #[schema(minimum = 1, maximum = 65535)]
    agent_port: Option<i32>,
    /// Why, for the audit trail.
    reason: Option<String>,
    /// Whether only a preview is wanted.
    pub(crate) dry_run: Option<bool>,
}

/// A host to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct HostBasicData {
    #[schema(required = true, schema_with = forms::address)]
    inner_ip_address: Option<String>,
    #[schema(schema_with = forms::maybe_serial_number)]
    serial_number: Option<String>,
}

/// Published ports: a list of texts, or one text, as the documents have it both ways.
#[derive(Debug, Default)]
struct Ports(Vec<String>);

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "ports such as [\"8080:8080\", \"8090\"] or \"8080:8080,8090\"")]
        enum Either {
            Many(Vec<String>),
            One(String),
        }
        Ok(match Either::deserialize(from)? {
            Either::Many(ports) => Self(ports),
            Either::One(port) => Self(vec![port]),
        })
    }
}

impl CreateHostsBody {
    /// The order, as the wire has it.
    pub(crate) fn order(self) -> Result<BatchCreateHostsRequest, Problem> {
        let host = |HostBasicData { inner_ip_address, serial_number }| HostToCreate {
            inner_ip_address: inner_ip_address.unwrap_or_default(),
            serial_number: serial_number.unwrap_or_default(),
        };
        if self.description.is_some() && self.misspelt_description.is_some() {
            return Err(invalid("descripiton", "the description is said under two names").hint("leave one"));
        }
        let description = self.description.or(self.misspelt_description);
        let kind = self.kind.and_then(|kind| HostKind::from_str_name(&format!("HOST_KIND_{kind}")));
        Ok(BatchCreateHostsRequest {
            hosts: self.host_basic_data_list.unwrap_or_default().into_iter().map(host).collect(),
            kind: kind.unwrap_or(HostKind::Unspecified).into(),
            ssh_port: said(self.ssh_port),
            publish_ports: self.publish_ports.unwrap_or_default().0,
            idc_id: self.idc_id.unwrap_or_default(),
            type_id: self.type_id.unwrap_or_default(),
            credential_id: self.credential_id.map_or(0, |id| if id == 0 { -1 } else { id }),
            alias: self.alias.unwrap_or_default(),
            description: description.unwrap_or_default(),
            agent_port: said(self.agent_port),
            reason: self.reason.unwrap_or_default(),
            terms: None,
        })
    }
}

/// A port that is 0, which stands for the usual one on the wire, where it is not said. Said in so many words it is none.
fn said(port: Option<i32>) -> i32 {
    port.map_or(0, |port| if port == 0 { -1 } else { port })
}

/// The hosts to delete.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DeleteHostsBody {
    /// As the documents spell it here.
    #[schema(schema_with = forms::maybe_ids)]
    host_id_list: Option<Vec<i64>>,
    /// As they spell it elsewhere.
    #[schema(schema_with = forms::maybe_ids)]
    host_ids: Option<Vec<i64>>,
    /// As they spell it elsewhere too.
    #[serde(rename = "hostids")]
    #[schema(schema_with = forms::maybe_ids)]
    hostids: Option<Vec<i64>>,
    /// Whether also those that are lost, with processes that ran when their agent was last heard.
    force: Option<bool>,
    /// Why, for the audit trail.
    reason: Option<String>,
    /// Whether only a preview is wanted.
    pub(crate) dry_run: Option<bool>,
}

impl DeleteHostsBody {
    /// Which hosts, whether also lost ones, and why.
    pub(crate) fn order(self) -> Result<(Vec<i64>, bool, String), Problem> {
        let Self { host_id_list, host_ids, hostids, force, reason, dry_run: _ } = self;
        let mut lists = [host_id_list, host_ids, hostids].into_iter().flatten();
        let hosts = lists.next().unwrap_or_default();
        if lists.next().is_some() {
            return Err(
                invalid("hostIdList", "the hosts are said under more than one name").hint("leave one")
            );
        }
        if hosts.is_empty() {
            return Err(invalid("hostIdList", "no host is named, and nothing never means all"));
        }
        Ok((hosts, force.unwrap_or(false), reason.unwrap_or_default()))
    }
}

/// What is said of a host. 0 and an empty text take away what was said.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ProfileBody {
    /// The data centre in which it stands; 0 for none.
    #[schema(minimum = 0)]
    pub(crate) idc_id: Option<i64>,
    /// Its host type; 0 for none.
    #[schema(minimum = 0)]
    pub(crate) type_id: Option<i64>,
    #[schema(schema_with = forms::maybe_alias)]
    pub(crate) alias: Option<String>,
    #[schema(schema_with = forms::maybe_description)]
    pub(crate) description: Option<String>,
    /// Why, for the audit trail.
    pub(crate) reason: Option<String>,
    /// Whether only a preview is wanted.
    pub(crate) dry_run: Option<bool>,
}

/// The region or the host type to add.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ReferenceBody {
    #[schema(required = true, schema_with = forms::name)]
    pub(crate) name: Option<String>,
    #[schema(schema_with = forms::maybe_description)]
    pub(crate) description: Option<String>,
    /// Why, for the audit trail.
    pub(crate) reason: Option<String>,
    /// Whether only a preview is wanted.
    pub(crate) dry_run: Option<bool>,
}

/// The data centre to add.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct IdcBody {
    #[schema(required = true, schema_with = forms::name)]
    pub(crate) name: Option<String>,
    #[schema(schema_with = forms::maybe_description)]
    pub(crate) description: Option<String>,
    /// The region in which it is.
    #[schema(required = true, nullable = false, minimum = 1)]
    pub(crate) region_id: Option<i64>,
    /// Why, for the audit trail.
    pub(crate) reason: Option<String>,
    /// Whether only a preview is wanted.
    pub(crate) dry_run: Option<bool>,
}

/// The documented name of a field of the wire contract, in an order to add or to delete hosts.
pub(crate) fn documented_field(name: &str) -> String {
    let name = match name.strip_prefix("hosts") {
        Some(rest) if rest.is_empty() || rest.starts_with('[') => format!("host_basic_data_list{rest}"),
        _ if name == "host_ids" => "host_id_list".to_owned(),
        _ => name.to_owned(),
    };
    let mut camel = String::with_capacity(name.len());
    for part in name.split('_') {
        let mut letters = part.chars();
        match letters.next() {
            Some(first) if !camel.is_empty() => {
                camel.extend(first.to_uppercase());
                camel.push_str(letters.as_str());
            }
            _ => camel.push_str(part),
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::body::parse;

    /// The documented body, its malformed example value included.
    #[test]
    fn the_documented_body_is_read() {
        let body = r#"{"hostBasicDataList": [{"innerIpAddress": "10.0.0.1", "serialNumber": "SN1"}],
            "sshPort": 22, "kind": "DEDICATED_CONTAINER", "publishPorts": "8080:8080,8090,8090", "idcId": 1,
            "typeId": 2, "credentialId": 3, "alias": "one", "descripiton": "a host"}"#;
        let order = parse::<CreateHostsBody>(body.as_bytes()).and_then(CreateHostsBody::order).expect("read");
        let host = HostToCreate { inner_ip_address: "10.0.0.1".into(), serial_number: "SN1".into() };
        let expected = BatchCreateHostsRequest {
            hosts: vec![host],
            kind: HostKind::DedicatedContainer.into(),
            ssh_port: 22,
            publish_ports: vec!["8080:8080,8090,8090".into()],
            idc_id: 1,
            type_id: 2,
            credential_id: 3,
            alias: "one".into(),
            description: "a host".into(),
            ..Default::default()
        };
        assert_eq!(order, expected);
    }

    /// Hazard I15: what says nothing on the wire is never what a body says.
    #[test]
    fn what_can_not_be_is_passed_on_as_such() {
        let order = |body: &str| {
            parse::<CreateHostsBody>(body.as_bytes()).and_then(CreateHostsBody::order).expect("read")
        };
        let bad = order(r#"{"sshPort": 0, "agentPort": 0, "credentialId": 0, "kind": "MAINFRAME"}"#);
        assert_eq!((bad.ssh_port, bad.agent_port, bad.credential_id, bad.kind), (-1, -1, -1, 0));
        assert_eq!(order("{}"), BatchCreateHostsRequest::default());
        assert!(parse::<CreateHostsBody>(br#"{"publishPorts": 8080}"#).is_err());
        assert!(parse::<CreateHostsBody>(br#"{"hostIps": ["10.0.0.1"]}"#).is_err());
        let twice = parse::<CreateHostsBody>(br#"{"description": "a", "descripiton": "a"}"#).expect("read");
        assert_eq!(twice.order().expect_err("refused").fields[0].0, "descripiton");
    }

    /// Hazard I04: the documents spell it in three ways.
    #[test]
    fn hosts_to_delete_are_named_once() {
        let order = |body: &str| parse::<DeleteHostsBody>(body.as_bytes()).and_then(DeleteHostsBody::order);
        for name in ["hostIdList", "hostIds", "hostids"] {
            assert_eq!(
                order(&format!(r#"{{"{name}": [2]}}"#)),
                Ok((vec![2], false, String::new())),
                "{name}"
            );
        }
        let forced = r#"{"hostIdList": [2], "force": true, "reason": "lost"}"#;
        assert_eq!(order(forced), Ok((vec![2], true, "lost".to_owned())));
        for bad in
            ["{}", r#"{"hostIdList": []}"#, r#"{"hostIds": [1], "hostids": [1]}"#, r#"{"force": true}"#]
        {
            assert!(order(bad).is_err(), "{bad}");
        }
    }
}
