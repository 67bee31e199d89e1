//! Tokens with which parts join, and the members of the fleet.

use belay_proto::{HostId, fail_point};
use jiff::Timestamp;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    Set, sea_query::OnConflict,
};

use super::{
    AuditEntry, Result, Store, StoreError, audit, enrolment,
    entity::{host, join_token as tokens, member},
    hosts::{facts_of, of_identity, read_host},
    id, micros,
    reference::place_of,
    time, word,
};
use crate::{
    host::{AgentState, Facts, Host, target},
    trust::{Member, Record, Who},
};

/// A token that is about to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewJoinToken {
    /// The digest of its secret.
    pub(crate) digest: String,
    pub(crate) who: Who,
    pub(crate) expire: Timestamp,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinToken {
    pub(crate) id: i64,
    pub(crate) who: Who,
    pub(crate) creator: String,
    pub(crate) create_time: Timestamp,
    pub(crate) expire_time: Timestamp,
}

/// Who shows a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Joins {
    /// An agent, with what it says of itself: identity, address and name.
    Agent(Box<Facts>),
    /// A gateway.
    Gateway,
}

/// As what it was taken in.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) member: Member,
    pub(crate) generation: u64,
    /// The record of the host of an agent, and the identity of the agent that it had before, where that is another one.
    pub(crate) host: Option<(Host, Option<String>)>,
}

impl Store {
    /// Adds a token. Those that have ended are forgotten meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where there are `most` already.
    pub(crate) async fn add_join_token(
        &self,
        new: NewJoinToken,
        most: u64,
        audit: AuditEntry,
    ) -> Result<JoinToken> {
        let change = self.change().await?;
        let ended = tokens::Column::ExpireTime.lte(micros(audit.time));
        tokens::Entity::delete_many().filter(ended).exec(&change).await?;
        if tokens::Entity::find().count(&change).await? >= most {
            return Err(StoreError::Missing);
        }
        let (host, gateway) = match new.who {
            Who::Agent(host) => (host.map(HostId::get), String::new()),
            Who::Gateway(name) => (None, name),
        };
        let row = tokens::ActiveModel {
            digest: Set(new.digest),
            host_id: Set(host),
            gateway: Set(gateway),
            creator: Set(audit.principal.clone()),
            create_time: Set(micros(audit.time)),
            expire_time: Set(micros(new.expire)),
            ..Default::default()
        };
        let row = row.insert(&change).await?;
        audit::commit(change, audit).await?;
        read_token(row)
    }

    /// The tokens that are good still, the oldest first.
    pub(crate) async fn join_tokens(&self, now: Timestamp) -> Result<Vec<JoinToken>> {
        let good = tokens::Entity::find().filter(tokens::Column::ExpireTime.gt(micros(now)));
        let rows = good.order_by_asc(tokens::Column::Id).all(&self.read).await?;
        rows.into_iter().map(read_token).collect()
    }

    /// Makes a token worthless.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub(crate) async fn delete_join_token(&self, id: i64, audit: AuditEntry) -> Result<()> {
        let change = self.change().await?;
        if tokens::Entity::delete_by_id(id).exec(&change).await?.rows_affected == 0 {
            return Err(StoreError::Missing);
        }
        audit::commit(change, audit).await
    }

    /// Takes in who shows the token of this digest, which is used up by that, and raises its generation. The principal and
    /// the target of `audit` are filled in.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where the token is not good, or for another part; [`StoreError::HostExists`] where the agent
    /// needs a token for its host; [`StoreError::HostDeleted`].
    pub(crate) async fn join(&self, digest: &str, joins: Joins, audit: AuditEntry) -> Result<Joined> {
        let change = self.change().await?;
        let token = tokens::Entity::find().filter(tokens::Column::Digest.eq(digest)).one(&change).await?;
        let token = token.filter(|token| token.expire_time > micros(audit.time));
        let token = token.ok_or(StoreError::Missing)?;
        tokens::Entity::delete_by_id(token.id).exec(&change).await?;
        let principal = format!("token:{}", token.creator);
        let (member, host) = match (joins, read_token(token)?.who) {
            (Joins::Agent(facts), Who::Agent(as_host)) => {
                let (row, before) = match as_host {
                    Some(host) => replace_agent(&change, host, &facts, audit.time).await?,
                    None => (take_agent(&change, &facts, audit.time).await?, None),
                };
                let host = read_host(&row, place_of(&change, &row).await?)?;
                (Member::Host(host.id), Some((host, before)))
            }
            (Joins::Gateway, Who::Gateway(name)) => (Member::Gateway(name), None),
            _ => return Err(StoreError::Missing),
        };
        let generation = raise(&change, &member, audit.time).await?;
        let target = match &member {
            Member::Host(id) => target(*id),
            Member::Gateway(name) => format!("gateways/{name}"),
        };
        audit::append(&change, AuditEntry { principal, target, ..audit }, None, None).await?;
        fail_point(|| "join.written");
        change.commit().await?;
        fail_point(|| "join.committed");
        Ok(Joined { member, generation, host })
    }

    /// The host of an agent.
    pub(crate) async fn host_of_identity(&self, identity: &str) -> Result<Option<HostId>> {
        of_identity(&self.read, identity).await?.map(|row| id(row.id)).transpose()
    }

    /// Every member.
    pub(crate) async fn members(&self) -> Result<Vec<(Member, Record)>> {
        let rows = member::Entity::find().all(&self.read).await?;
        let read = |row: member::Model| {
            let generation = u64::try_from(row.generation).unwrap_or_default();
            Ok((word(&row.name, Member::parse)?, Record { generation, standing: row.standing }))
        };
        rows.into_iter().map(read).collect()
    }

    /// Operators have brought a certificate of this generation for a host. Where it is a higher one, it is in force from now
    /// on. Gives the one that is in force; `None` where there is no such host.
    pub(crate) async fn raise_to(
        &self,
        host_id: HostId,
        generation: u64,
        now: Timestamp,
    ) -> Result<Option<u64>> {
        if host::Entity::find_by_id(host_id.get()).one(&self.read).await?.is_none() {
            return Ok(None);
        }
        let change = self.change().await?;
        if host::Entity::find_by_id(host_id.get()).one(&change).await?.is_none() {
            return Ok(None);
        }
        let member = Member::Host(host_id);
        let known = member::Entity::find_by_id(member.to_string()).one(&change).await?;
        let in_force = known.and_then(|row| u64::try_from(row.generation).ok()).unwrap_or_default();
        if in_force < generation {
            set_generation(&change, &member, generation, now).await?;
            change.commit().await?;
        }
        Ok(Some(in_force.max(generation)))
    }

    /// Whether there is a record of this member.
    pub(crate) async fn is_member(&self, member: &Member) -> Result<bool> {
        Ok(member::Entity::find_by_id(member.to_string()).one(&self.read).await?.is_some())
    }

    /// Notes which standing of the authorities a member has.
    pub(crate) async fn confirm_standing(&self, member: &Member, standing: &str) -> Result<()> {
        let change = self.change().await?;
        member::Entity::update_many()
            .set(member::ActiveModel { standing: Set(standing.into()), ..Default::default() })
            .filter(member::Column::Name.eq(member.to_string()))
            .exec(&change)
            .await?;
        change.commit().await?;
        fail_point(|| "standing.committed");
        Ok(())
    }
}

