//! What hosts point to, as documented: regions, data centres and host types. What nobody has said is `null`.

use belay_proto::v1;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{known, time};

/// A region, as documented.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs)] // the documented names
pub struct Region {
    pub create_time: Option<String>,
    pub description: Option<String>,
    pub id: i64,
    pub name: String,
    pub update_time: Option<String>,
}

impl Region {
    /// The documented form.
    pub fn new(wire: v1::Region, zone: &TimeZone) -> Self {
        let v1::Region { id, name, description, create_time, update_time } = wire;
        Self {
            create_time: time::wire_seconds(create_time, zone),
            description: known(description),
            id,
            name,
            update_time: time::wire_seconds(update_time, zone),
        }
    }
}

/// A host type, as documented.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs)] // the documented names
pub struct HostType {
    pub create_time: Option<String>,
    pub description: Option<String>,
    pub id: i64,
    pub name: String,
    pub update_time: Option<String>,
}

impl HostType {
    /// The documented form.
    pub fn new(wire: v1::HostType, zone: &TimeZone) -> Self {
        let v1::HostType { id, name, description, create_time, update_time } = wire;
        Self {
            create_time: time::wire_seconds(create_time, zone),
            description: known(description),
            id,
            name,
            update_time: time::wire_seconds(update_time, zone),
        }
    }
}

/// A data centre, as documented.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs)] // the documented names
pub struct Idc {
    pub create_time: Option<String>,
    pub description: Option<String>,
    pub id: i64,
    pub name: String,
    pub region_id: i64,
    pub region_name: String,
    pub update_time: Option<String>,
}

impl Idc {
    /// The documented form.
    pub fn new(wire: v1::Idc, zone: &TimeZone) -> Self {
        let v1::Idc { id, name, description, region_id, region_name, create_time, update_time } = wire;
        Self {
            create_time: time::wire_seconds(create_time, zone),
            description: known(description),
            id,
            name,
            region_id,
            region_name,
            update_time: time::wire_seconds(update_time, zone),
        }
    }
}
