//! How long the certificates of the fleet last, and whether the replacement of its authority is under way.

use std::sync::Arc;

use belay_proto::tls::Lasts;
use jiff::{SignedDuration, Timestamp};

use super::Finding;
use crate::{
    app::App,
    trust::{Health, Member, Phase, Validity},
};

const SERVER: &str = "certificates.server";
const AUTHORITY: &str = "certificates.authority";
const ROTATION: &str = "certificates.rotation";
const PARTS: &str = "certificates.parts";

/// An authority is replaced at leisure: its end is told that long before.
const LEISURE: SignedDuration = SignedDuration::from_hours(180 * 24);
/// So many parts are named of those that are alike.
const NAMED: usize = 10;

const WHY_END: &str = "from its end on nobody believes it: no order, no report and no user gets through";

/// Nothing is said where plain text is spoken: that is told elsewhere.
pub(super) fn look(app: &Arc<App>) -> Vec<Finding> {
    app.trust.as_ref().map(|trust| told(&trust.health(), Timestamp::now())).unwrap_or_default()
}

fn told(health: &Health, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![on_server(health, now)];
    findings.extend(
        health
            .authorities
            .iter()
            .map(|(fingerprint, validity, signs)| on_authority(fingerprint, *validity, *signs, health, now)),
    );
    if !health.is_own {
        findings.push(on_rotation(health));
    }
    findings.push(on_parts(health, now));
    findings
}

fn on_server(Health { is_own, server: (begin, end), .. }: &Health, now: Timestamp) -> Finding {
    let remedy = match is_own {
        true => {
            "put a new one into the files that `tls.cert` and `tls.key` of the server's settings name: they are read by themselves"
        }
        false => {
            "the server makes another one by itself, long before: see its log, and whether its clock is right; a restart makes one too"
        }
    };
    match Lasts::of(*begin, *end, now) {
        Lasts::Long => {
            Finding::ok(SERVER, "", format!("the server's certificate is good until {}", day(*end)))
        }
        Lasts::ShortTime => {
            Finding::warn(SERVER, "", format!("the server's certificate ends at {end}"), WHY_END, remedy)
        }
        Lasts::NotYet => Finding::fail(
            SERVER,
            "",
            format!("the server's certificate is good from {begin} on, which is still to come"),
            "until then nobody believes it",
            "see whether the clock of this machine is right, and that of whoever made the certificate",
        ),
        Lasts::Ended => {
            Finding::fail(SERVER, "", format!("the server's certificate has ended at {end}"), WHY_END, remedy)
        }
    }
}

fn on_authority(
    fingerprint: &str,
    (_, end): Validity,
    signs: bool,
    health: &Health,
    now: Timestamp,
) -> Finding {
    const WHY: &str = "what it vouches for ends with it: from then on no part believes another";
    let subject = fingerprint.get(..16).unwrap_or(fingerprint);
    let left = end.duration_since(now);
    if left > LEISURE {
        return Finding::ok(AUTHORITY, subject, format!("the authority is good until {}", day(end)));
    }
    if !signs {
        // Nothing depends on it any more, or not yet.
        return Finding::ok(AUTHORITY, subject, "the authority is near its end, and vouches for nothing new");
    }
    let remedy = match (health.is_own, health.phase) {
        (true, _) => {
            "name the certificate of the next authority beside it in `tls.ca` of every part, then bring certificates that the \
             next one made"
        }
        (false, Phase::One) => {
            "replace it with three calls of `belay ca rotate`; `belay ca status` shows how far that is"
        }
        (false, Phase::Introduced | Phase::Switched) => {
            "go on with its replacement: `belay ca status`, then `belay ca rotate`"
        }
    };
    match left.is_negative() {
        false => Finding::warn(AUTHORITY, subject, format!("the authority ends at {end}"), WHY, remedy),
        true => Finding::fail(AUTHORITY, subject, format!("the authority has ended at {end}"), WHY, remedy),
    }
}

fn on_rotation(Health { phase, behind, .. }: &Health) -> Finding {
    const WHY: &str =
        "until the last step two authorities are believed, also the one that is to be forgotten";
    let what = match phase {
        Phase::One => {
            return Finding::ok(ROTATION, "", "one authority is believed, and none is being replaced");
        }
        Phase::Introduced => {
            "the replacement of the authority is begun: the new one is believed, and does not vouch yet"
        }
        Phase::Switched => {
            "the replacement of the authority is not ended: the new one vouches, and the old one is still believed"
        }
    };
    match behind.is_empty() {
        true => Finding::warn(ROTATION, "", what, WHY, "take the next step: `belay ca rotate`"),
        false => Finding::warn(
            ROTATION,
            named(behind.iter().map(String::as_str)),
            format!("{what}; parts that have not followed: {}", behind.len()),
            WHY,
            "see why they do not follow: they do by themselves while they run and reach the server; delete hosts that are gone; \
             then `belay ca rotate`",
        ),
    }
}

