//! What is wrong with a field, in Chinese: a catalogue of the English phrases, as gettext has them. Where a phrase is not in
//! it, the English one is shown.

use std::sync::LazyLock;

/// English and Chinese, with `{}` for what is taken over as it is. The first that fits counts, so the general ones are last.
const PHRASES: &[(&str, &str)] = &[
    ("{} hosts are named, and a grant has at most {}", "指定了 {} 台主机，而一项授权最多 {} 台"),
    (
        "hosts are said by their ids or by a selector, not by both",
        "主机只能用 ID 或选择器之一指定，不能同时使用",
    ),
    ("it means every host; leave it out for that", "该选择器表示所有主机，如需所有主机请去掉该字段"),
    ("there is none; say which role", "缺少该字段，请说明是哪个角色"),
    (
        "the user has no grant `{}`; `{}` shows those that it has",
        "用户没有授权 `{}`，`{}` 会显示其已有的授权",
    ),
    ("the user has {} grants, and may have no more", "用户已有 {} 项授权，不能再增加"),
    (
        "it may have at most {} bytes, and none that can not be printed",
        "长度不能超过 {} 字节，且不能含有不可打印的字符",
    ),
    ("there are {}, and a token may have {}", "有 {} 项，而一个令牌最多 {} 项"),
    ("there are {}, and a user may have {}", "有 {} 项，而一个用户最多 {} 项"),
    ("it is missing: say whether maintenance begins or ends", "缺少该字段，请说明维护是开始还是结束"),
    ("it is missing: say how long absent hosts are waited for", "缺少该字段，请说明等待失联主机多长时间"),
    ("it is missing: a container publishes ports", "缺少该字段：容器需要发布端口"),
    ("it is missing, or no kind of host", "缺少该字段，或不是主机类型"),
    ("it is missing", "缺少该字段"),
    ("it is not a time with an offset, such as `{}`", "不是带时区偏移的时间，正确的形式如 `{}`"),
    ("it must be ALLOW or DENY", "应为 ALLOW 或 DENY"),
    ("a page has a token or an id, not both", "分页只能用令牌或 ID 之一"),
    ("it is of a list with other filters", "它属于另一组筛选条件的列表"),
    (
        "a list begins after an id or before one, not both",
        "列表只能从某个 ID 之后或之前开始，不能同时给出两者",
    ),
    ("{} is no decision", "{} 不是决定"),
    ("it is not one that this server gave", "它不是由该服务端给出的"),
    ("missing field `{}`", "缺少字段 `{}`"),
    ("unknown field `{}`, there are no fields", "未知字段 `{}`，这里没有任何字段"),
    ("unknown field `{}`, expected `{}`", "未知字段 `{}`，可用的字段是 `{}`"),
    ("unknown field `{}`, expected one of {}", "未知字段 `{}`，可用的字段有 {}"),
    ("unknown field `{}`", "未知字段 `{}`"),
    ("duplicate field `{}`", "字段 `{}` 重复"),
    (
        "it is empty; say why, for whoever finds the host left out",
        "不能为空，请说明原因，以便他人了解该主机为何被排除",
    ),
    ("it is empty", "不能为空"),
    ("it says nothing, and nothing never means all", "内容为空，而空值绝不表示“全部”"),
    ("it is given more than once", "该参数出现了多次"),
    ("it is given under two names", "同一参数以两个名称出现"),
    ("it is longer than {} characters", "长度超过 {} 个字符"),
    ("it has {} characters; it must be at most {}", "有 {} 个字符，最多 {} 个"),
    ("it has control characters; write it on one line", "含有控制字符，请写成一行"),
    ("it is malformed", "格式不正确"),
    ("it is not UTF-8", "不是 UTF-8 编码"),
    ("it is too large", "数值过大"),
    ("it has blanks at its ends", "首尾不能有空白"),
    ("it is taken", "已被使用"),
    ("it is no id", "不是 ID"),
    ("it must be `true` or `false`", "应为 `true` 或 `false`"),
    ("there is none; give at least one", "至少要有一个"),
    ("there is more than one", "有多个，只能有一个"),
    ("a token is for a host or for a gateway", "令牌只能用于主机或网关中的一种"),
    ("there are more than {}", "超过了 {} 个"),
    ("they are {}, and a batch has at most {}", "有 {} 个，而一个批量任务最多 {} 个"),
    ("{} hosts are meant, and a batch has at most {}", "涉及 {} 台主机，而一个批量任务最多 {} 台"),
    ("every host that is meant is left out: host {} is {}", "符合条件的主机全部被排除：主机 {}（{}）"),
    ("no host is named, and nothing never means all", "没有指定主机，而空值绝不表示“全部”"),
    ("the hosts are said under more than one name", "主机以多个字段名指定"),
    ("the description is said under two names", "描述以两个字段名给出"),
    ("nothing is said of the host; say at least one thing", "没有给出主机的任何信息，请至少给出一项"),
    ("{} hosts are more than {}", "有 {} 台主机，最多 {} 台"),
    ("{} entries are more than {}", "有 {} 项，最多 {} 项"),
    ("{} is there twice", "{} 重复出现"),
    ("`{}` is the address of no host", "`{}` 不是任何主机的地址"),
    ("`{}` is not an IP address", "`{}` 不是 IP 地址"),
    ("only a container publishes ports; leave it out", "只有容器才发布端口，请去掉该字段"),
    ("an entry is not ports as in `{}`", "有一项不是 `{}` 这样的端口"),
    (
        "it can be that of one host alone; leave it out where it is many",
        "别名只能用于一台主机，添加多台主机时请去掉该字段",
    ),
    ("there is no region {}", "区域 {} 不存在"),
    ("there is no data centre {}", "机房 {} 不存在"),
    ("there is no host type {}", "机型 {} 不存在"),
    ("host {} has the agent address {}", "主机 {} 已使用 Agent 地址 {}"),
    ("`{}` says where the host stands: set that with `{}`", "`{}` 表示主机所在的位置，请使用 `{}` 设置"),
    ("no host is meant", "没有符合条件的主机"),
    ("no hosts are named", "没有指定主机"),
    ("no host is named; say which by {}", "没有指定主机，请使用 {} 之一"),
    ("say the hosts in one way: {}", "只能用一种方式指定主机：{}"),
    ("the hosts are said in more than one way, by {}", "主机以多种方式指定：{}"),
    ("host {} is held by task {}", "主机 {} 正被任务 {} 占用"),
    ("task {} is no batch", "任务 {} 不是批量任务"),
    ("plan `{}` is one to {}", "计划 `{}` 的操作是 {}"),
    ("a plan has its own; leave it out", "计划中已有该设置，请去掉"),
    ("a plan does nothing anyway", "计划本身不会执行任何操作"),
    ("a start takes no host down; leave them out", "启动不会使主机停止服务，请去掉该设置"),
    ("no host is meant by `{}`", "没有主机符合 `{}`"),
    ("it is only for `absent = WAIT`", "仅适用于 `absent = WAIT`"),
    ("it is known only together with `{}`", "只能与 `{}` 一起使用"),
    ("tasks cannot be sorted by `{}`", "任务不支持按 `{}` 排序"),
    ("hosts cannot be sorted by `{}`", "主机不支持按 `{}` 排序"),
    ("this list is sorted by `{}` alone", "该列表只能按 `{}` 排序"),
    ("a page has a number or a token, not both", "页码与分页令牌只能指定一个"),
    ("it is not one that came with a page", "不是有效的分页令牌"),
    ("it is of a list with other filters, or sorted otherwise", "该分页令牌属于另一组筛选或排序条件"),
    ("maintenance that ends has none", "结束维护时不能指定该字段"),
    ("no label to set or to remove is named", "没有指定要设置或移除的标签"),
    ("`{}` is to be set too", "`{}` 同时又要设置"),
    ("{} is not a role", "{} 不是角色"),
    ("{} is not a state of a task", "{} 不是任务状态"),
    ("{} is not a state of a host", "{} 不是主机状态"),
    ("{} is not a type of a service", "{} 不是服务类型"),
    ("{} is not a type of a task", "{} 不是任务类型"),
    ("{} is not an id: ids are whole numbers from {} to {}", "{} 不是 ID：ID 是 {} 到 {} 之间的整数"),
    ("it is not above 0 and at most {} s", "应大于 0 且不超过 {} 秒"),
    ("{} is not above 0", "{} 不大于 0"),
    ("it is not from {} to {} s", "不在 {} 到 {} 秒之间"),
    ("it is not from {} to {}", "不在 {} 到 {} 之间"),
    ("{} is not from {} to {}", "{} 不在 {} 到 {} 之间"),
    ("it is below {}", "小于 {}"),
    ("{} is below {}", "{} 小于 {}"),
    ("it must be a whole number from {} to {}", "应为 {} 到 {} 之间的整数"),
    (
        "it must be 1 to {} of a-z A-Z 0-9 . _ -, a letter or digit first",
        "应为 1 到 {} 个字符，只能使用 a-z A-Z 0-9 . _ -，并以字母或数字开头",
    ),
    ("it must have {} to {} bytes", "长度应为 {} 到 {} 字节"),
    ("it must be of {}, joined by commas", "应为 {} 中的值，以逗号分隔"),
    (
        "it must be FIELD, or FIELD and `asc` or `desc` after a comma",
        "应为字段名，其后可加逗号和 `asc` 或 `desc`",
    ),
    ("it must be STOP, RESTART or START", "应为 STOP、RESTART 或 START"),
    (
        "it must be MANUAL, SYS_ONECE, SCHEDULED or SYS_SCHEDULED",
        "应为 MANUAL、SYS_ONECE、SCHEDULED 或 SYS_SCHEDULED",
    ),
    (
        "say one of BATCH_VERB_STOP, BATCH_VERB_RESTART and BATCH_VERB_START",
        "应为 BATCH_VERB_STOP、BATCH_VERB_RESTART 或 BATCH_VERB_START",
    ),
    (
        "{} is no wave that is approved: they count from 2, and 0 is the next",
        "{} 不是需要审批的批次：批次从 2 开始，0 表示下一批",
    ),
    ("it is none of stop, force, start and restart", "应为 stop、force、start 或 restart"),
    ("it is not a UUID", "不是 UUID"),
    ("at character {}: {}", "第 {} 个字符处：{}"),
    (
        "what stands before `/` in the key `{}` is not a name such as `example.com`",
        "键 `{}` 中 `/` 之前的部分不是 `example.com` 这样的名称",
    ),
    (
        "the key `{}` is not 1 to 63 of a-z A-Z 0-9 - _ . with a letter or digit at both ends",
        "键 `{}` 应为 1 到 63 个字符，只能使用 `a-z A-Z 0-9 - _ .`，并以字母或数字开头和结尾",
    ),
    (
        "the value `{}` is not 1 to 63 of a-z A-Z 0-9 - _ . with a letter or digit at both ends",
        "值 `{}` 应为 1 到 63 个字符，只能使用 `a-z A-Z 0-9 - _ .`，并以字母或数字开头和结尾",
    ),
    ("{} labels are more than {}", "有 {} 个标签，最多 {} 个"),
    (
        "`{}` is neither a count of hosts from 1, as `3`, nor a share, as `10%`",
        "`{}` 既不是主机数量（如 `3`），也不是比例（如 `10%`）",
    ),
    ("they must be of {}", "应为 {} 中的值"),
    ("it must be at least 2: the first needs no approval", "至少为 2：第一批不需要审批"),
    ("it must be at least {}", "至少为 {}"),
    ("the query and the body contradict each other", "查询参数与请求体相互矛盾"),
    (
        "an order to one process is answered when its effect is proven",
        "对单个进程的操作在其效果得到证实后才应答，无需等待",
    ),
    ("this order is answered at once", "该操作立即返回结果，没有可等待的"),
    ("this order does not take it; leave it out", "该操作不接受此项，请去掉"),
    ("this order does not take it", "该操作不接受此项"),
    ("this order is for nothing that has an `ETag`", "该操作的对象没有 `ETag`"),
    (
        "this order has no dry run; the one of a batch is `PlanBatch`",
        "该操作不支持试运行，批量任务请使用 `PlanBatch`",
    ),
    ("it must be from {} to {} seconds, say `30` or `30s`", "应为 {} 到 {} 秒，例如 `30` 或 `30s`"),
    ("it must be a time with its offset, say `{}`", "应为带时区偏移的时间，例如 `{}`"),
    ("it is no time", "不是有效的时间"),
    ("it is none that was ever given; leave it empty to begin", "不是曾经给出过的值，留空则从头开始"),
    ("it is no version of a task; leave it empty to begin", "不是任务的版本，留空则从头开始"),
    ("{} are more than {}", "有 {} 个，最多 {} 个"),
    ("it has more than {} tags", "超过了 {} 个标签"),
    ("a tag is not in double quotes", "标签没有用双引号括起来"),
    ("a tag has no closing quote", "标签缺少右引号"),
    ("a tag has a character that tags do not have", "标签含有不允许的字符"),
    ("something follows a tag that is no comma", "标签之后应为逗号"),
    ("`*` stands alone", "`*` 必须单独使用"),
    ("it has no tag", "没有任何标签"),
    ("expected a string", "应为字符串"),
    ("expected a boolean", "应为布尔值"),
    ("expected a sequence", "应为数组"),
    ("expected a map", "应为对象"),
    ("expected one of {}", "应为 {} 之一"),
    ("expected a count such as 3, or a share such as \"10%\"", "应为数量（如 3）或比例（如 \"10%\"）"),
    (
        "expected seconds such as 30, or a duration such as \"30s\" or \"1h 30m\"",
        "应为秒数（如 30）或时长（如 \"30s\"、\"1h 30m\"）",
    ),
    ("expected {}", "应为 {}"),
];

