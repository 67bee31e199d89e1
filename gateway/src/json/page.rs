//! Lists.

use belay_proto::v1;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Paged<T> {
    /// The rows of this page.
    pub contents: Vec<T>,
    /// Which page this is.
    pub page: Page,
}

/// A whole list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listed<T> {
    /// All its rows.
    pub contents: Vec<T>,
}

/// Where a page stands in the whole list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// Its number, from 1.
    pub number: i32,
    /// Rows in a full page.
    pub size: i32,
    /// Rows in the whole list.
    pub total_elements: i64,
    /// Pages in the whole list.
    pub total_pages: i32,
}

impl From<v1::Page> for Page {
    fn from(wire: v1::Page) -> Self {
        let v1::Page { number, size, total_elements, total_pages } = wire;
        Self { number, size, total_elements, total_pages }
    }
}
