//! The shape of a JSON document: keys in their order, types, nulls. Values are left out.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, SeqAccess, Visitor},
};

/// The shape of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// Any other number.
    Float,
    /// A text.
    Text,
    /// A list; the shapes of its elements.
    List(Vec<Shape>),
    /// An object: its keys in their order, each with the shape of its value.
    Object(Vec<(String, Shape)>),
}

impl Shape {
    /// The shape of a document.
    ///
    /// # Panics
    /// Where it is no JSON.
    pub fn of(json: &str) -> Self {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in:\n{json}"))
    }

    /// The shape at a key of an object.
    pub fn at(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, shape)| shape),
            _ => None,
        }
    }
}

/// How an answer may differ in shape from a documented one. Places are written as in `data.contents[].name`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Freedom {
    /// Where `null` may stand for a documented value.
    pub may_be_null: Vec<String>,
    /// Which documented keys may be left out.
    pub may_be_absent: Vec<String>,
    /// Which keys may be there that this example lacks: those that the documents' tables, or other examples, have.
    pub may_be_added: Vec<String>,
}

impl Shape {
    /// Where this is not of a documented shape: another key, another order of keys, another type, a `null` or the lack of one.
    /// What no example of a list shows is not compared.
    pub fn differences(&self, documented: &Self, freedom: &Freedom) -> Vec<String> {
        self.differences_at("", documented, freedom)
    }

    fn differences_at(&self, place: &str, documented: &Self, freedom: &Freedom) -> Vec<String> {
        match (self, documented) {
            (Self::Object(fields), Self::Object(documented)) => {
                let below = |key: &str| {
                    [place, key].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
                };
                let keys: Vec<_> = fields.iter().map(|(key, _)| key).collect();
                let is_shown = |key: &String| documented.iter().any(|(shown, _)| shown == key);
                let is_added = |key: &String| freedom.may_be_added.contains(&below(key)) && !is_shown(key);
                let is_left_out =
                    |key: &String| freedom.may_be_absent.contains(&below(key)) && !keys.contains(&key);
                let wanted: Vec<_> =
                    documented.iter().map(|(key, _)| key).filter(|key| !is_left_out(key)).collect();
                let keys: Vec<_> = keys.into_iter().filter(|key| !is_added(key)).collect();
                if keys != wanted {
                    return vec![format!("`{place}` has the keys {keys:?}, documented are {wanted:?}")];
                }
                let shape_of = |key| documented.iter().find(|(name, _)| name == key).map(|(_, shape)| shape);
                let differences = fields.iter().filter_map(|(key, shape)| {
                    Some(shape.differences_at(&below(key), shape_of(key)?, freedom))
                });
                differences.flatten().collect()
            }
            (Self::List(elements), Self::List(documented)) => {
                // Elements of one list may have several shapes: the closest one counts.
                let place = format!("{place}[]");
                let closest = |element: &Self| {
                    let told = documented.iter().map(|shown| element.differences_at(&place, shown, freedom));
                    told.min_by_key(Vec::len).unwrap_or_default()
                };
                elements.iter().flat_map(closest).collect()
            }
            (Self::Null, _) if freedom.may_be_null.iter().any(|other| other == place) => Vec::new(),
            (made, documented) if made == documented => Vec::new(),
            (made, documented) => vec![format!("`{place}` is {made:?}, documented is {documented:?}")],
        }
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visit)
    }
}

struct Visit;

impl<'de> Visitor<'de> for Visit {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Boolean)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Integer)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Integer)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Float)
    }

    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Shape, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Shape::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Shape, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = entries.next_entry()? {
            fields.push(field);
        }
        Ok(Shape::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(made: &str, documented: &str, differs: bool) {
        let freedom = Freedom {
            may_be_null: vec!["a[].n".into()],
            may_be_absent: vec!["o".into()],
            ..Freedom::default()
        };
        let differences = Shape::of(made).differences(&Shape::of(documented), &freedom);
        assert_eq!(!differences.is_empty(), differs, "{differences:#?}");
    }

    #[test]
    fn every_difference_in_shape_is_found() {
        let documented = r#"{"a": [{"n": 1, "t": "x"}, {"n": null, "t": null}], "e": [], "o": true}"#;
        check(documented, documented, false);
        check(r#"{"a": [], "e": [7, {"x": 1}]}"#, documented, false);
        check(r#"{"a": [{"n": null, "t": "y"}], "e": [], "o": false}"#, documented, false);
        for other in [
            r#"{"e": [], "a": [], "o": true}"#,
            r#"{"a": [], "o": true}"#,
            r#"{"a": [], "e": [], "o": true, "x": 1}"#,
            r#"{"a": [], "e": [], "o": "true"}"#,
            r#"{"a": [], "e": [], "o": null}"#,
            r#"{"a": [], "e": null}"#,
            r#"{"a": {}, "e": []}"#,
            r#"{"a": [{"n": 1, "t": null}], "e": []}"#,
            r#"{"a": [{"n": 1.5, "t": "x"}], "e": []}"#,
            r#"{"a": [{"t": "x", "n": 1}], "e": []}"#,
            r#"{"a": [{"n": 1, "t": "x"}, {"n": 1}], "e": []}"#,
            "null",
        ] {
            check(other, documented, true);
        }
    }
}
