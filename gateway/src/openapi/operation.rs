//! What the description says of a route that its function's arguments do not.

use belay_proto::Reason;
use utoipa::ToSchema;

use super::{parameters::Asks, schemas::Described};
use crate::json::{Listed, Paged};

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    /// As in the table of routes.
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    /// What it does, in one line.
    pub(super) summary: &'static str,
    /// Whether the documents of OCP have it.
    pub(super) documented: bool,
    /// What its query may ask for.
    pub(super) asks: Vec<Asks>,
    /// The data of its answer. `None` where there are none.
    pub(super) answer: Option<Described>,
    /// Why it may be refused or fail, beside what is common to all and what the path tells.
    pub(super) reasons: Vec<Reason>,
    anyone: bool,
    keyed: bool,
}

/// An operation that only reads.
pub(super) fn get(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation {
        method: "GET",
        path,
        id,
        summary,
        documented: true,
        asks: Vec::new(),
        answer: None,
        reasons: Vec::new(),
        anyone: false,
        keyed: false,
    }
}

/// An order. It takes an idempotency key.
pub(super) fn post(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation { method: "POST", keyed: true, ..get(path, id, summary) }
}

/// An order that takes something away.
pub(super) fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation { method: "DELETE", keyed: true, ..get(path, id, summary) }
}

impl Operation {
    /// The documents of OCP do not have it.
    pub(super) fn ours(self) -> Self {
        Self { documented: false, ..self }
    }

    /// Its query may ask for these.
    pub(super) fn asks(self, asks: &[Asks]) -> Self {
        Self { asks: asks.to_vec(), ..self }
    }

    /// It answers with such an object.
    pub(super) fn answers<T: ToSchema>(self) -> Self {
        Self { answer: Some(Described::by_name::<T>()), ..self }
    }

    /// It answers with a page of such objects.
    pub(super) fn answers_page_of<T: ToSchema>(self) -> Self {
        Self { answer: Some(Described::in_place::<Paged<T>>().with::<T>()), ..self }
    }

    /// It answers with a list of such objects.
    pub(super) fn answers_list_of<T: ToSchema>(self) -> Self {
        Self { answer: Some(Described::in_place::<Listed<T>>().with::<T>()), ..self }
    }

    /// It answers with an object of one type or of the other, as the request says.
    pub(super) fn answers_one_of<T: ToSchema, U: ToSchema>(self) -> Self {
        Self { answer: Some(Described::one_of::<T, U>()), ..self }
    }

    /// It may be refused, or fail, for these reasons too.
    pub(super) fn fails(mut self, reasons: &[Reason]) -> Self {
        self.reasons.extend_from_slice(reasons);
        self
    }

    /// It takes no idempotency key: of passwords and tokens nothing is kept, and what only reads may be repeated anyway.
    pub(super) fn unkeyed(self) -> Self {
        Self { keyed: false, ..self }
    }

    /// Every user may call it.
    pub(super) fn for_anyone(self) -> Self {
        Self { anyone: true, ..self }
    }

    /// Whether it is the one of this route.
    pub(super) fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path == path
    }

    pub(super) fn takes_key(&self) -> bool {
        self.keyed
    }

    pub(super) fn needs_role(&self) -> bool {
        !self.anyone
    }

    /// Whether its answer may name the next page.
    pub(super) fn has_next_page(&self) -> bool {
        self.asks.contains(&Asks::PageToken)
    }
}
