//! How the agents of the fleet are, by what they report.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::Finding;
use crate::{
    fleet::HostView,
    host::{self, HostStatus},
};

const OFFLINE: &str = "agents.offline";
const VERSIONS: &str = "agents.versions";
const CLONES: &str = "agents.clones";
const CLOCKS: &str = "agents.clocks";
const CONDUCT: &str = "agents.conduct";
const ORDERS: &str = "agents.orders";
const PLAINTEXT: &str = "agents.plaintext";

/// What to do about plain text.
pub(super) const TO_TLS: &str = "take `mode = \"off\"` out of `[tls]` in the server's settings, write `https://` in those of agents and \
                                 gateways, and let each join with a token of `belay host token create`; until then use a network \
                                 that is itself encrypted";

/// How far a clock may be off before it is told.
const FAR_OFF: SignedDuration = SignedDuration::from_secs(5);
/// So many hosts are named of those that are alike.
const NAMED: usize = 10;

/// `secure`: whether agents and the server speak TLS.
pub(super) fn look(hosts: &[HostView], secure: bool) -> Vec<Finding> {
    let mut findings =
        vec![on_offline(hosts), on_versions(hosts), on_clocks(hosts), on_plaintext(hosts, secure)];
    findings.extend(hosts.iter().filter(|view| !view.clones.is_empty()).map(cloned));
    findings.extend(hosts.iter().filter(|view| !view.trouble.is_empty()).map(|view| {
        Finding::fail(
            CONDUCT,
            host::target(view.host.id),
            view.trouble.clone(),
            "no honest agent does that: it is broken, or somebody else speaks for it",
            "look at the agent and its log on the host; where it was taken over, delete the host",
        )
    }));
    findings.extend(hosts.iter().filter_map(|view| {
        let refusal = view.policy.refusal.as_ref()?;
        let why = if refusal.reason.is_empty() { "it does not say why" } else { &refusal.reason };
        Some(Finding::warn(
            ORDERS,
            host::target(view.host.id),
            format!("its agent takes no orders: {why}"),
            "it is left out of orders to many hosts, and nobody can stop anything there from here",
            "where it was forgotten, run `belay-agent ctl maintenance off` on the host",
        ))
    }));
    findings
}

fn on_offline(hosts: &[HostView]) -> Finding {
    let silent: Vec<_> = hosts.iter().filter(|view| view.status == HostStatus::Offline).collect();
    match silent.is_empty() {
        true => Finding::ok(OFFLINE, "", format!("all agents report: {}", hosts.len())),
        false => Finding::warn(
            OFFLINE,
            named(&silent),
            format!("agents that do not report: {} of {}", silent.len(), hosts.len()),
            "what runs there is not known, and can not be stopped from here",
            "see on the host with `belay-agent ctl status`; delete hosts that are gone",
        ),
    }
}

fn on_versions(hosts: &[HostView]) -> Finding {
    let mut versions: BTreeMap<&str, Vec<&HostView>> = BTreeMap::new();
    for view in hosts.iter().filter(|view| view.host.facts.are_known()) {
        versions.entry(&view.host.facts.version).or_default().push(view);
    }
    let own = env!("CARGO_PKG_VERSION");
    let others: Vec<_> = versions.iter().filter(|(version, _)| **version != own).collect();
    if others.is_empty() {
        return Finding::ok(VERSIONS, "", format!("all agents have the version of the server, {own}"));
    }
    let told = others.iter().map(|(version, views)| format!("{} of version {version}", views.len()));
    let views: Vec<_> = others.iter().flat_map(|(_, views)| views.iter().copied()).collect();
    Finding::warn(
        VERSIONS,
        named(&views),
        format!("the server has version {own}, and there are {}", told.collect::<Vec<_>>().join(", ")),
        "what one side can do the other may not know, and what was mended in one is still open in the other",
        "install the server's version on the hosts, then `belay-agent ctl upgrade`",
    )
}

fn on_clocks(hosts: &[HostView]) -> Finding {
    let far = |view: &&HostView| view.clock.is_some_and(|clock| clock.abs() > FAR_OFF);
    let off: Vec<_> = hosts.iter().filter(far).collect();
    let Some(worst) = off.iter().filter_map(|view| view.clock).max_by_key(|clock| clock.abs()) else {
        return Finding::ok(CLOCKS, "", "the clocks of the hosts agree with that of the server");
    };
    let direction = if worst.is_negative() { "behind" } else { "ahead" };
    Finding::warn(
        CLOCKS,
        named(&off),
        format!("clocks that are off: {}; the worst is {} s {direction}", off.len(), worst.abs().as_secs()),
        "times of processes and logs of that host can not be compared with others, and signed requests and certificates fail",
        "let the host's clock be set, say by chrony or systemd-timesyncd",
    )
}

fn on_plaintext(hosts: &[HostView], secure: bool) -> Finding {
    if secure {
        return Finding::ok(PLAINTEXT, "", "agents report, and are given orders, in TLS");
    }
    let remote = |view: &&HostView| {
        let address = view.host.facts.inner_ip_address();
        let loopback = address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        view.host.facts.are_known() && !loopback && address != "localhost"
    };
    let remote: Vec<_> = hosts.iter().filter(remote).collect();
    match remote.is_empty() {
        true => Finding::ok(PLAINTEXT, "", "no order and no report leaves this machine"),
        false => Finding::warn(
            PLAINTEXT,
            named(&remote),
            format!("hosts whose orders and reports cross the network in plain text: {}", remote.len()),
            "the secret of the fleet can be read on the way, and whoever has it can order anything",
            TO_TLS,
        ),
    }
}

fn cloned(view: &HostView) -> Finding {
    let agents: Vec<_> = view.clones.iter().map(ToString::to_string).collect();
    Finding::fail(
        CLONES,
        host::target(view.host.id),
        format!("agents have one identity: {}", agents.join(" and ")),
        "an order could reach the wrong machine, so none is sent to either",
        "end the copy, remove `identity`, `journal` and `tls.pem` from its state folder, and let it join with a token of its own: \
         `belay host token create`",
    )
}

fn named(hosts: &[&HostView]) -> String {
    let mut named: Vec<_> = hosts.iter().take(NAMED).map(|view| host::target(view.host.id)).collect();
    if hosts.len() > NAMED {
        named.push(format!("and {} more", hosts.len() - NAMED));
    }
    named.join(", ")
}
