//! Hosts and what they point to.

use super::*;

fn region() -> v1::Region {
    v1::Region {
        id: 3,
        name: "hz".to_owned(),
        create_time: at("2021-08-03T15:02:44+08:00"),
        ..v1::Region::default()
    }
}

fn idc() -> v1::Idc {
    v1::Idc {
        id: 4,
        name: "hz-1".to_owned(),
        description: "near the lake".to_owned(),
        region_id: 3,
        region_name: "hz".to_owned(),
        ..v1::Idc::default()
    }
}

#[test]
fn a_new_host_prints_what_is_said_of_it_and_no_agent() {
    let host = v1::Host {
        id: 20,
        name: "10.0.0.1".to_owned(),
        inner_ip_address: "10.0.0.1".to_owned(),
        status: v1::HostStatus::New.into(),
        agent_address: "10.0.0.1:9441".to_owned(),
        alias: "db1".to_owned(),
        description: "the first".to_owned(),
        serial_number: "SN1".to_owned(),
        kind: v1::HostKind::DedicatedContainer.into(),
        ssh_port: 22,
        publish_ports: vec!["8080:8080".to_owned()],
        idc: Some(idc()),
        region: Some(region()),
        r#type: Some(v1::HostType { id: 5, name: "m1".to_owned(), ..v1::HostType::default() }),
        ..v1::Host::default()
    };
    insta::assert_snapshot!(pretty(&Host::new(host, &zone())), @r#"
    {
      "alias": "db1",
      "architecture": null,
      "createTime": null,
      "description": "the first",
      "hostAgentId": null,
      "hostAgentStatus": null,
      "hostAgentVersion": null,
      "id": 20,
      "idcDescription": "near the lake",
      "idcId": 4,
      "idcName": "hz-1",
      "innerIpAddress": "10.0.0.1",
      "kind": "DEDICATED_CONTAINER",
      "name": "10.0.0.1",
      "operatingSystem": null,
      "operatingSystemRelease": null,
      "publishPorts": [
        "8080:8080"
      ],
      "regionDescription": null,
      "regionId": 3,
      "regionName": "hz",
      "serialNumber": "SN1",
      "services": [],
      "sshPort": 22,
      "status": "NEW",
      "typeDescription": null,
      "typeId": 5,
      "typeName": "m1",
      "updateTime": null
    }
    "#);
}

#[test]
fn what_hosts_point_to_is_as_documented() {
    insta::assert_snapshot!(pretty(&Region::new(region(), &zone())), @r#"
    {
      "createTime": "2021-08-03T15:02:44+08:00",
      "description": null,
      "id": 3,
      "name": "hz",
      "updateTime": null
    }
    "#);
    insta::assert_snapshot!(pretty(&Idc::new(idc(), &zone())), @r#"
    {
      "createTime": null,
      "description": "near the lake",
      "id": 4,
      "name": "hz-1",
      "regionId": 3,
      "regionName": "hz",
      "updateTime": null
    }
    "#);
    insta::assert_snapshot!(pretty(&HostType::new(v1::HostType::default(), &zone())), @r#"
    {
      "createTime": null,
      "description": null,
      "id": 0,
      "name": "",
      "updateTime": null
    }
    "#);
}
