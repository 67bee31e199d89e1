//! Wire types to domain types and back. Besides the gRPC edges, nothing sees a wire type.
//!
//! What comes in is taken apart field by field, so that a new field does not compile until someone decides about it.

mod access_key;
mod address;
mod agent;
mod audit;
mod batch;
mod diagnosis;
mod enrolment;
mod grants;
mod host_list;
mod inward;
mod operation;
mod outward;
mod reference;
mod task_list;
mod task_log;
mod terms;
mod trust;
mod watch;

pub(crate) use {
    access_key::access_key_to_wire,
    agent::{Hello, Report, inventory, planned, report},
    audit::{audit_page_to_wire, audit_place, audit_stretch_to_wire},
    batch::{batch_order, batch_verb, plan_to_wire},
    diagnosis::finding_to_wire,
    enrolment::{Introduced, create_order, delete_order, introduced, profile_order},
    grants::{grant, grants, token_to_wire, user_to_wire},
    host_list::{host_filter, host_sort},
    inward::{
        Page, approved_wave, host_id, host_order, label_order, log_to_read, maintenance_order, page,
        process_id, process_order, reason, stop_mode, subtask_order, task_id, task_order,
    },
    operation::{Operation, OperationState},
    outward::{
        agent_to_wire, host_to_watch, host_to_wire, page_to_wire, piece_to_wire, process_in_list,
        process_to_watch, process_to_wire, task_to_wire, time,
    },
    reference::{
        host_type_id, host_type_to_wire, idc_id, idc_to_wire, new_reference, region_id, region_to_wire,
    },
    task_list::{TaskQuery, task_page_to_wire},
    task_log::{LogQuery, lines_to_wire},
    terms::{Term, given_to_wire, of_change, terms},
    trust::{authorities_to_wire, join_token_to_wire, joining_agent},
    watch::{heard, heard_version, host_news_to_wire, process_news_to_wire},
};
