//! Reads the configuration again and has what differs done. A file that is not acceptable changes nothing.

use std::{path::Path, sync::Arc};

use belay_proto::{Problem, Reason};
use secrecy::{ExposeSecret, SecretString};
use tokio::{signal::unix::Signal, sync::Mutex};
use tracing::{error, info};

use crate::{
    config::{Config, ConfigError, Plan},
    error::Chain,
    membership::Membership,
    notify::ServiceManager,
    os::Os,
    supervisor::{Found, Reload, Supervisor},
};

/// Reads the configuration again. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reloader {
    inner: Arc<Inner>,
}

struct Inner {
    supervisor: Supervisor,
    os: Arc<dyn Os>,
    token: Option<SecretString>,
    /// The configuration that is in force. Held while another one takes its place: one at a time.
    current: Mutex<Config>,
}

impl Reloader {
    /// Reads again what this configuration was read from.
    pub(crate) fn new(
        supervisor: Supervisor,
        os: Arc<dyn Os>,
        token: Option<SecretString>,
        current: Config,
    ) -> Self {
        Self { inner: Arc::new(Inner { supervisor, os, token, current: Mutex::new(current) }) }
    }

    /// Reads the file again and has what differs done, or only tells what would be done. Does not wait until it is done.
    pub(crate) async fn reload(&self, principal: String, dry_run: bool) -> Result<Plan, Problem> {
        let inner = self.inner.clone();
        // What has begun is brought to its end, also where the caller goes away in the middle.
        let work = tokio::spawn(async move { inner.reload(principal, dry_run).await });
        work.await.unwrap_or_else(|panic| Err(Problem::new(Reason::Internal, panic.to_string())))
    }

    /// Reloads at each SIGHUP, and tells the service manager. Never ends.
    pub(crate) async fn at_each_hangup(&self, hangups: Option<Signal>, manager: &ServiceManager) {
        let Some(mut hangups) = hangups else {
            return std::future::pending().await;
        };
        loop {
            if hangups.recv().await.is_none() {
                return std::future::pending().await;
            }
            manager.reloading();
            match self.reload("local:SIGHUP".to_owned(), false).await {
                Ok(_) => info!("The configuration is in force."),
                Err(Problem { message, hint, .. }) => {
                    error!(error = message, hint, "The configuration was not read again.");
                }
            }
            manager.ready();
        }
    }
}

impl Inner {
    async fn reload(&self, principal: String, dry_run: bool) -> Result<Plan, Problem> {
        let mut current = self.current.lock().await;
        let Some(file) = current.file.clone() else {
            return Err(Problem::new(Reason::InvalidArgument, "this agent was not configured by a file"));
        };
        let (new, token) = {
            let path = file.clone();
            let read = tokio::task::spawn_blocking(move || read(&path)).await;
            let read = read.map_err(|panic| Problem::new(Reason::Internal, panic.to_string()))?;
            read.map_err(|error| unacceptable(&file, &error))?
        };
        let mut plan = Plan::new(&current, &new);
        let secret =
            |token: &Option<SecretString>| token.as_ref().map(|token| token.expose_secret().to_owned());
        if secret(&token) != secret(&self.token) {
            plan.needs_agent_restart.push("the fleet's token");
        }
        let found = match plan.added.is_empty() || dry_run {
            true => Found::new(),
            false => self.survey().await,
        };
        let (processes, policy) = (new.processes.clone(), new.policy.clone());
        let reload = Reload { processes, policy, plan, found, principal, dry_run };
        let plan = self.supervisor.reload(reload).await?;
        if !dry_run {
            // The settings of the agent itself stay in force until its next start.
            current.processes = new.processes;
            current.policy = new.policy;
        }
        Ok(plan)
    }

    /// What lives of this agent's instances: a process that is new may have been declared before.
    async fn survey(&self) -> Found {
        let os = self.os.clone();
        let survey = tokio::task::spawn_blocking(move || os.survey()).await;
        let mut found = Found::new();
        for (instance, tree) in survey.unwrap_or_default() {
            found.entry(instance.alias.clone()).or_default().push((instance, tree));
        }
        found
    }
}

/// Reads and checks a configuration as a start of the agent does.
pub(crate) fn read(file: &Path) -> Result<(Config, Option<SecretString>), ConfigError> {
    let config = Config::load(file)?;
    config.validate()?;
    let membership = Membership::open(&config)?;
    Ok((config, membership.token().cloned()))
}

fn unacceptable(file: &Path, error: &ConfigError) -> Problem {
    Problem::new(Reason::InvalidArgument, format!("the configuration is not acceptable: {}", Chain(error)))
        .hint(format!("nothing was changed; mend `{}` and reload again", file.display()))
}
