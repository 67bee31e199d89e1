//! `belay audit`.

use belay_gateway::json;
use belay_proto::v1::AuditRecord;
use clap::Subcommand;

use super::Context;
use crate::{cli, failure::Failure, output::Table, words};

/// What to do with the audit trail.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the newest records, newest first.
    #[command(
        after_help = "Examples:\n  belay audit list --limit 20\n  belay audit list --before 4711 -o json"
    )]
    List {
        /// Only records older than the one with this id.
        #[arg(long, default_value_t = 0, value_name = "ID", hide_default_value = true)]
        before: i64,
        /// At most this many.
        #[arg(long, default_value = "100", value_parser = cli::limit, value_name = "NUMBER")]
        limit: usize,
    },
}

/// Does it.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List { before, limit } => list(before, limit, context).await,
    }
}

async fn list(before: i64, limit: usize, context: &Context) -> Result<(), Failure> {
    let records = context.client().await?.audit_records(before, limit).await?;
    let text = table(&records);
    context.answer(
        |zone| json::Listed {
            contents: records.into_iter().map(|record| json::AuditRecord::new(record, zone)).collect(),
        },
        || text,
    )
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
