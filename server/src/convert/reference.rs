//! Regions, data centres and host types.

use belay_proto::{HostTypeId, IdcId, RegionId, v1};

use super::{inward::reason, outward::time, terms::of_change};
use crate::{
    error::Error,
    reference::{HostType, Idc, NewReference, Region},
    terms::Terms,
};

/// What a name, and what a description may have, in characters.
const LONGEST_NAME: usize = 64;
const LONGEST_DESCRIPTION: usize = 500;

pub(crate) fn region_id(id: i64) -> Result<RegionId, Error> {
    RegionId::try_from(id).map_err(|invalid| Error::invalid("region_id", invalid))
}

pub(crate) fn idc_id(id: i64) -> Result<IdcId, Error> {
    IdcId::try_from(id).map_err(|invalid| Error::invalid("idc_id", invalid))
}

pub(crate) fn host_type_id(id: i64) -> Result<HostTypeId, Error> {
    HostTypeId::try_from(id).map_err(|invalid| Error::invalid("host_type_id", invalid))
}

/// What is to be added, with all that is wrong with it.
pub(crate) fn new_reference(
    name: String,
    description: String,
    why: String,
    terms: Option<v1::OrderTerms>,
) -> Result<(NewReference, Terms), Error> {
    let mut faults = Vec::new();
    let what = match check_line(&name, LONGEST_NAME) {
        _ if name.is_empty() => Some("it is empty".to_owned()),
        _ if name.trim() != name => Some("it has blanks at its ends".to_owned()),
        checked => checked.err(),
    };
    faults.extend(what.map(|what| ("name", what)));
    faults.extend(check_line(&description, LONGEST_DESCRIPTION).err().map(|what| ("description", what)));
    match faults.is_empty() {
        true => Ok((NewReference { name, description, reason: reason(why)? }, of_change(terms)?)),
        false => Err(Error::Invalid(faults)),
    }
}

/// One line of text (hazard I12).
pub(super) fn check_line(text: &str, longest: usize) -> Result<(), String> {
    if text.chars().count() > longest {
        return Err(format!("it is longer than {longest} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("it has control characters; write it on one line".into());
    }
    Ok(())
}

/// A description that is acceptable.
pub(super) fn check_description(text: &str) -> Result<(), String> {
    check_line(text, LONGEST_DESCRIPTION)
}

/// An alias that is acceptable.
pub(super) fn check_alias(text: &str) -> Result<(), String> {
    check_line(text, LONGEST_NAME)
}

pub(crate) fn region_to_wire(region: &Region) -> v1::Region {
    let Region { id, name, description, create_time, update_time } = region;
    v1::Region {
        id: id.get(),
        name: name.clone(),
        description: description.clone(),
        create_time: Some(time(*create_time)),
        update_time: Some(time(*update_time)),
    }
}

pub(crate) fn idc_to_wire(idc: &Idc) -> v1::Idc {
    let Idc { id, name, description, region, create_time, update_time } = idc;
    v1::Idc {
        id: id.get(),
        name: name.clone(),
        description: description.clone(),
        region_id: region.id.get(),
        region_name: region.name.clone(),
        create_time: Some(time(*create_time)),
        update_time: Some(time(*update_time)),
    }
}

pub(crate) fn host_type_to_wire(host_type: &HostType) -> v1::HostType {
    let HostType { id, name, description, create_time, update_time } = host_type;
    v1::HostType {
        id: id.get(),
        name: name.clone(),
        description: description.clone(),
        create_time: Some(time(*create_time)),
        update_time: Some(time(*update_time)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, description: &str, wrong: &[&str]) {
        let read = new_reference(name.into(), description.into(), String::new(), None);
        let told = match read {
            Ok(_) => Vec::new(),
            Err(Error::Invalid(faults)) => faults.into_iter().map(|(field, _)| field).collect(),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(told, wrong, "{name:?}");
    }

    /// Hazard I12.
    #[test]
    fn names_are_on_one_line_and_not_empty() {
        check("杭州", "", &[]);
        check("hz 1", "near the lake", &[]);
        check("", "", &["name"]);
        check(" hz", "", &["name"]);
        check("a\nb", "c\nd", &["name", "description"]);
        check(&"x".repeat(65), &"x".repeat(501), &["name", "description"]);
        assert!(region_id(0).is_err() && idc_id(-1).is_err() && host_type_id(0).is_err());
    }
}
