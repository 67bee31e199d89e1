//! The language in which a refusal speaks, by `Accept-Language` (RFC 9110, section 12.5.4).
//!
//! Both languages are in every refusal, so what is chosen here is only which of them is shown.

use std::cmp::Reverse;

use belay_proto::{CHINESE, Chinese, Problem, field_in_chinese};
use http::{HeaderMap, HeaderValue, header};

/// A language that Belay speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    English,
    Chinese,
}

impl Language {
    /// The language that a caller wants most: English where it names none of ours, and where it says nothing that can be
    /// understood.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get_all(header::ACCEPT_LANGUAGE).iter();
        let ranges: Vec<_> = sent
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
            .filter_map(|range| Range::read(str::from_utf8(range).ok()?))
            .collect();
        // How much a language is wanted: what is named first wins among equals, and what is named over what is not.
        let wish = |language: &str| {
            let named = ranges.iter().enumerate().filter(|(_, range)| range.language == language);
            let best = named.map(|(place, range)| (range.quality, Reverse(place))).max();
            let any = ranges.iter().filter(|range| range.language == "*").map(|range| range.quality).max();
            best.unwrap_or((any.unwrap_or(0), Reverse(usize::MAX)))
        };
        let (english, chinese) = (wish("en"), wish("zh"));
        if chinese.0 > 0 && chinese > english { Self::Chinese } else { Self::English }
    }

    /// Its tag, for `Content-Language`.
    pub(crate) fn tag(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::English => "en",
            Self::Chinese => CHINESE,
        })
    }

    /// What a person is told of one wrong field.
    pub(crate) fn of_field(self, message: &str) -> String {
        match self {
            Self::English => message.to_owned(),
            Self::Chinese => field_in_chinese(message),
        }
    }

    /// What a person is told of a problem: what is wrong, and what to do.
    pub(crate) fn message(self, problem: &Problem) -> String {
        let (message, hint) = self.message_and_hint(problem);
        match self {
            _ if hint.is_empty() => message,
            Self::English => format!("{message} (hint: {hint})"),
            Self::Chinese => format!("{message}（提示：{hint}）"),
        }
    }

    /// The same, each for itself.
    pub(crate) fn message_and_hint(self, problem: &Problem) -> (String, String) {
        match self {
            Self::English => (problem.message.clone(), problem.hint.clone()),
            Self::Chinese => {
                let Chinese { message, hint } = problem.in_chinese();
                (message, hint)
            }
        }
    }
}

/// One language that a caller names, with how much it is wanted.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    /// The first part of the tag in lower case: `zh` of `zh-Hans-CN`. Our languages have no others that differ.
    language: String,
    /// In thousandths; 0 where it is not wanted at all.
    quality: u16,
}

impl Range {
    /// Reads one; `None` for what is none.
    fn read(text: &str) -> Option<Self> {
        let (tag, quality) = match text.split_once(';') {
            None => (text, 1000),
            Some((tag, weight)) => (tag, quality(weight)?),
        };
        let language = tag.trim().split('-').next()?.to_ascii_lowercase();
        let is_one = language == "*"
            || (1..=8).contains(&language.len()) && language.bytes().all(|byte| byte.is_ascii_alphabetic());
        is_one.then_some(Self { language, quality })
    }
}

/// Reads `q=0.8`: at most three digits after the point, and at most 1.
fn quality(weight: &str) -> Option<u16> {
    let value = weight.trim().strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('=')?.trim();
    let (whole, digits) = value.split_once('.').unwrap_or((value, ""));
    if digits.len() > 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{digits:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use belay_proto::Reason;

    use super::*;

    #[track_caller]
    fn check(sent: &[&str], expected: Language) {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers
                .append(header::ACCEPT_LANGUAGE, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        assert_eq!(Language::of(&headers), expected, "{sent:?}");
    }

    #[test]
    fn the_language_is_the_one_that_is_wanted_most() {
        for chinese in [
            "zh",
            "zh-CN",
            "ZH-hans",
            "zh-Hant-TW",
            "zh-CN,zh;q=0.9,en;q=0.8",
            "en;q=0.5, zh-CN;q=0.9",
            "fr;q=0.9, en;q=0, zh;q=0.1",
            "zh,en",
            " zh ; q = 1.000 ",
            "de, zh;q=0.8, en;q=0.7",
            "en;q=0, *",
            "*;q=0.9, en;q=0, zh;q=0.5",
        ] {
            check(&[chinese], Language::Chinese);
        }
        for english in [
            "",
            "en",
            "en-GB,zh;q=0.9",
            "en,zh",
            "*",
            "fr",
            "zh;q=0",
            "zh;q=0, *",
            "*;q=0.5, zh;q=0.4",
            "zhx",
        ] {
            check(&[english], Language::English);
        }
        check(&[], Language::English);
        check(&["en;q=0.1", "zh;q=0.2"], Language::Chinese);
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        for garbage in
            ["zh;q=2", "zh;q=0.1234", "zh;q=", "zh;level=1", "中文", ";;;,,,", "zh_CN", "-zh", "q=1"]
        {
            check(&[garbage], Language::English);
        }
        check(&["中文, ;q=1, en;q=x, zh-CN;q=0.3"], Language::Chinese);
        check(&[&"zh;q=0.1,".repeat(10_000)], Language::Chinese);
    }

    #[test]
    fn both_languages_say_what_to_do() {
        let problem = Problem::new(Reason::AgentBusy, "host 20 is held by task 7").hint("wait for task 7");
        assert_eq!(Language::English.message(&problem), "host 20 is held by task 7 (hint: wait for task 7)");
        let problem = problem.chinese("主机 20 正被任务 7 占用", "请等待任务 7 结束");
        assert_eq!(Language::Chinese.message(&problem), "主机 20 正被任务 7 占用（提示：请等待任务 7 结束）");
        let plain = Problem::new(Reason::HostUnknown, "there is no host 20");
        assert_eq!(Language::English.message(&plain), "there is no host 20");
        assert!(Language::Chinese.message(&plain).starts_with("主机不存在：there is no host 20（提示："));
    }
}
