//! What the agent of a host refuses of this server's orders, by its own word. It refuses all the same: what is here only
//! tells callers sooner.

use std::collections::BTreeSet;

use belay_proto::{HostId, Problem, ProcessId, Reason};
use jiff::Timestamp;

use crate::{
    error::Error,
    host::{self, agent_target},
    process::target,
    terms::Effect,
};

/// What the agent of a host refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LocalPolicy {
    /// Aliases of processes that are neither stopped nor restarted by this server.
    pub(crate) protected: BTreeSet<String>,
    /// Why no order is taken at all; `None` where they are.
    pub(crate) refusal: Option<Refusal>,
}

/// Why an agent takes no order of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// May be empty.
    pub(crate) reason: String,
    /// Who on the host wanted it. Empty where the configuration says so.
    pub(crate) principal: String,
    pub(crate) since: Option<Timestamp>,
}

impl Refusal {
    /// Who refuses and why, for a sentence.
    fn told(&self) -> String {
        let Self { reason, principal, since: _ } = self;
        let by = if principal.is_empty() { String::new() } else { format!(" by {principal}") };
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        format!("{by}{why}")
    }
}

impl LocalPolicy {
    /// Whether nothing is refused.
    pub(crate) fn is_open(&self) -> bool {
        self.protected.is_empty() && self.refusal.is_none()
    }

    /// Refuses an order to one process that the agent would refuse.
    ///
    /// # Errors
    /// [`Reason::AgentRefuses`] or [`Reason::ProcessProtected`].
    pub(crate) fn check_process(
        &self,
        host: HostId,
        process: ProcessId,
        alias: &str,
        effect: Effect,
    ) -> Result<(), Error> {
        self.check_orders(host)?;
        if effect == Effect::Start || !self.protected.contains(alias) {
            return Ok(());
        }
        let message = format!("`{alias}` ({process}) is protected by the policy of host {host}");
        Err(Error::Refused(
            Problem::new(Reason::ProcessProtected, message)
                .target(target(host, process))
                .hint(
                    "order it on the host with `belay-agent ctl`, or take it out of `[policy] protect` there",
                )
                .chinese(
                    format!("进程 `{alias}`（{process}）受主机 {host} 的本地策略保护"),
                    "请在主机上用 `belay-agent ctl` 操作，或在其配置中将该进程移出 `[policy] protect`",
                ),
        ))
    }

    /// Refuses an order to all processes of a host that the agent would refuse, and a restart that would leave the host half
    /// stopped: what is protected is not stopped with the others. A stop of everything is taken: it stops what it may, fails,
    /// and tells what is left.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn check_host(&self, host: HostId, effect: Effect) -> Result<(), Error> {
        self.check_orders(host)?;
        if effect != Effect::Restart || self.protected.is_empty() {
            return Ok(());
        }
        let protected = self.listed();
        let message = format!("not all of host {host} can be restarted: its policy protects {protected}");
        Err(Error::Refused(
            Problem::new(Reason::ProcessProtected, message)
                .target(agent_target(host))
                .hint("restart the other processes one by one, or order on the host with `belay-agent ctl`")
                .chinese(
                    format!("主机 {host} 不能整体重启：其本地策略保护 {protected}"),
                    "请逐个重启其他进程，或在主机上用 `belay-agent ctl` 操作",
                ),
        ))
    }

    /// Why a host is left out of an order to many; `None` where it is not.
    pub(crate) fn left_out(&self, effect: Effect) -> Option<String> {
        match &self.refusal {
            Some(refusal) => Some(format!("taking no orders{}", refusal.told())),
            None if effect != Effect::Start && !self.protected.is_empty() => {
                Some(format!("protecting {} by its own policy", self.listed()))
            }
            None => None,
        }
    }

    /// What a careful person should know of a dry run.
    pub(crate) fn warning(&self, effect: Effect) -> Option<String> {
        (effect == Effect::Stop && !self.protected.is_empty()).then(|| {
            format!(
                "the policy of the host protects {}: what of it runs is left, and the stop fails for that",
                self.listed()
            )
        })
    }

    fn check_orders(&self, host: HostId) -> Result<(), Error> {
        let Some(refusal) = &self.refusal else { return Ok(()) };
        let told = refusal.told();
        Err(Error::Refused(
            Problem::new(Reason::AgentRefuses, format!("the agent of host {host} takes no orders{told}"))
                .target(host::target(host))
                .hint(
                    "wait until it is over, or end it on the host with `belay-agent ctl maintenance off`; orders of \
                     `belay-agent ctl` work there",
                )
                .chinese(
                    format!("主机 {host} 的 Agent 目前不接受操作{}", refusal.told()),
                    "请等待维护结束，或在主机上用 `belay-agent ctl maintenance off` 结束维护",
                ),
        ))
    }

    fn listed(&self) -> String {
        self.protected.iter().map(|alias| format!("`{alias}`")).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(checked: Result<(), Error>) -> Option<Reason> {
        checked.err().map(|error| Problem::from(&error).reason)
    }

    fn maintained() -> LocalPolicy {
        let refusal = Refusal { reason: "new disk".into(), principal: "local:root".into(), since: None };
        LocalPolicy { refusal: Some(refusal), ..LocalPolicy::default() }
    }

    fn protecting() -> LocalPolicy {
        LocalPolicy { protected: ["db".to_owned()].into(), refusal: None }
    }

    #[test]
    fn what_an_agent_would_refuse_is_refused_before() {
        let (host, process) = (20.try_into().expect("an id"), 7.try_into().expect("an id"));
        let one = |policy: &LocalPolicy, alias: &str, effect| {
            reason(policy.check_process(host, process, alias, effect))
        };
        let all = |policy: &LocalPolicy, effect| reason(policy.check_host(host, effect));
        for effect in [Effect::Stop, Effect::Start, Effect::Restart] {
            assert_eq!(one(&LocalPolicy::default(), "db", effect), None);
            assert_eq!(all(&LocalPolicy::default(), effect), None);
            assert_eq!(one(&maintained(), "db", effect), Some(Reason::AgentRefuses));
            assert_eq!(all(&maintained(), effect), Some(Reason::AgentRefuses));
            assert_eq!(one(&protecting(), "web", effect), None);
        }
        assert_eq!(one(&protecting(), "db", Effect::Start), None);
        assert_eq!(one(&protecting(), "db", Effect::Stop), Some(Reason::ProcessProtected));
        assert_eq!(one(&protecting(), "db", Effect::Restart), Some(Reason::ProcessProtected));
        assert_eq!(all(&protecting(), Effect::Stop), None, "it stops what it may, and says what is left");
        assert_eq!(all(&protecting(), Effect::Restart), Some(Reason::ProcessProtected));
    }

    #[test]
    fn who_is_left_out_of_a_batch_is_told_why() {
        assert_eq!(LocalPolicy::default().left_out(Effect::Stop), None);
        let told = maintained().left_out(Effect::Start);
        assert_eq!(told.as_deref(), Some("taking no orders by local:root: new disk"));
        assert_eq!(protecting().left_out(Effect::Start), None);
        let told = protecting().left_out(Effect::Restart);
        assert_eq!(told.as_deref(), Some("protecting `db` by its own policy"));
    }
}
