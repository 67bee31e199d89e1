//! What the kernel lets a process have.

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::read::{Written, memory};

/// The rights that new files do not get. Default: 022.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Umask(u32);

/// Limits of the kernel on all processes of an instance together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CgroupLimits {
    /// How many processors it may use, say `1.5`.
    #[serde(deserialize_with = "cpus")]
    pub cpus: Option<f64>,
    /// How much memory it may have, say `"1GiB"`.
    #[serde(deserialize_with = "memory")]
    pub memory: Option<ByteSize>,
    /// How many processes and threads it may have.
    #[serde(deserialize_with = "pids")]
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
#[serde(try_from = "Written")]
pub enum Rlimit {
    /// So much.
    At(u64),
    /// As much as there is.
    Unlimited,
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

impl TryFrom<Written> for Umask {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        // A number is refused: whether `22` is octal, only its writer knows.
        let octal = match &written {
            Written::Text(text) if text.starts_with('+') => None,
            Written::Text(text) => u32::from_str_radix(text, 8).ok(),
            Written::Number(_) => None,
        };
        octal.filter(|bits| *bits <= 0o777).map(Self).ok_or_else(|| {
            format!("{written} is not a umask: write it in octal digits and in quotes, as in \"027\"")
        })
    }
}

impl TryFrom<Written> for Rlimit {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let limit = match &written {
            Written::Number(number) => u64::try_from(*number).ok().map(Self::At),
            Written::Text(text) => (text == "unlimited").then_some(Self::Unlimited),
        };
        limit.ok_or_else(|| format!("{written} is not a limit: write a number, or \"unlimited\""))
    }
}

fn cpus<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let cpus = f64::deserialize(from)?;
    match (0.01..=100_000.0).contains(&cpus) {
        true => Ok(Some(cpus)),
        false => Err(D::Error::custom("a number of processors, from 0.01 on; leave it out for no limit")),
    }
}

fn pids<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    match u32::deserialize(from)? {
        0 => Err(D::Error::custom("at least 1; leave it out for no limit")),
        pids => Ok(Some(pids)),
    }
}
