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

/// Ids of hosts, or nothing.
pub(crate) fn maybe_ids() -> RefOr<Schema> {
    let id = ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::Integer))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(1_usize))
        .maximum(Some(i64::MAX as usize));
    ArrayBuilder::new()
        .schema_type(or_null(Type::Array))
        .items(id)
        .min_items(Some(1))
        .max_items(Some(2000))
        .build()
        .into()
}

/// A password: from 8 to 256 bytes, which a schema can not count.
pub(crate) fn password() -> RefOr<Schema> {
    let bytes = text().min_length(Some(8)).max_length(Some(256)).pattern(Some(r"^[\x00-\x7f]*$"));
    let letters = text().min_length(Some(8)).max_length(Some(64));
    let both = AnyOfBuilder::new().item(bytes).item(letters);
    RefOr::T(Schema::AnyOf(both.description(Some("From 8 to 256 bytes.")).build()))
}

/// Roles of a user.
pub(crate) fn roles() -> RefOr<Schema> {
    let names = ["ADMIN", "HOST_MANAGER", "HOST_VIEWER", "TASK_MANAGER", "TASK_VIEWER"];
    ArrayBuilder::new().items(text().enum_values(Some(names))).min_items(Some(1)).build().into()
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
            json!([{"anyOf": [set, remove]}])
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
