//! What the kernel lets a process have.

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de::Error as _};

/// The rights that new files do not get. Default: 022.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Umask(u32);

/// Limits of the kernel on all processes of an instance together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CgroupLimits {
    /// How many processors it may use, say `1.5`.
    #[serde(deserialize_with = "cpus")]
    pub cpus: Option<f64>,
    /// How much memory it may have, say `"1GiB"`.
    pub memory: Option<ByteSize>,
    /// How many processes and threads it may have.
    pub pids: Option<u32>,
}

/// A limit on each process (`setrlimit(2)`), by its name there in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RlimitName {
    /// Address space, in bytes.
    As,
    /// Core files, in bytes.
    Core,
    /// Processor time, in seconds.
    Cpu,
    /// The heap, in bytes.
    Data,
    /// Files that it writes, in bytes.
    Fsize,
    /// Memory locked into RAM, in bytes.
    Memlock,
    /// Open descriptors.
    Nofile,
    /// Processes and threads of its user.
    Nproc,
    /// The stack, in bytes.
    Stack,
}

/// A limit: a number, or `"unlimited"`. Both the soft and the hard one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenRlimit")]
pub enum Rlimit {
    /// So much.
    At(u64),
    /// As much as there is.
    Unlimited,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum WrittenRlimit {
    Number(u64),
    Word(String),
}

impl Umask {
    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl Default for Umask {
    fn default() -> Self {
        Self(0o022)
    }
}

impl TryFrom<String> for Umask {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let octal = u32::from_str_radix(&text, 8).ok().filter(|bits| *bits <= 0o777);
        octal
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a umask: write it in octal digits, as in \"027\""))
    }
}

impl TryFrom<WrittenRlimit> for Rlimit {
    type Error = String;

    fn try_from(written: WrittenRlimit) -> Result<Self, String> {
        match written {
            WrittenRlimit::Number(number) => Ok(Self::At(number)),
            WrittenRlimit::Word(word) if word == "unlimited" => Ok(Self::Unlimited),
            WrittenRlimit::Word(word) => {
                Err(format!("{word:?} is not a limit: write a number, or \"unlimited\""))
            }
        }
    }
}

fn cpus<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let cpus = Option::<f64>::deserialize(from)?;
    match cpus {
        Some(cpus) if !(0.01..=100_000.0).contains(&cpus) => Err(D::Error::custom("at least 0.01")),
        cpus => Ok(cpus),
    }
}
