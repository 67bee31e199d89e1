//! What a caller is told, in Chinese. No error has a default, so that a new one does not compile before it is said.

use super::{Error, NotVerified};

/// What is wrong and what to do. `None` where the problem inside says it, or where the wrong fields do.
pub(super) fn of(error: &Error) -> Option<(String, String)> {
    let told = |message: String, hint: &str| Some((message, hint.to_owned()));
    match error {
        Error::Invalid(_) | Error::Agent(_) | Error::Refused(_) => None,
        Error::Unsortable(field) => told(
            format!("任务不支持按 `{field}` 排序"),
            "请按 `id`、`createTime` 或 `startTime` 排序，其后可加 `,asc` 或 `,desc`",
        ),
        Error::HostsUnsortable(field) => told(
            format!("主机不支持按 `{field}` 排序"),
            "请按 `id`、`name`、`alias`、`innerIpAddress`、`status`、`createTime` 或 `updateTime` 排序，其后可加 `,asc` 或 `,desc`",
        ),
        Error::Unauthenticated(NotVerified::Store(_) | NotVerified::Sealed(_)) => internal(),
        Error::Unauthenticated(NotVerified::TooManyWrong(_)) => {
            told("密码错误的次数过多".into(), "请确认密码后再重试")
        }
        Error::Unauthenticated(NotVerified::Skewed { apart, now, most }) => told(
            format!(
                "请求的时间比服务端的时间（`{now}`）{} {} 秒，最多允许相差 {} 秒",
                if apart.is_negative() { "快" } else { "慢" },
                apart.abs().as_secs(),
                most.as_secs()
            ),
            "请校准调用方的时钟，重新签名后再发送请求",
        ),
        Error::Unauthenticated(
            why @ (NotVerified::WrongSignature
            | NotVerified::MalformedSignature(_)
            | NotVerified::NotSignedHere
            | NotVerified::OtherSigned),
        ) => told(
            match why {
                NotVerified::NotSignedHere => "签名的请求必须经由 REST 网关发送".into(),
                NotVerified::OtherSigned => "签名的内容与实际的请求不一致".into(),
                NotVerified::MalformedSignature(what) => format!("请求的签名方式不符合要求：{what}"),
                _ => "访问密钥或签名错误".into(),
            },
            "请对请求方法、请求体的 MD5、`Content-Type`、`Date`、`Host`、`x-ocp-` 请求头、路径和排序后的查询参数签名，并原样发送该请求",
        ),
        Error::Overloaded | Error::Unauthenticated(NotVerified::Overloaded) => {
            told("同时校验的密码过多".into(), "请在一秒后重试")
        }
        Error::Unauthenticated(why) => told(
            match why {
                NotVerified::Missing => "缺少凭证",
                NotVerified::Malformed => "`authorization` 既不是 `Basic` 或 `Bearer`，也不是签名",
                NotVerified::WrongPassword => "用户名或密码错误",
                NotVerified::WrongToken => "令牌未知、已撤销或已过期",
                _ => "现在无法校验凭证",
            }
            .into(),
            "请发送 `authorization: Basic base64(NAME:PASSWORD)` 或 `authorization: Bearer TOKEN`",
        ),
        Error::Denied { user, action, needs } => {
            told(format!("用户 `{user}` 无权调用 {action}，需要 {needs}"), "请联系管理员授予相应的角色")
        }
        Error::RouteUnknown(path) => {
            told(format!("没有 RPC `{path}`"), "请用 `grpcurl HOST:PORT list` 查看所有 RPC")
        }
        Error::HostUnknown(host) => {
            told(format!("主机 {host} 不存在"), "请用 `belay host list` 查看所有主机")
        }
        Error::ProcessUnknown { host, process } => Some((
            format!("主机 {host} 上没有进程 {process}"),
            format!("请用 `belay process list --host {host}` 查看该主机的进程"),
        )),
        Error::TaskUnknown(task) => {
            told(format!("任务 {task} 不存在"), "请用 `belay task list` 查看所有任务")
        }
        Error::SubtaskUnknown { task, subtask } => Some((
            format!("任务 {task} 中没有子任务 {subtask}"),
            format!("请用 `belay task get {task}` 查看它的子任务"),
        )),
        Error::MessageTooLarge { most } => Some(("消息过大".into(), format!("消息最多 {most} 字节"))),
        Error::KeyReused => told(
            "该幂等键已用于另一个请求，本次没有执行任何操作".into(),
            "新的请求请使用新的幂等键；重复发送时请保持请求不变，包括其中的原因",
        ),
        Error::KeyInUse => {
            told("使用该幂等键的第一个请求仍在处理".into(), "请稍后用同一幂等键重新发送同一请求")
        }
        Error::AccessKeyUnknown(id) => {
            told(format!("访问密钥 `{id}` 不存在"), "请用 `belay key list` 查看您的访问密钥")
        }
        Error::TooManyAccessKeys { user, most } => told(
            format!("用户 `{user}` 已有 {most} 个访问密钥，不能再创建"),
            "请删除不再使用的访问密钥，`belay key list` 会显示每个密钥最近一次使用的时间",
        ),
        Error::TokenUnknown(id) => {
            told(format!("令牌 `{id}` 不存在"), "请用 `belay user token list` 查看您的令牌")
        }
        Error::TooManyTokens { user, most } => told(
            format!("用户 `{user}` 已有 {most} 个令牌，不能再创建"),
            "请吊销不再使用的令牌，`belay user token list` 会显示每个令牌最近一次使用的时间",
        ),
        Error::SignatureReplayed => told(
            "该签名已使用过，本次没有执行任何操作".into(),
            "请使用新的 `Date` 重新签名；一秒内的两个相同操作需各带一个 `x-ocp-nonce` 请求头",
        ),
        Error::RateLimited { user, limit, span, wait } => Some((
            format!("用户 `{user}` 每 {} 秒最多发送 {limit} 个请求", span.as_secs()),
            format!("请在 {} 秒后重试", wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
        )),
        Error::Store(error) if error.is_unwritable() => told(
            "服务端无法写入数据库；无法记录的操作不会被执行".into(),
            "请为服务端数据目录所在的磁盘腾出空间，或使该目录可写，然后重新操作",
        ),
        Error::AtCapacity => told("同时处理的请求已达上限，本次没有执行任何操作".into(), "请在一秒后重试"),
        Error::TooManyStreams { whose, most } => {
            told(format!("{whose} 已有 {most} 个持续的流，不能再多"), "请结束无人读取的流")
        }
        Error::TooManyKeys { user, most } => told(
            format!("用户 `{user}` 已发送 {most} 个幂等键，不再保存更多，本次没有执行任何操作"),
            "请不带幂等键重新操作，或调大服务端设置中的 `idempotency_limit`",
        ),
        Error::UserUnknown(name) => {
            told(format!("用户 `{name}` 不存在"), "请用 `belay user list` 查看所有用户")
        }
        Error::UserExists(name) => told(format!("用户 `{name}` 已存在"), "请换一个用户名"),
        Error::LastAdmin(name) => {
            told(format!("`{name}` 是最后一个拥有 ADMIN 角色的用户"), "请先添加另一个拥有 ADMIN 角色的用户")
        }
        Error::HostHeld { host, task, forced } => {
            let wait = format!("请用 `belay task watch {task}` 等待它结束，然后重新操作");
            let hint = match forced {
                None => wait,
                Some(alias) => {
                    format!("{wait}；或者在主机上强制停止：`belay-agent ctl force {alias}`")
                }
            };
            Some((format!("主机 {host} 正被任务 {task} 占用"), hint))
        }
        Error::NotOperable { host, process, alias } => Some((
            format!("`{alias}`（{process}）是主机 {host} 的基础进程，不能单独操作"),
            format!("请改为操作该主机的整个 Agent：`belay agent stop --host {host}`"),
        )),
        Error::ProcessUndeclared { host, process, alias } => told(
            format!("主机 {host} 的 Agent 配置中已没有 `{alias}`（{process}）"),
            "请在 Agent 的配置中声明该进程，然后重启 Agent",
        ),
        Error::AgentUnreachable { host, age, source: _ } => {
            let silence = match age {
                Some(age) => format!("最近一次上报是在 {} 秒前", age.as_secs()),
                None => "服务端启动以来它尚未上报".to_owned(),
            };
            Some((
                format!("无法连接主机 {host} 的 Agent：{silence}"),
                format!(
                    "请检查主机上的 `belay-agent` 是否在运行、能否连接服务端；\
                     `GET /api/v2/compute/hosts/{host}` 会显示它最近一次上报的时间"
                ),
            ))
        }
        Error::AgentCloned { host, agents } => told(
            format!("有 {} 个 Agent 上报了主机 {host} 的身份：{}", agents.len(), agents.join("、")),
            "请在作为副本的主机上：用 `belay-agent ctl stop --all` 停止它的进程，结束它的 Agent，\
             从状态目录中删除 `identity`、`journal` 和 `tls.pem`，若机群使用 TLS，则用它自己的令牌加入\
             （`belay host token create`），然后重新启动；它会成为一台独立的主机",
        ),
        Error::AgentDoubted(host) => {
            told(format!("可能还有另一个 Agent 使用主机 {host} 的身份，正在确认"), "请在几秒后重试")
        }
        Error::WrongAnswer { host, what } => told(
            format!("主机 {host} 的 Agent 的回答自相矛盾：{what}；操作的结果尚不清楚"),
            "请先重新查询进程的状态，再决定是否重新操作，并查看 Agent 的日志",
        ),
        Error::NotProven { what, host, process, waited } => Some((
            format!("未能在 {waited:?} 内确认操作的结果：{what}；操作仍在进行"),
            format!("请重新查询进程的状态：`belay process get --host {host} {process}`"),
        )),
        Error::ShuttingDown => told("服务端即将停止".into(), "请在几秒后重试"),
        Error::Config(_)
        | Error::Listen { .. }
        | Error::Transport(_)
        | Error::File { .. }
        | Error::Papers(_)
        | Error::Random(_)
        | Error::Uncovered(_)
        | Error::Internal(_)
        | Error::Store(_) => internal(),
    }
}

fn internal() -> Option<(String, String)> {
    Some(("内部错误".into(), "原因在服务端的日志中，请按本次请求的 Trace ID 查找".into()))
}

#[cfg(test)]
mod tests {
    use belay_proto::{HostId, Problem, TaskId};

    use super::*;

    /// Both languages name the same things.
    #[test]
    fn what_is_meant_is_named_in_chinese_too() {
        let host = HostId::try_from(20).expect("an id");
        let task = TaskId::try_from(7).expect("an id");
        let held = Problem::from(&Error::HostHeld { host, task, forced: Some("obstat2".into()) });
        let chinese = held.chinese.expect("Chinese");
        assert_eq!(chinese.message, "主机 20 正被任务 7 占用");
        assert!(chinese.hint.contains("`belay task watch 7`"), "{}", chinese.hint);
        assert!(chinese.hint.ends_with("`belay-agent ctl force obstat2`"), "{}", chinese.hint);
        let wrong = Problem::from(&Error::invalid("size", "2001 is not from 1 to 2000"));
        assert_eq!(wrong.in_chinese().message, "字段 `size` 2001 不在 1 到 2000 之间");
    }
}
