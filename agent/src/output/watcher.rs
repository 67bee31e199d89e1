//! Says when a file is written to, once for each time that it is asked. What is not asked about wakes nobody.
//!
//! inotify through rustix: what is needed of it is two calls, and the crate `inotify` has no form of its stream that
//! comes without a second way to register descriptors.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
    task::AbortHandle,
};
use tracing::warn;

use crate::{error::Chain, os::linux};

/// Watches files.
#[derive(Debug)]
pub(super) struct Watcher {
    /// `None` where the system gives none.
    asked: Option<Arc<Asked>>,
    reader: Option<AbortHandle>,
    /// Whether it was said that the system gives no more.
    said: AtomicBool,
}

/// Who is to be told of what.
#[derive(Debug)]
struct Asked {
    inotify: AsyncFd<OwnedFd>,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    /// By file: whoever waits for the next write.
    files: HashMap<i32, Vec<Arc<Notify>>>,
    /// The watch of the folder.
    folder: Option<i32>,
    /// By name in the folder: whoever is told when another file gets the name, or none has it any more.
    names: HashMap<Vec<u8>, Arc<Named>>,
}

/// Says when a name in the folder stands for another file.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Told of it.
    pub told: Arc<Notify>,
    changed: AtomicBool,
}

/// What is asked about a file, until this is dropped.
#[derive(Debug)]
pub(super) struct Armed<'a> {
    asked: &'a Asked,
    watch: i32,
    told: Arc<Notify>,
}

impl Watcher {
    /// Watches nothing yet. Must be called within a runtime.
    pub(super) fn spawn() -> Self {
        let made = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(io::Error::from)
            .and_then(|inotify| linux::watch(inotify, Interest::READABLE));
        match made {
            Ok(inotify) => {
                let asked = Arc::new(Asked { inotify, tables: Mutex::default() });
                let reader = tokio::spawn(read(asked.clone())).abort_handle();
                Self { asked: Some(asked), reader: Some(reader), said: AtomicBool::new(false) }
            }
            Err(error) => {
                let watcher = Self { asked: None, reader: None, said: AtomicBool::new(false) };
                watcher.say(&error);
                watcher
            }
        }
    }

    /// Asks to be told of the next change of a file. `None` where the system gives no more.
    pub(super) fn arm(&self, file: &File, told: &Arc<Notify>) -> Option<Armed<'_>> {
        let asked = self.asked.as_deref()?;
        // The very same file, whatever its name stands for now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF | WatchFlags::ONESHOT;
        // Held until it is noted: the event may come at once.
        let mut tables = asked.tables();
        match inotify::add_watch(asked.inotify.get_ref().as_fd(), path.as_str(), flags) {
            Ok(watch) => {
                let waiting = tables.files.entry(watch).or_default();
                waiting.push(told.clone());
                Some(Armed { asked, watch, told: told.clone() })
            }
            Err(error) => {
                drop(tables);
                self.say(&error.into());
                None
            }
        }
    }

    /// Asks to be told whenever a name in the folder stands for another file.
    pub(super) fn watch_name(&self, folder: &Path, name: &str) -> Arc<Named> {
        let named = Arc::new(Named::default());
        let Some(asked) = &self.asked else {
            return named;
        };
        let mut tables = asked.tables();
        if tables.folder.is_none() {
            let flags = WatchFlags::CREATE
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::DELETE
                | WatchFlags::ONLYDIR;
            match inotify::add_watch(asked.inotify.get_ref().as_fd(), folder, flags) {
                Ok(watch) => tables.folder = Some(watch),
                Err(error) => self.say(&error.into()),
            }
        }
        tables.names.insert(name.as_bytes().to_owned(), named.clone());
        named
    }

    /// Tells nobody of this name any more.
    pub(super) fn forget_name(&self, name: &str) {
        if let Some(asked) = &self.asked {
            asked.tables().names.remove(name.as_bytes());
        }
    }

    fn say(&self, error: &io::Error) {
        if !self.said.swap(true, Ordering::Relaxed) {
            warn!(
                error = %Chain(error),
                "Logs can not be watched, and are looked at every few seconds instead; see the limits in /proc/sys/fs/inotify."
            );
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

impl Named {
    /// Whether it has changed since this was last asked.
    pub(super) fn has_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    /// Says that it may have changed.
    pub(super) fn change(&self) {
        self.changed.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        let mut tables = self.asked.tables();
        let Some(waiting) = tables.files.get_mut(&self.watch) else {
            // It was told.
            return;
        };
        if let Some(place) = waiting.iter().position(|told| Arc::ptr_eq(told, &self.told)) {
            waiting.swap_remove(place);
        }
        if waiting.is_empty() {
            tables.files.remove(&self.watch);
            let _ = inotify::remove_watch(self.asked.inotify.get_ref().as_fd(), self.watch);
        }
    }
}

impl Asked {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what has happened.
    fn tell(&self) {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(self.inotify.get_ref(), &mut space);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            let mut tables = self.tables();
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                // Whatever it was that did not fit.
                tables.files.drain().flat_map(|(_, waiting)| waiting).for_each(|told| told.notify_one());
                tables.names.values().for_each(|named| named.change());
            } else if tables.folder == Some(event.wd()) {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).as_bytes());
                if let Some(named) = name.and_then(|name| tables.names.get(name)) {
                    named.change();
                }
                if event.events().contains(ReadFlags::IGNORED) {
                    // The folder itself is gone.
                    tables.folder = None;
                    tables.names.values().for_each(|named| named.change());
                }
            } else if let Some(waiting) = tables.files.remove(&event.wd()) {
                waiting.iter().for_each(|told| told.notify_one());
            }
        }
    }
}

async fn read(asked: Arc<Asked>) {
    loop {
        match asked.inotify.readable().await {
            Ok(mut ready) => {
                // Before the events are read: one that comes meanwhile makes it ready again.
                ready.clear_ready();
                asked.tell();
            }
            Err(_) => return,
        }
    }
}
