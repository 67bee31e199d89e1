//! The forms of values that bodies and queries have, as schemas. What the server refuses beyond them, no schema can say.

use belay_proto::Reason;
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{
            AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat,
            SchemaType, Type,
        },
    },
};

use crate::extract::Amount;

/// The key of a label, as in Kubernetes.
const LABEL_KEY: &str = r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$";
/// The value of a label.
const LABEL_VALUE: &str = r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$";
/// What goes into logs and the audit trail has no control characters.
pub(super) const ONE_LINE: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";

/// The same, not empty and without blanks at its ends.
const TRIMMED_LINE: &str = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$";
/// What hosts can be.
const HOST_KINDS: [&str; 3] = ["DEDICATED_PHYSICAL_MACHINE", "DEDICATED_CONTAINER", "DEDICATED_ECS"];

/// A label selector: requirements joined by commas, or `all`.
pub(super) fn selector_pattern() -> String {
    let word = "[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?";
    let key = format!("([a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*/)?{word}");
    let one =
        format!("(! *{key}|{key}( *(=|==|!=) *({word})?| +(in|notin) *\\( *{word}( *, *{word})* *\\))?)");
    format!("^ *{one}( *, *{one})* *$")
}

/// A label selector.
pub(crate) fn selector() -> RefOr<Schema> {
    text()
        .pattern(Some(selector_pattern()))
        .max_length(Some(4096))
        .examples(["zone=z1,tier!=test", "all"])
        .build()
        .into()
}

/// A label selector, or nothing.
pub(crate) fn maybe_selector() -> RefOr<Schema> {
    let nothing = ObjectBuilder::new().schema_type(SchemaType::new(Type::Null));
    one_of(OneOfBuilder::new().item(nothing).item(selector()))
}

/// The closed list of reasons for which Belay says no.
pub(crate) fn reason() -> RefOr<Schema> {
    let all = Reason::ALL.iter().map(|reason| reason.as_str());
    text().enum_values(Some(all)).description(Some("What a program acts on.")).build().into()
}

/// Labels to set, by key.
pub(crate) fn labels() -> RefOr<Schema> {
    let value = text().pattern(Some(LABEL_VALUE));
    let key = text().pattern(Some(LABEL_KEY)).max_length(Some(317)).build();
    ObjectBuilder::new()
        .schema_type(or_null(Type::Object))
        .property_names(Some(Schema::Object(key)))
        .additional_properties(Some(Schema::Object(value.build())))
        .description(Some("Those to set, by key."))
        .build()
        .into()
}

/// The key of a label, or nothing.
pub(crate) fn maybe_label_key() -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(or_null(Type::String));
    text.pattern(Some(LABEL_KEY)).max_length(Some(317)).build().into()
}

/// Keys of labels.
pub(crate) fn label_keys() -> RefOr<Schema> {
    ArrayBuilder::new()
        .schema_type(or_null(Type::Array))
        .items(text().pattern(Some(LABEL_KEY)).max_length(Some(317)))
        .description(Some("The keys of those to remove."))
        .build()
        .into()
}

/// Ids of the hosts of a batch, or nothing.
pub(crate) fn maybe_ids() -> RefOr<Schema> {
    maybe_up_to(2000)
}

/// Ids of the hosts on which a role is good, or nothing.
pub(crate) fn maybe_granted_hosts() -> RefOr<Schema> {
    maybe_up_to(1000)
}

/// So many ids of hosts at most, or nothing.
fn maybe_up_to(most: usize) -> RefOr<Schema> {
    let id = ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::Integer))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(1_usize))
        .maximum(Some(i64::MAX as usize));
    ArrayBuilder::new()
        .schema_type(or_null(Type::Array))
        .items(id)
        .min_items(Some(1))
        .max_items(Some(most))
        .build()
        .into()
}

/// What a region, a data centre or a host type is called.
pub(crate) fn name() -> RefOr<Schema> {
    text().pattern(Some(TRIMMED_LINE)).min_length(Some(1)).max_length(Some(64)).build().into()
}

/// The alias of a host, or nothing.
pub(crate) fn maybe_alias() -> RefOr<Schema> {
    maybe_line(64)
}

/// A description, or nothing.
pub(crate) fn maybe_description() -> RefOr<Schema> {
    maybe_line(500)
}

