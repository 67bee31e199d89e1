//! `belay audit`.

use belay_gateway::json;
use belay_proto::{
    Exit,
    v1::{
        AuditDecision, AuditFault, AuditRecord, ListAuditRecordsRequest, VerifyAuditRequest,
        VerifyAuditResponse,
    },
};
use clap::{Args, Subcommand, ValueEnum};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::json;

use super::Context;
use crate::{
    cli,
    failure::Failure,
    names,
    output::{self, Format, Table},
    words,
};

/// What to do with the audit trail.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the newest records, newest first.
    #[command(
        after_help = "Examples:\n  belay audit list --limit 20\n  belay audit list --by kim --host web-1 --outcome AGENT_BUSY\n  \
                      belay audit list --before 4711 -o json"
    )]
    List {
        /// Only records older than the one with this id.
        #[arg(long, default_value_t = 0, value_name = "ID", hide_default_value = true)]
        before: i64,
        /// At most this many.
        #[arg(long, default_value = "100", value_parser = cli::limit, value_name = "NUMBER")]
        limit: usize,
        #[command(flatten)]
        filter: Filter,
    },
    /// Write all records to standard output, oldest first, each as one line of JSON with its id and its MAC.
    #[command(after_help = "Examples:\n  belay audit export > audit.jsonl\n  \
                      belay audit export --after $(tail -n 1 audit.jsonl | jq .id) >> audit.jsonl")]
    Export {
        /// Only records newer than the one with this id: the last one that was exported before.
        #[arg(long, default_value_t = 0, value_name = "ID", hide_default_value = true)]
        after: i64,
        #[command(flatten)]
        filter: Filter,
    },
    /// Look whether the trail is as it was written, and name the first record that is not.
    #[command(after_help = "Of a server that does not run: belay-server audit verify --config FILE\n\n\
                      Example:\n  belay audit verify")]
    Verify,
}

/// Which records are meant.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only what this user ordered.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    by: String,
    /// Only this order, say StopAgentProcess.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    action: String,
    /// Only orders on this, or on what is below it, say hosts/20 or users/kim.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TARGET")]
    target: String,
    /// Only orders on this host, or on what it runs.
    #[arg(long, conflicts_with = "target", value_name = "HOST")]
    host: Option<String>,
    /// Only orders that were allowed, or that were not.
    #[arg(long)]
    decision: Option<Decision>,
    /// Only orders that ended so, say DONE or AGENT_BUSY.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REASON")]
    outcome: String,
    /// Only orders of the request with this trace id.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ID")]
    trace: String,
    /// Only orders from this time on, say 2026-11-22T12:00:00+08:00.
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Only orders from before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
}

/// Whether an order was allowed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Decision {
    Allow,
    Deny,
}

/// Does it.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List { before, limit, filter } => list(before, limit, filter, context).await,
        Command::Export { after, filter } => export(after, filter, context).await,
        Command::Verify => verify(context).await,
    }
}

async fn list(before_id: i64, limit: usize, filter: Filter, context: &Context) -> Result<(), Failure> {
    let asked = ListAuditRecordsRequest { before_id, ..filter.asked(context).await? };
    let records = context.client().await?.audit_records(asked, limit).await?;
    let text = table(&records);
    context.answer(
        |zone| json::Listed {
            contents: records.into_iter().map(|record| json::AuditRecord::new(record, zone)).collect(),
        },
        || text,
    )
}

/// One record a line, whatever the form: a program that reads lines needs no more memory than one of them (hazard I12: JSON
/// has no line break within a text).
async fn export(after: i64, filter: Filter, context: &Context) -> Result<(), Failure> {
    let asked = ListAuditRecordsRequest { after_id: Some(after), ..filter.asked(context).await? };
    let zone = TimeZone::UTC;
    let write = |record| {
        let text = serde_json::to_string(&json::AuditRecord::new(record, &zone));
        output::line(&text.map_err(|error| Failure::caused("cannot write a record as JSON", &error))?)
    };
    context.client().await?.each_audit_record(asked, write).await
}

async fn verify(context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let (mut sound, mut page_token) = (0, String::new());
    loop {
        let stretch = client.verify_audit(VerifyAuditRequest { page_token }).await?;
        sound += stretch.sound;
        if stretch.next_page_token.is_empty() {
            return told(sound, stretch, context.format);
        }
        page_token = stretch.next_page_token;
    }
}

/// What was found in all stretches, of which this is the last.
fn told(sound: i64, last: VerifyAuditResponse, format: Format) -> Result<(), Failure> {
    let fault = last.fault.clone();
    match format {
        Format::Json => {
            let mut found = json!(json::AuditVerification::from(last));
            found["sound"] = json!(sound);
            output::json(&found)?;
        }
        Format::Table if fault.is_none() => output::write(&sound_words(sound, &last))?,
        Format::Table => {}
    }
    match fault {
        None => Ok(()),
        Some(AuditFault { record_id: 0, message, .. }) => {
            Err(Failure::new(Exit::Failed, format!("the audit trail is not as it was written: {message}"))
                .hint(NEXT))
        }
        Some(AuditFault { record_id, message, .. }) => Err(Failure::new(
            Exit::Failed,
            format!(
                "the audit trail is not as it was written, from record {record_id} on: {message}; \
                 {sound} records before it are sound"
            ),
        )
        .hint(NEXT)),
    }
}

/// What to do about a trail that somebody has changed.
const NEXT: &str =
    "keep a copy of the server's data folder as it is, and compare it with an export or a backup";

fn sound_words(sound: i64, last: &VerifyAuditResponse) -> String {
    let mut text = format!(
        "The audit trail is as it was written: {sound} records.\nThe newest record is {}, with the MAC {}.\n",
        last.newest_id, last.newest_mac
    );
    if last.removed_until_id > 0 {
        text += &format!("Records up to {} were removed for their age.\n", last.removed_until_id);
    }
    if last.unprotected_until_id > last.removed_until_id {
        text +=
            &format!("Records up to {} are as they were when protection began.\n", last.unprotected_until_id);
    }
    text
}

impl Filter {
    /// The list that is asked for, but for its place.
    async fn asked(self, context: &Context) -> Result<ListAuditRecordsRequest, Failure> {
        let Self { by, action, mut target, host, decision, outcome, trace, from, until } = self;
        if let Some(host) = host {
            let client = context.client().await?;
            target = format!("hosts/{}", names::host(&client, Some(&host)).await?.id);
        }
        let decision = match decision {
            None => AuditDecision::Unspecified,
            Some(Decision::Allow) => AuditDecision::Allow,
            Some(Decision::Deny) => AuditDecision::Deny,
        };
        let time = |time: Timestamp| prost_types::Timestamp {
            seconds: time.as_second(),
            nanos: time.subsec_nanosecond(),
        };
        Ok(ListAuditRecordsRequest {
            principal: by,
            action,
            target,
            decision: decision.into(),
            outcome,
            trace_id: trace,
            from: from.map(time),
            until: until.map(time),
            ..Default::default()
        })
    }
}

fn table(records: &[AuditRecord]) -> String {
    let mut table =
        Table::new(["ID", "TIME", "WHO", "ACTION", "TARGET", "DECISION", "OUTCOME", "TRACE", "REASON"]);
    for record in records {
        table.row([
            record.id.to_string(),
            words::time(record.time.as_ref()),
            record.principal.clone(),
            record.action.clone(),
            record.target.clone(),
            words::decision(record.decision),
            record.outcome.clone(),
            record.trace_id.clone(),
            record.reason.clone(),
        ]);
    }
    table.render()
}
