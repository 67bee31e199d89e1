//! What is the same for every problem with a reason: one table, without a default, so that a new reason does not compile
//! before all of it is said.

use std::time::Duration;

use super::Reason;

/// What a reason alone tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What to do about it, in general. A problem's own hint knows more.
    pub advice: &'static str,
    /// What it means, in Chinese.
    pub chinese: &'static str,
    /// What to do about it, in Chinese.
    pub chinese_advice: &'static str,
    /// After what time trying again may help; `None` where waiting changes nothing.
    pub retry: Option<Duration>,
    /// The kind of object that is unknown, or exists already, as `google.rpc.ResourceInfo` names it.
    pub resource: Option<&'static str>,
}

impl Reason {
    /// What it tells by itself.
    pub const fn facts(self) -> Facts {
        match self {
            Self::InvalidArgument => said(
                "correct the fields that are named and send the request again",
                "请求中有不合要求的内容",
                "请改正后重新发送请求",
            ),
            Self::SortUnsupported => said(
                "sort by one of the fields that the message names",
                "列表不支持按该字段排序",
                "请改用受支持的排序字段",
            ),
            Self::Unauthenticated => {
                said("send valid credentials", "未登录，或凭证无效", "请携带有效的凭证重新发送请求")
            }
            Self::ClockSkew => said(
                "set the clock of the caller, sign the request again and send it",
                "请求签名的时间与服务端的时间相差过大",
                "请校准调用方的时钟，重新签名后再发送请求",
            ),
            Self::SignatureReplayed => said(
                "sign the order again with a new `Date`",
                "该签名已使用过，本次没有执行任何操作",
                "请使用新的 `Date` 重新签名后再发送请求",
            ),
            Self::PermissionDenied => said(
                "ask an administrator for the role",
                "当前用户没有执行该操作的权限",
                "请联系管理员授予相应的角色",
            ),
            Self::HostUnknown => {
                said("list hosts with `belay host list`", "主机不存在", "请用 `belay host list` 查看所有主机")
                    .about("belay/Host")
            }
            Self::ProcessUnknown => said(
                "list the processes of the host with `belay process list`",
                "主机上没有该进程",
                "请用 `belay process list` 查看主机上的进程",
            )
            .about("belay/AgentProcess"),
            Self::TaskUnknown => {
                said("list tasks with `belay task list`", "任务不存在", "请用 `belay task list` 查看所有任务")
                    .about("belay/Task")
            }
            Self::SubtaskUnknown => said(
                "see the subtasks of the task with `belay task get`",
                "任务中没有该子任务",
                "请用 `belay task get` 查看任务的子任务",
            )
            .about("belay/Subtask"),
            Self::UserUnknown => {
                said("list users with `belay user list`", "用户不存在", "请用 `belay user list` 查看所有用户")
                    .about("belay/User")
            }
            Self::AccessKeyUnknown => said(
                "list your access keys with `belay key list`",
                "访问密钥不存在",
                "请用 `belay key list` 查看您的访问密钥",
            )
            .about("belay/AccessKey"),
            Self::TokenUnknown => said(
                "list your tokens with `belay user token list`",
                "令牌不存在",
                "请用 `belay user token list` 查看您的令牌",
            )
            .about("belay/Token"),
            Self::TooManyTokens => said(
                "revoke a token that is not used any more",
                "用户的令牌数量已达上限",
                "请吊销不再使用的令牌",
            ),
            Self::RegionUnknown => said(
                "list regions with `belay region list`",
                "区域不存在",
                "请用 `belay region list` 查看所有区域",
            )
            .about("belay/Region"),
            Self::IdcUnknown => said(
                "list data centres with `belay idc list`",
                "机房不存在",
                "请用 `belay idc list` 查看所有机房",
            )
            .about("belay/Idc"),
            Self::HostTypeUnknown => said(
                "list host types with `belay host-type list`",
                "机型不存在",
                "请用 `belay host-type list` 查看所有机型",
            )
            .about("belay/HostType"),
            Self::OperationUnknown => {
                said("send the order", "主机上的 Agent 没有收到过该操作", "请下达该操作")
                    .about("belay/Operation")
            }
            Self::RouteUnknown => said(
                "compare the path with the API reference",
                "请求的路径不存在",
                "请对照 API 文档检查请求路径",
            ),
            Self::MethodNotAllowed => said(
                "use a method that the `Allow` header names",
                "该路径不支持此请求方法",
                "请使用响应头 `Allow` 中列出的请求方法",
            ),
            Self::UnsupportedMediaType => said(
                "send `Content-Type: application/json`, or no body",
                "请求体不是 JSON",
                "请使用 `Content-Type: application/json`，或不带请求体",
            ),
            Self::BodyTooLarge => said("send less", "请求体过大", "请减小请求体后重新发送"),
            Self::UserExists => {
                said("choose another name", "用户名已存在", "请换一个用户名").about("belay/User")
            }
            Self::LastAdmin => said(
                "add another user with the role ADMIN first",
                "不能移除最后一个管理员",
                "请先添加另一个拥有 ADMIN 角色的用户",
            ),
            Self::TooManyAccessKeys => said(
                "delete an access key that is not used any more",
                "用户的访问密钥数量已达上限",
                "请删除不再使用的访问密钥",
            ),
            Self::NameTaken => {
                said("choose another name", "名称已被占用", "请换一个名称").about("belay/Name")
            }
            Self::StillUsed => said(
                "change or delete first what points to it",
                "仍有对象引用它，不能删除",
                "请先修改或删除引用它的对象",
            ),
            Self::HostExists => {
                said("see the host that is named", "主机已存在", "请查看提示中的主机").about("belay/Host")
            }
            Self::HostInUse => said(
                "wait for the task that holds the host, then delete it",
                "主机正被任务占用，不能删除",
                "请等待占用主机的任务结束后再删除",
            )
            .after_seconds(5),
            Self::HostWrongState => {
                said("do first what the hint says", "主机当前的状态不允许该操作", "请先按提示处理主机")
            }
            Self::HostDeleted => said(
                "create a host at the address of the agent, or end the agent",
                "该 Agent 的主机已被删除",
                "请按该 Agent 的地址重新创建主机，或停止该 Agent",
            ),
            Self::AgentBusy => said(
                "wait for the task that is named, then order again",
                "主机正被任务占用，或 Agent 当前的状态不允许该操作",
                "请等待占用主机的任务结束后再操作",
            )
            .after_seconds(5),
            Self::AgentCloned => said(
                "make the copy a host of its own, as the hint says",
                "有多个 Agent 上报了同一台主机的身份",
                "请先让其中的副本成为一台独立的主机",
            ),
            Self::ProcessNotOperable => said(
                "order the whole agent of the host instead",
                "该进程是基础进程，不能单独操作",
                "请改为操作主机的整个 Agent",
            ),
            Self::ProcessProtected => said(
                "order it on the host itself with `belay-agent ctl`, or take it out of `[policy] protect` there",
                "主机上的 Agent 保护该进程，服务端不能停止或重启它",
                "请在主机上用 `belay-agent ctl` 操作，或在其配置中将该进程移出 `[policy] protect`",
            ),
            Self::AgentRefuses => said(
                "wait until it is over, or end it on the host with `belay-agent ctl maintenance off`",
                "主机上的 Agent 目前不接受服务端的操作",
                "请等待维护结束，或在主机上用 `belay-agent ctl maintenance off` 结束维护",
            ),
            Self::ProcessUndeclared => said(
                "declare it in the agent's configuration and restart the agent",
                "主机的 Agent 配置中已没有该进程",
                "请在 Agent 的配置中声明该进程，然后重启 Agent",
            ),
            Self::AgentUnreachable => said(
                "check that `belay-agent` runs on the host and reaches the server",
                "无法连接主机上的 Agent",
                "请检查主机上的 `belay-agent` 是否在运行、能否连接服务端",
            )
            .after_seconds(5),
            Self::NotProven => said(
                "read the object again before the order is repeated",
                "操作的结果未能在限定时间内得到确认，操作仍可能在进行",
                "请先重新查询对象的状态，再决定是否重新操作",
            ),
            Self::Leftovers => {
                said("look at what is left on the host", "停止之后仍有进程存活", "请到主机上检查残留的进程")
            }
            Self::SignalRefused => said(
                "run the agent as root or as the user of the process",
                "系统不允许 Agent 向该进程发送信号",
                "请以 root 或进程所属用户的身份运行 Agent",
            ),
            Self::LogNotOffered => said(
                "read a file that the process's `logFilePattern` matches",
                "该文件不在进程的日志文件范围内",
                "请读取与进程的 `logFilePattern` 匹配的文件",
            ),
            Self::LogUnknown => {
                said("see which log files the process has", "日志文件不存在", "请检查日志文件的路径")
                    .about("belay/LogFile")
            }
            Self::StartFailed => said(
                "see why with `belay process get`, and in the process's log",
                "进程启动失败",
                "请用 `belay process get` 和进程日志查看原因",
            ),
            Self::UpgradeRefused => said(
                "look at the program that is to take over",
                "新的 Agent 程序无法接替运行",
                "请检查要接替的程序",
            ),
            Self::Superseded => said(
                "read the process again: a newer order decides what it does now",
                "该操作已被更新的操作取代",
                "请重新查询进程的状态，它由更新的操作决定",
            ),
            Self::Cancelled => {
                said("order again if it is still meant", "操作已取消", "如仍需执行，请重新下达")
            }
            Self::TaskWrongState => said(
                "see the task with `belay task get`",
                "任务当前的状态不允许该操作",
                "请用 `belay task get` 查看任务的状态",
            ),
            Self::SubtaskWrongState => said(
                "see the task with `belay task get`",
                "子任务当前的状态不允许该操作",
                "请用 `belay task get` 查看子任务的状态",
            ),
            Self::SkipRefused => said(
                "retry the subtask, or the whole task",
                "子任务当前的状态不允许跳过",
                "请重试该子任务或整个任务",
            ),
            Self::RollbackProhibited => said(
                "retry the task, or order the opposite",
                "任务不允许回滚",
                "请重试任务，或下达相反的操作",
            ),
            Self::BlastRadius => said(
                "if that is meant, say the number of the hosts",
                "涉及的主机数量超过上限，或与确认的数量不一致",
                "如确认无误，请给出主机的数量",
            ),
            Self::PlanUnknown => {
                said("plan again", "批量操作的计划不存在或已过期", "请重新制定计划").about("belay/BatchPlan")
            }
            Self::PlanOutdated => said(
                "plan again, look at it, and order that",
                "制定计划之后主机的情况已有变化",
                "请重新制定计划，确认后再执行",
            ),
            Self::PreconditionFailedGeneration => said(
                "read the process again, and order what is right now",
                "进程的代次与请求所期望的不符，没有执行任何操作",
                "请重新查看该进程，然后按现在的情况下达操作",
            ),
            Self::PreconditionFailedVersion => said(
                "read the task again, and order what is right now",
                "任务的版本与请求所期望的不符，没有执行任何操作",
                "请重新查看该任务，然后按现在的情况下达操作",
            ),
            Self::TimedOut => said(
                "see the log of the subtask, then retry it",
                "子任务执行超时",
                "请查看子任务的日志，然后重试",
            ),
            Self::IdempotencyKeyReused => said(
                "send a new key with a new request",
                "该幂等键已用于另一个请求，本次没有执行任何操作",
                "新的请求请使用新的幂等键",
            ),
            Self::IdempotencyKeyInUse => said(
                "send the same request with the same key again",
                "使用该幂等键的第一个请求仍在处理",
                "请稍后用同一幂等键重新发送同一请求",
            )
            .after_seconds(1),
            Self::WrongAgent => said(
                "check what the agent of the host advertises as its address",
                "该地址上是另一台主机的 Agent，没有执行任何操作",
                "请检查主机的 Agent 上报的地址",
            ),
            Self::StaleEpoch => said(
                "order at the server that took over",
                "该操作来自已被取代的服务端节点",
                "请在接替的服务端节点上重新操作",
            ),
            Self::Overloaded => {
                said("send less at once, and try again later", "同时处理的请求过多", "请稍后重试")
                    .after_seconds(1)
            }
            Self::RateLimited => said(
                "send less, and try again when the time is over that is named",
                "请求过于频繁，超过了限制",
                "请降低请求频率，并在限制解除后重试",
            )
            .after_seconds(1),
            Self::AtCapacity => said(
                "try again in a second",
                "同时处理的请求已达上限，本次没有执行任何操作",
                "请在一秒后重试",
            )
            .after_seconds(1),
            Self::StoreUnwritable => said(
                "make room on the disk of the server's data folder, or make the folder writable; then order again",
                "服务端无法写入数据库；无法记录的操作不会被执行",
                "请为服务端数据目录所在的磁盘腾出空间，或使该目录可写，然后重新操作",
            )
            .after_seconds(10),
            Self::ShuttingDown => {
                said("try again in a few seconds", "服务即将停止", "请稍后重试").after_seconds(2)
            }
            Self::ServerUnreachable => said(
                "read the object again before an order is repeated",
                "无法连接服务端",
                "请检查服务端是否在运行；重新操作之前请先查询对象的状态",
            )
            .after_seconds(2),
            Self::Internal => said(
                "search the logs for the trace id of the request",
                "内部错误",
                "请根据请求的 Trace ID 在日志中查找原因",
            ),
            Self::CertificateRefused => said(
                "join the fleet again with a new token",
                "调用方的证书已失效，或不能用于此调用",
                "请用新的令牌重新加入机群",
            ),
            Self::JoinTokenRefused => said("make a new token", "加入令牌无效", "请创建新的令牌"),
            Self::JoinTokenUnknown => said(
                "list the tokens that are good still",
                "加入令牌不存在，或已失效",
                "请查看仍然有效的令牌",
            )
            .about("belay/JoinToken"),
            Self::AuthorityInUse => said(
                "wait until all parts have renewed their certificates",
                "仍有部件需要使用该证书机构",
                "请等待所有部件更新证书",
            ),
            Self::TlsOff => said(
                "let the server speak TLS with certificates of its own making",
                "本服务端不签发证书",
                "请让服务端使用 TLS，并由它自行签发证书",
            ),
        }
    }
}

const fn said(advice: &'static str, chinese: &'static str, chinese_advice: &'static str) -> Facts {
    Facts { advice, chinese, chinese_advice, retry: None, resource: None }
}

impl Facts {
    const fn after_seconds(self, seconds: u64) -> Self {
        Self { retry: Some(Duration::from_secs(seconds)), ..self }
    }

    const fn about(self, resource: &'static str) -> Self {
        Self { resource: Some(resource), ..self }
    }
}