/// A serial number, or nothing.
pub(crate) fn maybe_serial_number() -> RefOr<Schema> {
    maybe_line(128)
}

/// One line of text, or nothing.
fn maybe_line(longest: usize) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(or_null(Type::String));
    text.pattern(Some(ONE_LINE)).max_length(Some(longest)).build().into()
}

/// The address of a host.
pub(crate) fn address() -> RefOr<Schema> {
    let address = |format| text().format(Some(SchemaFormat::KnownFormat(format)));
    let both = AnyOfBuilder::new().item(address(KnownFormat::Ipv4)).item(address(KnownFormat::Ipv6));
    RefOr::T(Schema::AnyOf(both.description(Some("An IP address, and no name.")).build()))
}

/// What a host is.
pub(crate) fn host_kind() -> RefOr<Schema> {
    text().enum_values(Some(HOST_KINDS)).build().into()
}

/// Which ports a container publishes, or nothing.
pub(crate) fn maybe_ports() -> RefOr<Schema> {
    let entry = || text().pattern(Some(ports_pattern())).max_length(Some(200));
    let nothing = ObjectBuilder::new().schema_type(SchemaType::new(Type::Null));
    let many = ArrayBuilder::new().items(entry()).max_items(Some(100));
    one_of(
        OneOfBuilder::new()
            .item(nothing)
            .item(many)
            .item(entry())
            .description(Some("Those of a container, as one text or as more."))
            .examples([json!(["8080:8080", "8090"]), json!("8080:8080,8090")]),
    )
}

/// Ports joined by commas, each as `PORT` or `PORT:PORT`.
fn ports_pattern() -> String {
    let port = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
    let one = format!("{port}(:{port})?");
    format!("^{one}(,{one})*$")
}

/// A password: from 8 to 256 bytes, which a schema can not count.
pub(crate) fn password() -> RefOr<Schema> {
    let bytes = text().min_length(Some(8)).max_length(Some(256)).pattern(Some(r"^[\x00-\x7f]*$"));
    let letters = text().min_length(Some(8)).max_length(Some(64));
    let both = AnyOfBuilder::new().item(bytes).item(letters);
    RefOr::T(Schema::AnyOf(both.description(Some("From 8 to 256 bytes.")).build()))
}

/// The roles that there are.
const ROLES: [&str; 6] =
    ["ADMIN", "HOST_MANAGER", "HOST_OPERATOR", "HOST_VIEWER", "TASK_MANAGER", "TASK_VIEWER"];

/// Roles of a user.
pub(crate) fn roles() -> RefOr<Schema> {
    ArrayBuilder::new().items(text().enum_values(Some(ROLES))).min_items(Some(1)).build().into()
}

/// A role.
pub(crate) fn role() -> RefOr<Schema> {
    text().enum_values(Some(ROLES)).build().into()
}

/// Up to a day.
pub(crate) fn day() -> RefOr<Schema> {
    period(86_400)
}

/// Up to a week.
pub(crate) fn week() -> RefOr<Schema> {
    period(7 * 86_400)
}

/// A length of time of at most so many seconds, said as a number of them or with a unit.
fn period(longest: usize) -> RefOr<Schema> {
    let seconds = ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::Integer))
        .minimum(Some(1_usize))
        .maximum(Some(longest))
        .description(Some("Seconds."));
    let units = text()
        .pattern(Some("^[1-9][0-9]{0,2}(s|m)$"))
        .description(Some("With units. Longer forms such as `1h 30m` are read too."));
    let nothing = ObjectBuilder::new().schema_type(SchemaType::new(Type::Null));
    one_of(OneOfBuilder::new().item(nothing).item(seconds).item(units))
}

impl PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        let count = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Integer))
            .minimum(Some(1_usize))
            .maximum(Some(usize::MAX))
            .description(Some("A count of hosts."));
        let share = text()
            .pattern(Some("^([1-9][0-9]{0,8}|([1-9][0-9]?|100)%|rest)$"))
            .description(Some("A count, a share of all hosts, or what is left of them."));
        one_of(OneOfBuilder::new().item(count).item(share).examples([json!(3), json!("10%")]))
    }
}

impl ToSchema for Amount {}

