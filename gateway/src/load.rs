//! How many requests are answered at a time. What finds no place is told so at once, before anything of it was read.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::Method;

/// Counts the requests that are being answered. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    under_way: Arc<AtomicUsize>,
    most: usize,
}

/// A request that is being answered, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Load {
    /// Lets `most` requests be answered at a time.
    pub(crate) fn new(most: usize) -> Self {
        Self { under_way: Arc::default(), most }
    }

    /// A place for a request. Reads leave the last fifth of all places to orders, as they do in the server.
    pub(crate) fn place(&self, method: &Method) -> Option<Place> {
        let read = matches!(*method, Method::GET | Method::HEAD);
        let most = if read { (self.most * 4 / 5).max(1) } else { self.most };
        let free = |taken: usize| (taken < most).then_some(taken + 1);
        self.under_way.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok()?;
        Some(Place(self.under_way.clone()))
    }
}
