//! The wire contract against the one that was last released, `released.binpb`: callers of that one must still be understood.
//! `buf breaking` looks for more; this needs nothing but Rust. How to renew the file is in CONTRIBUTING.md.

use std::fmt::Write as _;

use prost_reflect::{DescriptorPool, FieldDescriptor, MethodDescriptor};

#[test]
fn nothing_that_was_released_is_gone_or_another() {
    let released = pool(include_bytes!("../released.binpb"));
    let now = pool(belay_proto::FILE_DESCRIPTOR_SET);
    let broken = broken(&released, &now);
    assert!(broken.is_empty(), "callers of the released contract would not be understood:\n{broken}");
}

/// The other test could not fail if everything were new to it.
#[test]
fn what_was_released_is_found() {
    let released = pool(include_bytes!("../released.binpb"));
    let process = released.get_message_by_name("belay.v1.AgentProcess").expect("the message");
    assert_eq!(process.get_field(3).expect("the field").name(), "alias");
    let nothing = DescriptorPool::new();
    assert!(broken(&released, &nothing).contains("belay.v1.AgentProcess is gone"));
    // Another contract in which one type has the fields of another.
    let mut swapped = belay_proto::FILE_DESCRIPTOR_SET.to_vec();
    let (alias, other) = (b"\n\x05alias", b"\n\x05alibi");
    let places: Vec<_> =
        (0..swapped.len() - alias.len()).filter(|&at| swapped[at..].starts_with(alias)).collect();
    for at in places {
        swapped[at..at + other.len()].copy_from_slice(other);
    }
    assert!(broken(&released, &pool(&swapped)).contains("belay.v1.AgentProcess: field 3"));
}

fn pool(bytes: &[u8]) -> DescriptorPool {
    DescriptorPool::decode(bytes).expect("descriptors")
}

/// What callers of `released` would stumble over, one a line.
fn broken(released: &DescriptorPool, now: &DescriptorPool) -> String {
    let mut told = String::new();
    let mut tell = |what: String| writeln!(told, "{what}").expect("written");
    for message in released.all_messages().filter(|message| is_ours(message.package_name())) {
        let name = message.full_name();
        let Some(current) = now.get_message_by_name(name) else {
            tell(format!("{name} is gone"));
            continue;
        };
        for field in message.fields() {
            let was = shape(&field);
            let is = current.get_field(field.number()).map(|field| shape(&field));
            if is.as_ref() != Some(&was) {
                tell(format!("{name}: field {} was {was}, and is {is:?}", field.number()));
            }
        }
    }
    for one in released.all_enums().filter(|one| is_ours(one.package_name())) {
        let name = one.full_name();
        let current = now.get_enum_by_name(name);
        for value in one.values() {
            let is = current.as_ref().and_then(|current| current.get_value(value.number()));
            if is.as_ref().map(|value| value.name().to_owned()) != Some(value.name().to_owned()) {
                tell(format!("{name}: value {} was {}", value.number(), value.name()));
            }
        }
    }
    for service in released.services().filter(|service| is_ours(service.package_name())) {
        let current = now.get_service_by_name(service.full_name());
        for method in service.methods() {
            let is =
                current.as_ref().and_then(|one| one.methods().find(|other| other.name() == method.name()));
            if is.as_ref().map(call) != Some(call(&method)) {
                tell(format!(
                    "{} was {}, and is {:?}",
                    method.full_name(),
                    call(&method),
                    is.as_ref().map(call)
                ));
            }
        }
    }
    told
}

fn is_ours(package: &str) -> bool {
    package.starts_with("belay.")
}

fn shape(field: &FieldDescriptor) -> String {
    format!("{:?} {:?} {} ({})", field.cardinality(), field.kind(), field.name(), field.json_name())
}

fn call(method: &MethodDescriptor) -> String {
    let stream = |is_stream| if is_stream { "stream " } else { "" };
    format!(
        "{}{} -> {}{}",
        stream(method.is_client_streaming()),
        method.input().full_name(),
        stream(method.is_server_streaming()),
        method.output().full_name()
    )
}
