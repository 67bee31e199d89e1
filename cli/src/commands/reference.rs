//! `belay region`, `belay idc` and `belay host-type`: what hosts point to.

use belay_gateway::json;
use belay_proto::v1::{
    CreateHostTypeRequest, CreateIdcRequest, CreateRegionRequest, DeleteHostTypeRequest, DeleteIdcRequest,
    DeleteRegionRequest, HostType, Idc, ListHostTypesRequest, ListIdcsRequest, ListRegionsRequest,
    OrderPreview, Region,
};
use clap::{Args, Subcommand};

use super::{
    Context,
    terms::{self, DryRun, Ordered},
};
use crate::{
    client::Client,
    failure::Failure,
    output::{Table, say},
};

/// What to do with regions.
#[derive(Debug, Subcommand)]
pub(crate) enum RegionCommand {
    /// List all regions.
    #[command(after_help = "Example:\n  belay region list")]
    List,
    /// Add a region.
    #[command(after_help = "Example:\n  belay region create hz --description 'by the lake'")]
    Create(NewArgs),
    /// Delete a region in which no data centre is.
    #[command(after_help = "Example:\n  belay region delete hz")]
    Delete(DeleteArgs),
}

/// What to do with data centres.
#[derive(Debug, Subcommand)]
pub(crate) enum IdcCommand {
    /// List all data centres.
    #[command(after_help = "Example:\n  belay idc list")]
    List,
    /// Add a data centre to a region.
    #[command(after_help = "Example:\n  belay idc create hz-1 --region hz")]
    Create {
        #[command(flatten)]
        new: NewArgs,
        /// Its region, by id or name.
        #[arg(long, value_name = "REGION")]
        region: String,
    },
    /// Delete a data centre in which no host stands.
    #[command(after_help = "Example:\n  belay idc delete hz-1")]
    Delete(DeleteArgs),
}

/// What to do with host types.
#[derive(Debug, Subcommand)]
pub(crate) enum HostTypeCommand {
    /// List all host types.
    #[command(after_help = "Example:\n  belay host-type list")]
    List,
    /// Add a host type.
    #[command(after_help = "Example:\n  belay host-type create m1 --description '32 cores'")]
    Create(NewArgs),
    /// Delete a host type of which no host is.
    #[command(after_help = "Example:\n  belay host-type delete m1")]
    Delete(DeleteArgs),
}

const SILENT: &str = "the server does not say what it added";

/// One to add.
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// Its name, which no other one has.
    name: String,
    /// What there is to say of it.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    description: String,
    /// Why, for the audit trail.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    dry_run: DryRun,
}

/// One to delete.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Which, by id or name.
    which: String,
    /// Why, for the audit trail.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    dry_run: DryRun,
}

/// What hosts point to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Region,
    Idc,
    HostType,
}

/// Does it with regions.
pub(crate) async fn region(command: RegionCommand, context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    match command {
        RegionCommand::List => {
            let regions = client.regions().await?;
            let text = table(regions.iter().map(|it| (it.id, &it.name, "", &it.description)));
            context.answer(
                |zone| json::Listed { contents: shown(regions, |it| json::Region::new(it, zone)) },
                || text,
            )
        }
        RegionCommand::Create(NewArgs { name, description, reason, dry_run }) => {
            let request = CreateRegionRequest { name, description, reason, terms: dry_run.wire() };
            let created = client.create_region(request).await?;
            let region = match Ordered::read(created.region, created.preview, SILENT)? {
                Ordered::Done(region) => region,
                Ordered::Planned(preview) => return terms::answer(preview, context),
            };
            let text = table([(region.id, &region.name, "", &region.description)].into_iter());
            context.answer(|zone| json::Region::new(region, zone), || text)
        }
        RegionCommand::Delete(DeleteArgs { which, reason, dry_run }) => {
            let region_id = find(&client, Kind::Region, &which).await?;
            let request = DeleteRegionRequest { region_id, reason, terms: dry_run.wire() };
            deleted(region_id, client.delete_region(request).await?.preview, context)
        }
    }
}

/// Does it with data centres.
pub(crate) async fn idc(command: IdcCommand, context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    match command {
        IdcCommand::List => {
            let idcs = client.idcs().await?;
            let text = table(idcs.iter().map(|it| (it.id, &it.name, &it.region_name[..], &it.description)));
            context
                .answer(|zone| json::Listed { contents: shown(idcs, |it| json::Idc::new(it, zone)) }, || text)
        }
        IdcCommand::Create { new: NewArgs { name, description, reason, dry_run }, region } => {
            let region_id = find(&client, Kind::Region, &region).await?;
            let request = CreateIdcRequest { name, description, region_id, reason, terms: dry_run.wire() };
            let created = client.create_idc(request).await?;
            let idc = match Ordered::read(created.idc, created.preview, SILENT)? {
                Ordered::Done(idc) => idc,
                Ordered::Planned(preview) => return terms::answer(preview, context),
            };
            let text = table([(idc.id, &idc.name, &idc.region_name[..], &idc.description)].into_iter());
            context.answer(|zone| json::Idc::new(idc, zone), || text)
        }
        IdcCommand::Delete(DeleteArgs { which, reason, dry_run }) => {
            let idc_id = find(&client, Kind::Idc, &which).await?;
            let request = DeleteIdcRequest { idc_id, reason, terms: dry_run.wire() };
            deleted(idc_id, client.delete_idc(request).await?.preview, context)
        }
    }
}

