//! What the arguments of a route's function tell of the requests that it reads, so that the description follows the code.

use axum::extract::State;
use utoipa::ToSchema;

use super::schemas::Described;
use crate::{
    extract::{IfNoneMatch, Json, Path, Query, ResumeToken, Terms},
    routes::Gateway,
    upstream::Call,
};

/// What a route's function reads of a request.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Whether it reads the query. Which parameters is said in the table of operations.
    pub(super) query: bool,
    /// Whether it reads on which terms an order is given. Which of them it takes is said there, too.
    pub(super) terms: bool,
    /// Whether it answers those with nothing who have the answer already.
    pub(super) known: bool,
    /// Whether it goes on where an answer of before ended.
    pub(super) resumes: bool,
    /// Its body.
    pub(super) body: Option<Described>,
}

/// An argument of a route's function.
#[diagnostic::on_unimplemented(
    message = "the description of the REST API does not know what a request has to have for `{Self}`",
    note = "say it in `gateway/src/openapi/arguments.rs`; a body derives `utoipa::ToSchema`"
)]
pub(crate) trait Argument {
    /// Adds what it reads.
    fn tell(reads: &mut Reads);
}

/// Credentials, trace and idempotency key: what every operation reads.
impl Argument for Call {
    fn tell(_: &mut Reads) {}
}

/// The variables of a path are in the path itself.
impl<T> Argument for Path<T> {
    fn tell(_: &mut Reads) {}
}

impl Argument for Query {
    fn tell(reads: &mut Reads) {
        reads.query = true;
    }
}

/// What the function uses is nothing of a request.
impl Argument for State<Gateway> {
    fn tell(_: &mut Reads) {}
}

impl Argument for Terms {
    fn tell(reads: &mut Reads) {
        reads.terms = true;
    }
}

impl Argument for IfNoneMatch {
    fn tell(reads: &mut Reads) {
        reads.known = true;
    }
}

impl Argument for ResumeToken {
    fn tell(reads: &mut Reads) {
        reads.resumes = true;
    }
}

impl<T: ToSchema> Argument for Json<T> {
    fn tell(reads: &mut Reads) {
        reads.body = Some(Described::by_name::<T>());
    }
}

/// All arguments of a route's function, as axum tells them: first which kind of function it is, then each.
pub(crate) trait Arguments {
    /// Adds what all of them read.
    fn tell(reads: &mut Reads);
}

macro_rules! arguments {
    ($($argument:ident),+) => {
        impl<Kind, $($argument: Argument),+> Arguments for (Kind, $($argument,)+) {
            fn tell(reads: &mut Reads) {
                $($argument::tell(reads);)+
            }
        }
    };
}

arguments!(A);
arguments!(A, B);
arguments!(A, B, C);
arguments!(A, B, C, D);
arguments!(A, B, C, D, E);
arguments!(A, B, C, D, E, F);
