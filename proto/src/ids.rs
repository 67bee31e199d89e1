//! Ids, checked once where they come in, and never bare integers afterwards.

use std::fmt;

/// An id that is not one: below 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidId(pub i64);

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not an id: ids are whole numbers from 1 to 9223372036854775807", self.0)
    }
}

impl std::error::Error for InvalidId {}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(i64);

        impl $name {
            /// The number, as the wire and the database carry it.
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl TryFrom<i64> for $name {
            type Error = InvalidId;

            fn try_from(id: i64) -> Result<Self, InvalidId> {
                if id > 0 { Ok(Self(id)) } else { Err(InvalidId(id)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A host. Its agent carries the same number.
    HostId
}
id! {
    /// A process of some host: kept for (host, alias) for ever.
    ProcessId
}
id! {
    /// A durable task.
    TaskId
}
id! {
    /// A step of a durable task.
    SubtaskId
}
id! {
    /// A user.
    UserId
}
id! {
    /// A region.
    RegionId
}
id! {
    /// A data centre.
    IdcId
}
id! {
    /// A host type.
    HostTypeId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positive_numbers_are_ids() {
        for bad in [0, -1, i64::MIN] {
            assert_eq!(HostId::try_from(bad), Err(InvalidId(bad)));
        }
        for good in [1, 185, i64::MAX] {
            assert_eq!(HostId::try_from(good).map(HostId::get), Ok(good));
        }
    }
}