/// The English phrases, cut at their holes: each wrong field is held against all of them.
static PIECES: LazyLock<Vec<Vec<&str>>> =
    LazyLock::new(|| PHRASES.iter().map(|(english, _)| english.split("{}").collect()).collect());

/// A phrase in Chinese; itself where the catalogue does not have it.
pub(super) fn chinese(phrase: &str) -> String {
    let mut known = PIECES.iter().zip(PHRASES);
    let found = known.find_map(|(english, (_, chinese))| Some(fill(chinese, &holes(english, phrase)?)));
    found.unwrap_or_else(|| phrase.to_owned())
}

/// What stands between the pieces of a phrase, where a text fits it.
fn holes<'a>(pieces: &[&str], text: &'a str) -> Option<Vec<&'a str>> {
    let (first, others) = pieces.split_first()?;
    let mut rest = text.strip_prefix(first)?;
    let Some((last, between)) = others.split_last() else {
        return rest.is_empty().then(Vec::new);
    };
    let mut found = Vec::with_capacity(others.len());
    for piece in between {
        let (hole, after) = rest.split_once(piece)?;
        found.push(hole);
        rest = after;
    }
    found.push(rest.strip_suffix(last)?);
    Some(found)
}

fn fill(pattern: &str, holes: &[&str]) -> String {
    let mut holes = holes.iter();
    let mut parts = pattern.split("{}");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + holes.next().copied().unwrap_or_default() + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phrase_is_found_with_what_stands_in_it() {
        for (english, expected) in PHRASES {
            let number = english.matches("{}").count();
            assert_eq!(expected.matches("{}").count(), number, "{english}");
            let words: Vec<_> = ["7", "eight", "9"].into_iter().take(number).collect();
            assert_eq!(chinese(&fill(english, &words)), fill(expected, &words), "{english}");
        }
    }

    #[test]
    fn what_is_not_in_the_catalogue_stays_as_it_is() {
        for other in ["", "something else", "it is missing or so", "host 7 is held", "it is empty today"] {
            assert_eq!(chinese(other), other);
        }
        assert_eq!(chinese("it must be a whole number from 1 to 2000"), "应为 1 到 2000 之间的整数");
        assert_eq!(
            chinese("unknown field `a`, expected one of `b`, `c`"),
            "未知字段 `a`，可用的字段有 `b`, `c`"
        );
    }
}
