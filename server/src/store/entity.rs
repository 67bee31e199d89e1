//! The rows as the database keeps them: plain numbers and words. They become domain types in the files beside this one.

macro_rules! rows {
    ($($(#[$doc:meta])* $module:ident in $table:literal { $($(#[$attr:meta])* $field:ident: $type:ty,)* })*) => { $(
        $(#[$doc])*
        #[allow(unreachable_pub)] // what the derive makes is `pub`
        pub(super) mod $module {
            use sea_orm::entity::prelude::*;

            #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
            #[sea_orm(table_name = $table)]
            pub struct Model {
                $($(#[$attr])* pub $field: $type,)*
            }

            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub enum Relation {}

            impl ActiveModelBehavior for ActiveModel {}
        }
    )* };
}

rows! {
    /// Single values, by name.
    setting in "settings" {
        #[sea_orm(primary_key, auto_increment = false)]
        name: String,
        value: String,
    }
    /// Hosts.
    host in "hosts" {
        #[sea_orm(primary_key)]
        id: i64,
        identity: String,
        incarnation: String,
        boot_id: String,
        name: String,
        address: String,
        version: String,
        operating_system: String,
        operating_system_release: String,
        architecture: String,
        install_home: String,
        log_home: String,
        tracker: String,
        tracker_reason: String,
        agent_state: String,
        last_report_time: Option<i64>,
        create_time: i64,
        update_time: i64,
        labels: Option<String>,
        operator_labels: Option<String>,
        maintenance: Option<String>,
        idc_id: Option<i64>,
        type_id: Option<i64>,
        profile: Option<String>,
    }
    /// Regions.
    region in "regions" {
        #[sea_orm(primary_key)]
        id: i64,
        name: String,
        description: String,
        create_time: i64,
        update_time: i64,
    }
    /// Data centres.
    idc in "idcs" {
        #[sea_orm(primary_key)]
        id: i64,
        name: String,
        description: String,
        region_id: i64,
        create_time: i64,
        update_time: i64,
    }
    /// Host types.
    host_type in "host_types" {
        #[sea_orm(primary_key)]
        id: i64,
        name: String,
        description: String,
        create_time: i64,
        update_time: i64,
    }
    /// Agents of hosts that were deleted, by identity.
    deleted_agent in "deleted_agents" {
        #[sea_orm(primary_key, auto_increment = false)]
        identity: String,
        host_id: i64,
        name: String,
        principal: String,
        delete_time: i64,
    }
    /// Tokens with which parts join.
    join_token in "join_tokens" {
        #[sea_orm(primary_key)]
        id: i64,
        digest: String,
        host_id: Option<i64>,
        gateway: String,
        creator: String,
        create_time: i64,
        expire_time: i64,
    }
    /// Parts of the fleet that have certificates: `host/ID`, `gateway/NAME`.
    member in "members" {
        #[sea_orm(primary_key, auto_increment = false)]
        name: String,
        generation: i64,
        standing: String,
        join_time: i64,
    }
    /// Process identities, each with its last observation.
    process in "processes" {
        #[sea_orm(primary_key)]
        id: i64,
        host_id: i64,
        alias: String,
        declared: bool,
        operable: bool,
        log_file_pattern: String,
        observed: Option<String>,
        observed_time: Option<i64>,
        create_time: i64,
        update_time: i64,
    }
    /// Users.
    user in "users" {
        #[sea_orm(primary_key)]
        id: i64,
        name: String,
        password_hash: String,
        /// Those on every host.
        roles: String,
        create_time: i64,
        update_time: i64,
        /// Those on some hosts.
        grants: Option<String>,
    }
    /// Bearer tokens, by digest.
    token in "tokens" {
        #[sea_orm(primary_key, auto_increment = false)]
        digest: String,
        user_id: i64,
        expire_time: i64,
        create_time: i64,
        name: String,
        /// What it may at the most, where it may less than its user.
        grants: Option<String>,
        last_used_time: Option<i64>,
    }
    /// Keys that requests are signed with, each with its sealed secret.
    access_key in "access_keys" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        user_id: i64,
        secret: Vec<u8>,
        enabled: bool,
        create_time: i64,
        last_used_time: Option<i64>,
    }
    /// Signatures that an order was taken with, as long as they could be used again.
    used_signature in "used_signatures" {
        #[sea_orm(primary_key, auto_increment = false)]
        digest: String,
        idempotency_key: String,
        create_time: i64,
        expire_time: i64,
    }
    /// Tasks.
    task in "tasks" {
        #[sea_orm(primary_key)]
        id: i64,
        name: String,
        host_id: i64,
        status: String,
        creator_id: i64,
        creator: String,
        executor: String,
        trace: String,
        reason: String,
        create_time: i64,
        finish_time: Option<i64>,
        prohibit_rollback: bool,
        claim_holder: String,
        claim_epoch: i64,
        claim_until: i64,
        batch: Option<String>,
        not_started_after: Option<i64>,
    }
    /// The hosts of a task, each with its place among them.
    task_host in "task_hosts" {
        #[sea_orm(primary_key, auto_increment = false)]
        task_id: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        place: i64,
        host_id: i64,
    }
    /// How many tasks there are: of one name and status, of one host or (0) of all. Kept by triggers.
    task_count in "task_counts" {
        #[sea_orm(primary_key, auto_increment = false)]
        host_id: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        name: String,
        #[sea_orm(primary_key, auto_increment = false)]
        status: String,
        count: i64,
    }
    /// Tasks whose row is gone, and what belonged to them not all yet.
    removed_task in "removed_tasks" {
        #[sea_orm(primary_key, auto_increment = false)]
        task_id: i64,
    }
    /// The definition of a task's steps, as the task was made with it.
    subtask in "subtasks" {
        #[sea_orm(primary_key)]
        id: i64,
        task_id: i64,
        node: String,
        name: String,
        class_name: String,
        series_id: i64,
        timeout: i64,
        undo: String,
        lane: i64,
    }
    /// Which step waits for which.
    edge in "subtask_edges" {
        #[sea_orm(primary_key)]
        id: i64,
        task_id: i64,
        upstream_id: i64,
        downstream_id: i64,
    }
    /// What happened to tasks, appended only.
    event in "task_events" {
        #[sea_orm(primary_key)]
        id: i64,
        task_id: i64,
        time: i64,
        event: String,
    }
    /// Lines of subtasks' logs.
    log in "subtask_logs" {
        #[sea_orm(primary_key)]
        id: i64,
        subtask_id: i64,
        attempt: i64,
        time: i64,
        level: String,
        message: String,
        operation: String,
        number: i64,
        bytes_before: i64,
    }
    /// Which open task holds which host.
    host_lock in "host_locks" {
        #[sea_orm(primary_key, auto_increment = false)]
        host_id: i64,
        task_id: i64,
    }
    /// Orders to agents.
    operation in "operations" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        verb: String,
        host_id: i64,
        process_id: Option<i64>,
        task_id: Option<i64>,
        epoch: i64,
        state: String,
        outcome: String,
        message: String,
        trace: String,
        create_time: i64,
        finish_time: Option<i64>,
    }
    /// The audit trail, appended only until it is old.
    audit in "audit" {
        #[sea_orm(primary_key)]
        id: i64,
        time: i64,
        principal: String,
        action: String,
        target: String,
        reason: String,
        decision: String,
        outcome: String,
        trace_id: String,
        operation_id: String,
        task_id: Option<i64>,
        mac: Option<Vec<u8>>,
        settled: Option<String>,
        settled_mac: Option<Vec<u8>>,
    }
    /// Keys under which orders were sent, each with the first answer.
    idempotency_key in "idempotency_keys" {
        #[sea_orm(primary_key)]
        id: i64,
        user_id: i64,
        digest: String,
        request: String,
        audit_id: Option<i64>,
        code: Option<i64>,
        message: Option<String>,
        body: Option<Vec<u8>>,
        expire_time: i64,
    }
}
