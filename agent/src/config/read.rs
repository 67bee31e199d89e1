//! How single values are read. A value that makes no sense is refused where it stands, with what to write instead.

use std::{collections::BTreeMap, fmt, marker::PhantomData, path::PathBuf, str::FromStr, time::Duration};

use belay_proto::check_labels;
use bytesize::ByteSize;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Unexpected, Visitor},
};

/// The longest that anything waits.
const LONGEST: Duration = Duration::from_secs(3600);

/// A size below which no process lives.
const LEAST_MEMORY: ByteSize = ByteSize::mib(1);

/// Reads a path that must be absolute.
pub(super) fn absolute<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::from(word(from)?);
    if path.is_absolute() {
        Ok(path)
    } else {
        let path = path.display();
        Err(D::Error::custom(format!(
            "`{path}` is not an absolute path: write it from `/` on; no shell and no PATH is searched for it"
        )))
    }
}

/// Reads a duration of at most an hour.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let duration: Duration = match Written::deserialize(from)? {
        Written::Text(text) => humantime_serde::re::humantime::parse_duration(&text).ok(),
        Written::Number(_) => None,
    }
    .ok_or_else(|| D::Error::custom("write a duration with its unit, as in \"10s\", \"500ms\" or \"2m\""))?;
    if duration <= LONGEST { Ok(duration) } else { Err(D::Error::custom("at most \"1h\"")) }
}

/// Reads a duration of at most an hour, where it stands.
pub(super) fn some_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

/// Reads a time that something gets: at most an hour, and more than nothing.
pub(super) fn patience<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    match duration(from)? {
        Duration::ZERO => Err(D::Error::custom("more than nothing: without any time this always fails")),
        patience => Ok(patience),
    }
}

/// Reads a size in bytes.
pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<ByteSize, D::Error> {
    let size = match Written::deserialize(from)? {
        Written::Text(text) => ByteSize::from_str(&text).ok(),
        Written::Number(number) => u64::try_from(number).ok().map(ByteSize::b),
    };
    size.ok_or_else(|| D::Error::custom("write a size, as in \"512MiB\" or \"2GiB\""))
}

/// Reads how much memory processes may have.
pub(super) fn memory<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ByteSize>, D::Error> {
    let memory = size(from)?;
    if memory >= LEAST_MEMORY {
        Ok(Some(memory))
    } else {
        Err(D::Error::custom("at least \"1MiB\": with less, nothing lives; leave it out for no limit"))
    }
}

/// Reads a text that the kernel can take: without a zero byte.
pub(super) fn word<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    match Written::deserialize(from)? {
        Written::Number(number) => Err(D::Error::custom(format!("write it in quotes, as in \"{number}\""))),
        Written::Text(text) if text.contains('\0') => {
            Err(D::Error::custom("it holds a zero byte, which no program can be given: remove it"))
        }
        Written::Text(text) => Ok(text),
    }
}

/// Reads the name of a user or a group.
pub(super) fn account<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match Written::deserialize(from)? {
        Written::Text(name) if !name.is_empty() && !name.contains('\0') => Ok(Some(name)),
        _ => Err(D::Error::custom("write a name, as `getent` knows it, or leave it out for the agent's own")),
    }
}

/// Reads arguments.
pub(super) fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    struct Word(#[serde(deserialize_with = "word")] String);
    list("a list, as in [\"-p\", \"80\"]", |Word(word)| word, from)
}

/// Reads labels.
pub(super) fn labels<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    struct Word(#[serde(deserialize_with = "word")] String);
    let labels = BTreeMap::<String, Word>::deserialize(from)?;
    let labels: BTreeMap<_, _> = labels.into_iter().map(|(key, Word(value))| (key, value)).collect();
    match check_labels(labels.iter().map(|(key, value)| (&key[..], &value[..]))) {
        Ok(()) => Ok(labels),
        Err(fault) => Err(D::Error::custom(fault)),
    }
}

/// Reads exit codes.
pub(super) fn exit_codes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<i32>, D::Error> {
    #[derive(Deserialize)]
    struct Code(#[serde(deserialize_with = "exit_code")] i32);
    list("a list, as in [0, 143]", |Code(code)| code, from)
}

/// Reads a list, and says what one looks like where there is none.
pub(super) fn list<'de, D: Deserializer<'de>, W: Deserialize<'de>, T>(
    expected: &'static str,
    unwrap: impl Fn(W) -> T,
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct List<W, F>(&'static str, F, PhantomData<W>);

    impl<'de, W: Deserialize<'de>, T, F: Fn(W) -> T> Visitor<'de> for List<W, F> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                list.push((self.1)(item));
            }
            Ok(list)
        }
    }

    from.deserialize_seq(List(expected, unwrap, PhantomData))
}

fn exit_code<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    let code = i32::deserialize(from)?;
    match (0..=255).contains(&code) {
        true => Ok(code),
        false => Err(D::Error::custom(format!("{code} is not an exit code: use 0 to 255"))),
    }
}

/// A number, or a text that means one.
#[derive(Debug)]
pub(super) enum Written {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

// Not `#[serde(untagged)]`: that forgets what stood there.
impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct AsWritten;

        impl Visitor<'_> for AsWritten {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes, or a number")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Written, E> {
                Ok(Written::Number(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Written, E> {
                i64::try_from(number)
                    .map(Written::Number)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
                Ok(Written::Text(text.to_owned()))
            }
        }

        from.deserialize_any(AsWritten)
    }
}
