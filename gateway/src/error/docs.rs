//! `docs/errors.md` is made from the tables of reasons, and a test holds it against them.

use std::{env, fmt::Write as _, fs, path::Path};

use belay_proto::{Facts, Reason};

use super::{Row, row};

const HEAD: &str = "\
# Errors

This page is made from the tables in `proto/src/problem.rs`, `proto/src/problem/facts.rs` and `gateway/src/error.rs` by
`BELAY_WRITE_DOCS=1 cargo test -p belay-gateway errors_doc`; a test fails where it differs from them.

## What a refusal says

Act on the `reason`: it never changes its meaning and is never renamed. The rest is for people, and for callers of OCP.

| in a REST answer | in a gRPC status | what |
|---|---|---|
| `status`, and the HTTP status itself | the code | as in the table below |
| `error.reason` | `ErrorInfo.reason`, in the domain `belay` | what a program acts on |
| `error.errorCode` | | the code of OCP's documents that comes closest |
| `error.code` | | its number in OCP's older table; 0 where that has none |
| `error.message` | the message, `ErrorInfo.metadata[\"hint\"]` | what is wrong, and in the hint what to do |
| `error.message`, where Chinese is wanted | `LocalizedMessage` (`zh-CN`), `ErrorInfo.metadata[\"hint-zh-CN\"]` | the same in Chinese |
| `error.target` | `ErrorInfo.metadata[\"target\"]` | what it is about, say `hosts/20`; `null` where that is the request |
| `error.subErrors[]`: `object`, `field`, `rejectedValue`, `message` | `BadRequest` | each field that is wrong |
| | `PreconditionFailure` | with `FAILED_PRECONDITION`: the reason, and the object that is in the way |
| | `ResourceInfo` | with `NOT_FOUND` and `ALREADY_EXISTS`: the kind of object, and which |
| `Retry-After`, in whole seconds | `RetryInfo` | when to try again; only where waiting helps |
| `traceId` | | what to search the logs for |

`subErrors` tell all that is wrong with the path, or with the query, or with the body, or with what the server finds in what
is well-formed, and not only the first of it. `object` is `path`, `query`, `header` or `body`. `rejectedValue` is what was
said; it is `null` where nothing was said, where it is long or not a single value, and wherever it could be a secret.

## Languages

`Accept-Language` decides: Chinese where it wants `zh` (in any script or region) more than `en`, else English. The answer says
which with `Content-Language`, `en` or `zh-CN`. A gRPC status has both languages.

Chinese are the messages, the hints and what is wrong with a field. English in every language are reasons, names of fields and
routes, states such as `RUNNING`, names and descriptions of tasks, logs, and what an agent or the operating system says of a
process: such a text follows the Chinese sentence for its reason.

## Reasons

`Retry-After` is what is said where nothing better is known, and `no` where waiting changes nothing.

| reason | gRPC | HTTP | errorCode | code | meaning | what to do | Retry-After |
|---|---|---|---|---|---|---|---|
";

/// The documentation of errors is the one that the tables make.
#[test]
fn errors_doc() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("docs/errors.md");
    let made = document();
    if env::var_os("BELAY_WRITE_DOCS").is_some() {
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(&file, &made).expect("written");
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    let differs = kept.lines().zip(made.lines()).find(|(kept, made)| kept != made);
    assert!(
        kept == made,
        "`docs/errors.md` is not what the tables say: make it again with \
         `BELAY_WRITE_DOCS=1 cargo test -p belay-gateway errors_doc`; the first line that differs: {differs:#?}"
    );
}

fn document() -> String {
    let mut text = HEAD.to_owned();
    for &reason in Reason::ALL {
        let Row { status, code, error_code } = row(reason);
        let Facts { advice, retry, .. } = reason.facts();
        let (name, grpc, status) = (reason.as_str(), screaming(reason), status.as_u16());
        let after = retry.map_or_else(|| "no".to_owned(), |after| format!("{} s", after.as_secs()));
        let meaning = reason.meaning().trim_end_matches('.');
        writeln!(
            text,
            "| `{name}` | {grpc} | {status} | {error_code} | {code} | {meaning} | {advice} | {after} |"
        )
        .expect("written");
    }
    text += "\n## The same in Chinese\n\n| reason | 含义 | 处理方法 |\n|---|---|---|\n";
    for &reason in Reason::ALL {
        let Facts { chinese, chinese_advice, .. } = reason.facts();
        writeln!(text, "| `{}` | {chinese} | {chinese_advice} |", reason.as_str()).expect("written");
    }
    text
}

/// The code of a reason as the gRPC documents write it.
fn screaming(reason: Reason) -> String {
    let mut name = String::new();
    for letter in format!("{:?}", reason.code()).chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// No cell of a table has what would end it.
#[test]
fn the_tables_are_tables() {
    for line in document().lines().filter(|line| line.starts_with("| `")) {
        assert!(matches!(line.matches('|').count(), 4 | 9), "{line}");
    }
}
