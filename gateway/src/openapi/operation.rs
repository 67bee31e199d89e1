//! What the description says of a route that its function's arguments do not.

use belay_proto::Reason;
use utoipa::ToSchema;

use super::{
    parameters::{Asks, CONDITION, HEARD, KEY, KNOWN, PREFERENCE},
    schemas::Described,
};
use crate::json::{Listed, OrderPreview, Paged};

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
    /// On which terms it is given, where it is an order that may be given on some.
    pub(super) terms: Option<OnTerms>,
    /// Whether it has data only in a preview.
    pub(super) silent: bool,
    /// Whether its answer is a stream of events.
    pub(super) streams: bool,
    /// Whether its answer has the version of what it shows.
    pub(super) tagged: bool,
    /// Whether it answers those with nothing who have its answer.
    pub(super) known: bool,
    anyone: bool,
    keyed: bool,
}

/// What an order is for that may be given on terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnTerms {
    /// One process, at a generation; it is answered when it is proven.
    Process,
    /// A task, at a version.
    Task,
    /// Hosts, which have no versions.
    Hosts,
    /// Something that has no versions; it is answered when it is done.
    Change,
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
        terms: None,
        silent: false,
        streams: false,
        tagged: false,
        known: false,
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

    /// It may be given on terms, of which a dry run is one: then it answers with a preview.
    pub(super) fn on(mut self, terms: OnTerms) -> Self {
        let reasons: &[Reason] = match terms {
            OnTerms::Process => &[Reason::PreconditionFailedGeneration, Reason::RouteUnknown],
            OnTerms::Task => &[Reason::PreconditionFailedVersion],
            OnTerms::Hosts => &[Reason::RouteUnknown],
            OnTerms::Change => &[],
        };
        self.reasons.extend_from_slice(reasons);
        self.silent = self.answer.is_none();
        self.answer = Some(match self.answer {
            Some(answer) => answer.or::<OrderPreview>(),
            None => Described::by_name::<OrderPreview>(),
        });
        Self { terms: Some(terms), ..self }
    }

    /// The same for many hosts, where a preview is a plan.
    pub(super) fn on_terms_of_batch(self) -> Self {
        Self { terms: Some(OnTerms::Hosts), ..self }
    }

    /// Its answer has the version of what it shows.
    pub(super) fn tagged(self) -> Self {
        Self { tagged: true, ..self }
    }

    /// The same; and those who have that version already are answered with nothing.
    pub(super) fn answers_what_is_new(self) -> Self {
        Self { known: true, ..self.tagged() }
    }

    /// Its answer is a stream of events, which goes on where an answer of before ended.
    pub(super) fn streams(self) -> Self {
        Self { streams: true, ..self }
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

    /// What its query may ask for, its terms included.
    pub(super) fn all_asks(&self) -> Vec<Asks> {
        let terms: &[Asks] = match self.terms {
            None => &[],
            Some(OnTerms::Process | OnTerms::Change) => &[Asks::DryRun],
            Some(OnTerms::Task | OnTerms::Hosts) => &[Asks::DryRun, Asks::Wait],
        };
        let heard: &[Asks] = if self.streams { &[Asks::LastEventId] } else { &[] };
        [&self.asks, terms, heard].concat()
    }

    /// The headers that it reads, beside those that every one does, by the names under which they are described.
    pub(super) fn headers(&self) -> Vec<&'static str> {
        let terms: &[&str] = match self.terms {
            None | Some(OnTerms::Change) => &[],
            Some(OnTerms::Process) => &[CONDITION],
            Some(OnTerms::Task) => &[CONDITION, PREFERENCE],
            Some(OnTerms::Hosts) => &[PREFERENCE],
        };
        let others = [(self.keyed, KEY), (self.known, KNOWN), (self.streams, HEARD)];
        let others = others.into_iter().filter_map(|(reads, name)| reads.then_some(name));
        others.chain(terms.iter().copied()).collect()
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