/// Does it with host types.
pub(crate) async fn host_type(command: HostTypeCommand, context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    match command {
        HostTypeCommand::List => {
            let types = client.host_types().await?;
            let text = table(types.iter().map(|it| (it.id, &it.name, "", &it.description)));
            context.answer(
                |zone| json::Listed { contents: shown(types, |it| json::HostType::new(it, zone)) },
                || text,
            )
        }
        HostTypeCommand::Create(NewArgs { name, description, reason, dry_run }) => {
            let request = CreateHostTypeRequest { name, description, reason, terms: dry_run.wire() };
            let created = client.create_host_type(request).await?;
            let of = match Ordered::read(created.host_type, created.preview, SILENT)? {
                Ordered::Done(of) => of,
                Ordered::Planned(preview) => return terms::answer(preview, context),
            };
            let text = table([(of.id, &of.name, "", &of.description)].into_iter());
            context.answer(|zone| json::HostType::new(of, zone), || text)
        }
        HostTypeCommand::Delete(DeleteArgs { which, reason, dry_run }) => {
            let host_type_id = find(&client, Kind::HostType, &which).await?;
            let request = DeleteHostTypeRequest { host_type_id, reason, terms: dry_run.wire() };
            deleted(host_type_id, client.delete_host_type(request).await?.preview, context)
        }
    }
}

/// The id of the one that is meant, by its name or its id. A whole number is an id, unless it is a name.
pub(crate) async fn find(client: &Client, kind: Kind, named: &str) -> Result<i64, Failure> {
    let (noun, all): (_, Vec<(i64, String)>) = match kind {
        Kind::Region => ("region", shown(client.regions().await?, |it: Region| (it.id, it.name))),
        Kind::Idc => ("idc", shown(client.idcs().await?, |it: Idc| (it.id, it.name))),
        Kind::HostType => ("host-type", shown(client.host_types().await?, |it: HostType| (it.id, it.name))),
    };
    choose(&all, named).ok_or_else(|| {
        let known = all.iter().take(20).map(|(id, name)| format!("`{name}` ({id})")).collect::<Vec<_>>();
        Failure::not_found(format!("no {noun} `{named}`")).hint(match known.is_empty() {
            true => format!("there is none; add one with `belay {noun} create`"),
            false => format!("known: {}", known.join(", ")),
        })
    })
}

fn choose(all: &[(i64, String)], named: &str) -> Option<i64> {
    let by_name = all.iter().find(|(_, name)| name == named);
    let id = named.parse::<i64>().ok();
    by_name.or_else(|| all.iter().find(|(known, _)| Some(*known) == id)).map(|(id, _)| *id)
}

impl Client {
    /// Every region, by rising id.
    async fn regions(&self) -> Result<Vec<Region>, Failure> {
        let mut all = Vec::new();
        for page in 1.. {
            let answer = self.list_regions(ListRegionsRequest { page, size: 0 }).await?;
            all.extend(answer.regions);
            if answer.page.is_none_or(|of| page >= of.total_pages) {
                break;
            }
        }
        Ok(all)
    }

    /// Every data centre, by rising id.
    async fn idcs(&self) -> Result<Vec<Idc>, Failure> {
        let mut all = Vec::new();
        for page in 1.. {
            let answer = self.list_idcs(ListIdcsRequest { page, size: 0 }).await?;
            all.extend(answer.idcs);
            if answer.page.is_none_or(|of| page >= of.total_pages) {
                break;
            }
        }
        Ok(all)
    }

    /// Every host type, by rising id.
    async fn host_types(&self) -> Result<Vec<HostType>, Failure> {
        let mut all = Vec::new();
        for page in 1.. {
            let answer = self.list_host_types(ListHostTypesRequest { page, size: 0 }).await?;
            all.extend(answer.host_types);
            if answer.page.is_none_or(|of| page >= of.total_pages) {
                break;
            }
        }
        Ok(all)
    }
}

fn shown<T, U>(all: Vec<T>, show: impl Fn(T) -> U) -> Vec<U> {
    all.into_iter().map(show).collect()
}

fn table<'a>(rows: impl Iterator<Item = (i64, &'a String, &'a str, &'a String)>) -> String {
    let mut table = Table::new(["ID", "NAME", "REGION", "DESCRIPTION"]);
    for (id, name, region, description) in rows {
        table.row([id.to_string(), name.clone(), region.to_owned(), description.clone()]);
    }
    table.render()
}

fn deleted(id: i64, preview: Option<OrderPreview>, context: &Context) -> Result<(), Failure> {
    match preview {
        Some(preview) => terms::answer(preview, context),
        None => {
            say(&format!("deleted: {id}\n"));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_weighs_more_than_an_id() {
        let all = [(1, "hz".to_owned()), (2, "1".to_owned())];
        assert_eq!(choose(&all, "hz"), Some(1));
        assert_eq!(choose(&all, "1"), Some(2));
        assert_eq!(choose(&all, "2"), Some(2));
        assert_eq!(choose(&all, "sh"), None);
    }
}
