//! Schemas: derived from the types that are read and written, and refined where a type does not say all.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, schema::Schema},
};

use super::{
    forms::{ONE_LINE, conditions},
    words::words,
};

/// A schema, and by name those that it refers to.
#[derive(Debug)]
pub(crate) struct Described {
    pub(super) schema: Value,
    pub(super) parts: BTreeMap<String, Value>,
}

impl Described {
    /// The schema of a type, in place.
    pub(super) fn in_place<T: ToSchema>() -> Self {
        let mut parts = Vec::new();
        T::schemas(&mut parts);
        let parts = parts.into_iter().map(|(name, schema)| (name, written(&schema))).collect();
        Self { schema: written(&T::schema()), parts }
    }

    /// The schema of a type, by its name.
    pub(super) fn by_name<T: ToSchema>() -> Self {
        let Self { schema, mut parts } = Self::in_place::<T>();
        let name = T::name().into_owned();
        let by_name = json!({"$ref": format!("#/components/schemas/{name}")});
        parts.insert(name, schema);
        Self { schema: by_name, parts }
    }

    /// The same with a type that it refers to by its name: a generic type does not tell of its arguments.
    pub(super) fn with<T: ToSchema>(mut self) -> Self {
        self.parts.extend(Self::by_name::<T>().parts);
        self
    }

    /// The schema of either of two types.
    pub(super) fn one_of<T: ToSchema, U: ToSchema>() -> Self {
        Self::by_name::<T>().or::<U>()
    }

    /// The same, or that of another type.
    pub(super) fn or<T: ToSchema>(self) -> Self {
        let (Self { schema: one, mut parts }, other) = (self, Self::by_name::<T>());
        parts.extend(other.parts);
        Self { schema: json!({"oneOf": [one, other.schema]}), parts }
    }
}

/// What a schema of an answer does not say by itself: whatever is there as `null` is there, a time is one,
/// and some fields have few words.
pub(super) fn refine_answer(name: &str, schema: &mut Value) {
    each_object(schema, &mut |properties, required| {
        for (field, property) in properties {
            let is_null_at_times = !required.contains(field) && may_be_null(property);
            if is_null_at_times {
                required.push(field.clone());
            }
            let is_time = field == "time" || field == "timestamp" || field.ends_with("Time");
            if is_time && has_type(property, "string") {
                property["format"] = json!("date-time");
            }
            if let Some(words) = words(name, field) {
                let nothing = may_be_null(property).then_some(Value::Null);
                let one = if has_type(property, "array") { &mut property["items"] } else { property };
                one["enum"] = words.into_iter().map(Value::from).chain(nothing).collect();
            }
        }
    });
}

/// What a schema of a body does not say by itself: what a reason may be, and which fields are ours.
pub(super) fn refine_body(name: &str, schema: &mut Value) {
    each_object(schema, &mut |properties, _| {
        for (field, property) in properties {
            if field == "reason" {
                property["maxLength"] = json!(500);
                property["pattern"] = json!(ONE_LINE);
            }
            if !documented_fields(name).contains(&field.as_str()) {
                property[super::EXTENSION] = json!(true);
            }
        }
    });
    if let Some(conditions) = conditions(name) {
        schema["allOf"] = conditions;
    }
}

/// Fields of a body that the documents of OCP have. Every other one is ours.
fn documented_fields(body: &str) -> &'static [&'static str] {
    match body {
        "BatchBody" | "DeleteHostsBody" => &["hostIds", "hostids", "hostIdList"],
        "CreateHostsBody" => &[
            "hostBasicDataList",
            "sshPort",
            "kind",
            "publishPorts",
            "idcId",
            "typeId",
            "credentialId",
            "alias",
            "description",
            "descripiton",
        ],
        "HostBasicData" => &["innerIpAddress", "serialNumber"],
        "ReferenceBody" => &["name", "description"],
        "IdcBody" => &["name", "description", "regionId"],
        _ => &[],
    }
}

type Change<'a> = dyn FnMut(&mut serde_json::Map<String, Value>, &mut Vec<String>) + 'a;

/// Calls `change` with the properties of each object in a schema, and with the names of those that are required.
fn each_object(schema: &mut Value, change: &mut Change<'_>) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(|schema| each_object(schema, change)),
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get("properties") {
                let mut properties = properties.clone();
                let mut required: Vec<String> = match fields.get("required") {
                    Some(Value::Array(names)) => {
                        names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
                    }
                    _ => Vec::new(),
                };
                change(&mut properties, &mut required);
                fields.insert("properties".to_owned(), Value::Object(properties));
                if !required.is_empty() {
                    fields.insert("required".to_owned(), json!(required));
                }
            }
            fields.values_mut().for_each(|schema| each_object(schema, change));
        }
        _ => {}
    }
}

fn may_be_null(schema: &Value) -> bool {
    has_type(schema, "null")
        || schema["oneOf"].as_array().is_some_and(|some| some.iter().any(|schema| has_type(schema, "null")))
}

fn has_type(schema: &Value, name: &str) -> bool {
    match &schema["type"] {
        Value::String(only) => only == name,
        Value::Array(any) => any.iter().any(|one| one == name),
        _ => false,
    }
}

fn written(schema: &RefOr<Schema>) -> Value {
    // A schema of utoipa is always JSON.
    serde_json::to_value(schema).unwrap_or_default()
}