/// A host that is deleted has no member.
pub(super) async fn delete_members(change: &DatabaseTransaction, hosts: &[HostId]) -> Result<()> {
    let names = hosts.iter().map(|host| Member::Host(*host).to_string());
    member::Entity::delete_many().filter(member::Column::Name.is_in(names)).exec(change).await?;
    Ok(())
}

/// An agent takes the place of the one that a host had, or was to have.
async fn replace_agent(
    change: &DatabaseTransaction,
    host: HostId,
    facts: &Facts,
    now: Timestamp,
) -> Result<(host::Model, Option<String>)> {
    let row = host::Entity::find_by_id(host.get()).one(change).await?.ok_or(StoreError::Missing)?;
    if let Some(other) = of_identity(change, &facts.identity).await?
        && other.id != row.id
    {
        let what = format!("the agent {}", facts.identity);
        return Err(StoreError::HostExists { host: id(other.id)?, what });
    }
    enrolment::forgive(change, &facts.identity).await?;
    let before = Some(row.identity.clone()).filter(|identity| *identity != facts.identity);
    Ok((write_agent(change, row, facts, now).await?, before))
}

/// The host that waits for this agent, or a new one.
async fn take_agent(change: &DatabaseTransaction, facts: &Facts, now: Timestamp) -> Result<host::Model> {
    if let Some(known) = of_identity(change, &facts.identity).await? {
        let what = format!("the agent {}", facts.identity);
        return Err(StoreError::HostExists { host: id(known.id)?, what });
    }
    if let Some(row) = enrolment::expecting(change, facts).await? {
        return write_agent(change, row, facts, now).await;
    }
    let mut row = facts_of(facts)?;
    row.agent_state = Set(AgentState::Available.as_str().into());
    row.create_time = Set(micros(now));
    row.update_time = Set(micros(now));
    Ok(row.insert(change).await?)
}

async fn write_agent(
    change: &DatabaseTransaction,
    row: host::Model,
    facts: &Facts,
    now: Timestamp,
) -> Result<host::Model> {
    let row = host::ActiveModel {
        id: Set(row.id),
        identity: Set(facts.identity.clone()),
        address: Set(facts.address.clone()),
        name: Set(facts.name.clone()),
        update_time: Set(micros(now)),
        ..Default::default()
    };
    Ok(row.update(change).await?)
}

/// One generation more. The standing that it had is forgotten.
async fn raise(change: &DatabaseTransaction, member: &Member, now: Timestamp) -> Result<u64> {
    let known = member::Entity::find_by_id(member.to_string()).one(change).await?;
    let generation = known.map_or(0, |row| row.generation) + 1;
    let generation =
        u64::try_from(generation).map_err(|_| StoreError::Damaged(format!("the generation {generation}")))?;
    set_generation(change, member, generation, now).await?;
    Ok(generation)
}

async fn set_generation(
    change: &DatabaseTransaction,
    member: &Member,
    generation: u64,
    now: Timestamp,
) -> Result<()> {
    let row = member::ActiveModel {
        name: Set(member.to_string()),
        generation: Set(i64::try_from(generation).unwrap_or(i64::MAX)),
        standing: Set(String::new()),
        join_time: Set(micros(now)),
    };
    let again = OnConflict::column(member::Column::Name)
        .update_columns([member::Column::Generation, member::Column::Standing, member::Column::JoinTime])
        .to_owned();
    member::Entity::insert(row).on_conflict(again).exec_without_returning(change).await?;
    Ok(())
}

fn read_token(row: tokens::Model) -> Result<JoinToken> {
    let who = match (row.gateway.is_empty(), row.host_id) {
        (true, host) => Who::Agent(host.map(id).transpose()?),
        (false, _) => Who::Gateway(row.gateway),
    };
    Ok(JoinToken {
        id: row.id,
        who,
        creator: row.creator,
        create_time: time(row.create_time)?,
        expire_time: time(row.expire_time)?,
    })
}
