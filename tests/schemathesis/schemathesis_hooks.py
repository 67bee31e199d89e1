"""What Schemathesis is told of requests beside the description."""

import ipaddress
import re
import uuid

import schemathesis
from schemathesis.generation import GenerationMode
from schemathesis.generation.meta import TestPhase

LISTS = {"listHosts", "listAgentProcesses", "listTasks", "listRegions", "listIdcs", "listHostTypes"}
# Addresses of nobody, for tests of networks: whoever adds hosts lets the server call there.
ADDRESSES = ipaddress.ip_network("198.18.0.0/15").hosts()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Every order gets a key of its own. By themselves most would have the same few, and be refused as other orders.

    Hosts are added at addresses of nobody, each at one of its own. Nobody waits for the end of a task for longer than a second.
    What follows from a list is found only where the list has something in it: not on page 16,218. And nobody takes away the user
    as whom it calls, or another one of them: it reads their names in the audit trail. And the query and the body of one request
    ask for the same, which no schema can say.
    """
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch("[A-Za-z0-9-]{1,200}", key):
        case.headers["Idempotency-Key"] = f"{key}-{uuid.uuid4()}"
    is_positive = case.meta.generation.mode == GenerationMode.POSITIVE
    if case.operation.definition.raw.get("operationId") == "batchCreateHosts" and is_positive and isinstance(case.body, dict):
        for host in case.body.get("hostBasicDataList") or []:
            host["innerIpAddress"] = str(next(ADDRESSES))
    if is_positive and "wait" in (case.query or {}):
        case.query["wait"] = "1s"
    if "Prefer" in (case.headers or {}):
        case.headers["Prefer"] = "wait=1"
    if is_positive and "dryRun" in (case.query or {}) and isinstance(case.body, dict) and case.body.get("dryRun") is not None:
        case.query["dryRun"] = "true" if case.body["dryRun"] else "false"
    for tags in ("If-Match", "If-None-Match"):
        # By the description there is a tag in it; the coverage phase sends none all the same.
        if is_positive and (case.headers or {}).get(tags) == "":
            del case.headers[tags]
    is_list = case.operation.definition.raw.get("operationId") in LISTS
    if is_list and case.meta.phase.name == TestPhase.STATEFUL and is_positive:
        case.query = {}
    user = (case.path_parameters or {}).get("name")
    if isinstance(user, str) and user.endswith("-of-this-run"):
        case.path_parameters["name"] = "not-" + user.removesuffix("-of-this-run")


@schemathesis.hook
def filter_body(context, body):
    """For JSON Schema `2.0` is a whole number. For a program that reads whole numbers it is not, which no schema can say."""
    return not has_whole_float(body)


def has_whole_float(value):
    if isinstance(value, dict):
        return any(has_whole_float(one) for one in value.values())
    if isinstance(value, list):
        return any(has_whole_float(one) for one in value)
    return isinstance(value, float) and value.is_integer()