fn on_parts(Health { is_own, parts, .. }: &Health, now: Timestamp) -> Finding {
    let how = |(begin, end): Validity| Lasts::of(begin, end, now);
    let near: Vec<_> = parts
        .iter()
        .filter(|(_, validity)| matches!(how(*validity), Lasts::ShortTime | Lasts::Ended))
        .collect();
    let Some((_, (_, first))) = near.iter().min_by_key(|(_, (_, end))| *end) else {
        let what =
            format!("parts that were heard, and of which the certificate is good for long: {}", parts.len());
        return Finding::ok(PARTS, "", what);
    };
    let ended = near.iter().filter(|(_, validity)| how(*validity) == Lasts::Ended).count();
    let told = match ended {
        0 => format!("parts of which the certificate ends soon: {}; the first at {first}", near.len()),
        ended => {
            format!("parts of which the certificate ends soon, or has ended: {}, ended: {ended}", near.len())
        }
    };
    let remedy = match is_own {
        true => {
            "put new ones into the files that `tls.cert` and `tls.key` of their settings name: they are read by themselves"
        }
        false => {
            "they get others by themselves, long before: see the log of each for why not; one that has ended joins again with a \
             new token of `belay host token create`, and a host that is gone is deleted"
        }
    };
    let names: Vec<_> = near.iter().map(|(member, _)| member_name(member)).collect();
    let why = "from then on it is cut off: its processes go on, and can not be ordered from here";
    Finding::warn(PARTS, named(names.iter().map(String::as_str)), told, why, remedy)
}

fn member_name(member: &Member) -> String {
    match member {
        Member::Host(id) => crate::host::target(*id),
        Member::Gateway(name) => format!("gateways/{name}"),
    }
}

fn named<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let mut named: Vec<_> = names.take(NAMED).map(str::to_owned).collect();
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    named.join(", ")
}

fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use belay_proto::HostId;

    use super::*;
    use crate::diagnose::Level;

    fn day_of(day: i64) -> Timestamp {
        Timestamp::from_second(day * 86_400).expect("a time")
    }

    fn validity(begin: i64, end: i64) -> Validity {
        (day_of(begin), day_of(end))
    }

    /// All is well on day 1000.
    fn health() -> Health {
        let host = Member::Host(HostId::try_from(20).expect("an id"));
        Health {
            is_own: false,
            server: validity(995, 1025),
            authorities: vec![("0123456789abcdef0123".to_owned(), validity(1, 3650), true)],
            phase: Phase::One,
            behind: Vec::new(),
            parts: vec![
                (host, validity(995, 1025)),
                (Member::Gateway("edge-1".to_owned()), validity(990, 1020)),
            ],
        }
    }

    #[track_caller]
    fn check(health: &Health, expected: &[(&str, Level, &str)]) {
        let found = told(health, day_of(1000));
        let bad: Vec<_> = found.iter().filter(|finding| finding.level != Level::Ok).collect();
        let told: Vec<_> = bad.iter().map(|finding| (finding.check, finding.level)).collect();
        let wanted: Vec<_> = expected.iter().map(|(check, level, _)| (*check, *level)).collect();
        assert_eq!(told, wanted, "{found:#?}");
        for (finding, (_, _, text)) in bad.iter().zip(expected) {
            let all = format!("{} {} {}", finding.subject, finding.what, finding.remedy);
            assert!(all.contains(text), "`{text}` is not in {finding:#?}");
            assert!(!finding.why.is_empty() && !finding.remedy.is_empty(), "{finding:#?}");
        }
    }

    #[test]
    fn certificates_near_their_end_are_told() {
        check(&health(), &[]);
        let server = |begin, end| Health { server: validity(begin, end), ..health() };
        check(&server(980, 1010), &[(SERVER, Level::Warn, "see its log")]);
        check(&server(960, 990), &[(SERVER, Level::Fail, "has ended")]);
        check(&server(1001, 1031), &[(SERVER, Level::Fail, "clock")]);
        check(&Health { is_own: true, ..server(700, 1005) }, &[(SERVER, Level::Warn, "`tls.cert`")]);

        let authority = |end, signs| vec![("0123456789abcdef0123".to_owned(), validity(1, end), signs)];
        let ends = |end| Health { authorities: authority(end, true), ..health() };
        check(&ends(1100), &[(AUTHORITY, Level::Warn, "belay ca rotate")]);
        check(&ends(999), &[(AUTHORITY, Level::Fail, "0123456789abcdef")]);
        check(&Health { is_own: true, ..ends(1100) }, &[(AUTHORITY, Level::Warn, "`tls.ca`")]);
        check(&Health { authorities: authority(1100, false), ..health() }, &[]);

        let part = |begin, end| Health {
            parts: vec![(Member::Gateway("edge-1".to_owned()), validity(begin, end))],
            ..health()
        };
        check(&part(980, 1010), &[(PARTS, Level::Warn, "gateways/edge-1")]);
        check(&part(960, 999), &[(PARTS, Level::Warn, "ended: 1")]);
        check(&Health { is_own: true, ..part(700, 1005) }, &[(PARTS, Level::Warn, "`tls.key`")]);
    }

    #[test]
    fn a_replacement_that_is_not_ended_is_told() {
        for phase in [Phase::Introduced, Phase::Switched] {
            check(&Health { phase, ..health() }, &[(ROTATION, Level::Warn, "`belay ca rotate`")]);
            let behind = (1..=12).map(|host| format!("host/{host}")).collect();
            let behind = Health { phase, behind, ..health() };
            check(&behind, &[(ROTATION, Level::Warn, "host/10, and 2 more")]);
            check(&behind, &[(ROTATION, Level::Warn, "have not followed: 12")]);
        }
    }
}