/// What must hold of a body as a whole, beyond each of its fields; `None` where that is all.
pub(super) fn conditions(body: &str) -> Option<Value> {
    let said = |name: &str| json!({"required": [name], "properties": {name: {"not": {"type": "null"}}}});
    let unsaid = |name: &str| json!({"properties": {name: {"type": "null"}}});
    Some(match body {
        "BatchBody" => {
            let ways = ["hostIds", "hostids", "hostIdList", "selector", "rerunOf", "planId"];
            let policy = [
                "parallel",
                "waves",
                "stopAfter",
                "stopAfterInWave",
                "healthyFor",
                "absent",
                "absentWait",
                "oneAtATime",
                "budgets",
            ];
            let one_way = ways.map(|way| {
                let others = ways.into_iter().filter(|other| *other != way);
                let never = others.chain(policy.into_iter().filter(|_| way == "planId"));
                let mut all: Vec<_> = never.map(unsaid).collect();
                if way == "planId" {
                    all.push(json!({"properties": {"approveWaves": {"enum": [false, null]}}}));
                }
                all.push(said(way));
                json!({"allOf": all})
            });
            let waits = json!({"required": ["absent"], "properties": {"absent": {"const": "WAIT"}}});
            json!([
                {"oneOf": one_way},
                {"if": waits, "then": said("absentWait"), "else": unsaid("absentWait")},
            ])
        }
        "CreateHostsBody" => {
            let is_container = json!({"properties": {"kind": {"const": "DEDICATED_CONTAINER"}}});
            let published = json!({"required": ["publishPorts"], "properties": {
                "publishPorts": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1}]},
            }});
            let unpublished = json!({"properties": {
                "publishPorts": {"anyOf": [{"type": "null"}, {"type": "array", "maxItems": 0}]},
            }});
            let one = json!({"properties": {"hostBasicDataList": {"maxItems": 1}}});
            let unnamed = json!({"properties": {"alias": {"enum": ["", null]}}});
            json!([
                {"if": is_container, "then": published, "else": unpublished},
                {"anyOf": [one, unnamed]},
                {"anyOf": [unsaid("description"), unsaid("descripiton")]},
            ])
        }
        // Not the address of no host, and not that of many.
        "HostBasicData" => json!([{"properties": {"innerIpAddress": {"not": {
            "pattern": r"^(0\.0\.0\.0|22[4-9]\..*|23[0-9]\..*|[0:]*|[fF][fF][0-9a-fA-F]{2}:.*)$",
        }}}}]),
        "DeleteHostsBody" => {
            let ways = ["hostIdList", "hostIds", "hostids"];
            let one_way = ways.map(|way| {
                let others = ways.into_iter().filter(|other| *other != way).map(unsaid);
                json!({"allOf": others.chain([said(way)]).collect::<Vec<_>>()})
            });
            json!([{"oneOf": one_way}])
        }
        // By their ids or by a selector, and by one that does not mean all.
        "GrantBody" => json!([
            {"anyOf": [unsaid("hostIds"), unsaid("selector")]},
            {"properties": {"selector": {"not": {"type": "string", "pattern": "^ *all *$"}}}},
        ]),
        "ProfileBody" => {
            let any = ["idcId", "typeId", "alias", "description"].map(said);
            json!([{"anyOf": any}])
        }
        "PlanBody" => json!([
            said("verb"),
            said("order"),
            {"properties": {"order": unsaid("dryRun")}},
        ]),
        "LabelsBody" => {
            let set =
                json!({"required": ["set"], "properties": {"set": {"type": "object", "minProperties": 1}}});
            let remove =
                json!({"required": ["remove"], "properties": {"remove": {"type": "array", "minItems": 1}}});
            let ours = json!({"properties": {"set": {"propertyNames": {"not": {"pattern": "^belay/"}}}}});
            json!([{"anyOf": [set, remove]}, ours])
        }
        "MaintenanceBody" => {
            let why = json!({"type": "string", "pattern": r"\S"});
            let begins =
                json!({"required": ["reason"], "properties": {"on": {"const": true}, "reason": why}});
            let ends = json!({"properties": {"on": {"const": false}, "durationSeconds": {"type": "null"}}});
            json!([said("on"), {"oneOf": [begins, ends]}])
        }
        _ => return None,
    })
}

fn one_of(schemas: OneOfBuilder) -> RefOr<Schema> {
    RefOr::T(Schema::OneOf(schemas.build()))
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::new(Type::String))
}

fn or_null(kind: Type) -> SchemaType {
    SchemaType::from_iter([kind, Type::Null])
}
